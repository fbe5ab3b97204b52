"""`--face.init` and `--text.init`: towers that start from another run's; and published word vectors."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import build_setup, train_run

from emotion_tf.data.dataset import Dataset
from emotion_tf.data.embeddings import Embeddings
from emotion_tf.data.tokenizer import WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.models.two_tower import build_model
from emotion_tf.training.initialize import initialize_towers, initialize_words


def init(config, **runs):
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), init=str(run)) for part, run in runs.items()}
    )


def values(tower):
    """Weights, without the state of an encoder's dropout, which is of the run's own seed."""
    return [np.asarray(v) for v in tower.weights if "dropout" not in v.name]


def kernel(model):
    return np.asarray(next(layer for layer in model.fusion.layers if layer.name == "logits").kernel)


def test_both_towers_start_from_the_named_run_and_the_fusion_does_not(bert_run, bert_config, tiny_bert):
    config = dataclasses.replace(bert_config, train=dataclasses.replace(bert_config.train, seed=5))
    fresh = build_setup(config, tiny_bert).model
    lines = []
    model = build_setup(init(config, text=bert_run.path, face=bert_run.path), tiny_bert, lines.append).model
    for name, tower in model.towers.items():
        pairs = list(zip(values(tower), values(bert_run.model.towers[name]), strict=True))
        assert len(pairs) > 5 and all((a == b).all() for a, b in pairs)
        assert any(f"{name}_tower starts from {bert_run.path}" in line for line in lines)
        assert any((a != b).any() for a, b in zip(values(fresh.towers[name]), values(tower), strict=True))
    states = {v.name: int(v.value) for v in model.towers["text"].weights if "dropout_seed" in v.name}
    assert set(states.values()) == {5}, states
    assert (kernel(model) == kernel(fresh)).all()


def test_frozen_towers_are_initialised_too(bert_run, bert_config, tiny_bert):
    """A module's frozen weights stand behind its trained ones in Keras: it must not mix them up."""
    text = dataclasses.replace(bert_config.text, freeze_embeddings=True)
    model = build_setup(init(dataclasses.replace(bert_config, text=text), text=bert_run.path), tiny_bert).model
    theirs, ours = (
        {v.name: np.asarray(v) for v in m.towers["text"].find_layer("bert").weights if "seed" not in v.name}
        for m in (bert_run.model, model)
    )
    assert list(theirs) != list(ours) and theirs.keys() == ours.keys()
    assert all((theirs[name] == ours[name]).all() for name in theirs)


def test_an_initialised_tower_trains_at_the_pretrained_rate(bert_run, small_config):
    spec = Dataset.open(Path(small_config.data)).spec
    assert list(build_model(small_config, spec, (50, 8)).pretrained) == []
    model = build_model(init(small_config, face=bert_run.path), spec, (50, 8))
    trained = {id(w) for layer in model.pretrained for w in layer.layer.weights}
    assert trained == {id(w) for w in model.towers["face"].weights}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"face": {"cnn_filters": (4, 6)}}, "The face tower of .* is a different one .*Expected the same --face"),
        ({"face": {"cnn_filters": (4, 8, 8)}}, "The face tower of .* is a different one"),
        ({"text": {"vocabulary_size": 20}}, "has another vocabulary"),
    ],
)
def test_another_tower_or_vocabulary_is_refused(bert_run, bert_config, tiny_bert, tmp_path, change, words):
    config = init(bert_config, text=bert_run.path, face=bert_run.path)
    for part, options in change.items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **options)})
    with pytest.raises(UserError, match=words):
        train_run(config, tmp_path / "run", tiny_bert)
    assert not (tmp_path / "run").exists()


def test_crops_of_another_size_are_refused(bert_run, small_config):
    config = init(dataclasses.replace(small_config, towers=("face",)), face=bert_run.path)
    spec = dataclasses.replace(bert_run.spec, face_size=12)
    with pytest.raises(UserError, match=r"crops of \d+ px. Received crops of 12 px .*one --face-size"):
        initialize_towers(build_model(config, spec, (2, 8)), config, spec, WordVocabulary(()), print)


def test_the_word_vocabulary_matters_only_to_word_branches(bert_run, bert_config, tiny_bert):
    text = dataclasses.replace(bert_config.text, branches=("bert",), init=str(bert_run.path))
    config = dataclasses.replace(bert_config, towers=("text",), text=text)
    model = build_model(config, bert_run.spec, (2, 8), tiny_bert)
    with pytest.raises(UserError, match="The text tower of .* is a different one"):  # the run has a GRU, too
        initialize_towers(model, config, bert_run.spec, WordVocabulary(("other",)), print)


def test_missing_runs_and_towers_are_refused(small_config, untrained_text, tmp_path):
    with pytest.raises(UserError, match="No run at"):
        train_run(init(small_config, face=tmp_path / "none"), tmp_path / "run")
    with pytest.raises(UserError, match="has no face tower. Expected a run trained with --towers face"):
        train_run(init(small_config, face=untrained_text), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_words_without_a_vector_keep_their_random_one(small_config):
    spec = Dataset.open(Path(small_config.data)).spec
    words = WordVocabulary(["yes", "no", "well"])
    tower = build_model(small_config, spec, (len(words), 2)).towers["text"]
    layer = tower.find_layer("word_embedding")
    before = np.array(layer.embeddings)
    vectors = np.array([[1, 2], [0, 0], [3, 4]], np.float32)
    initialize_words(tower, Embeddings(vectors, np.array([True, False, True])))
    ids = words(np.array(["yes no well other"]), 4)["word_ids"].numpy()[0]
    table = np.asarray(layer.embeddings)
    np.testing.assert_array_equal(table[ids[[0, 2]]], vectors[[0, 2]])
    rest = np.setdiff1d(np.arange(len(words)), ids[[0, 2]])
    assert {ids[1], ids[3]} <= set(rest) and len(rest) == len(words) - 2
    np.testing.assert_array_equal(table[rest], before[rest])
