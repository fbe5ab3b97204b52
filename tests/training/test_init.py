"""`--face.init` and `--text.init`: towers that start from another run's."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from emotion_tf.data import records
from emotion_tf.data.tokenizer import WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.models.two_tower import build_model, pretrained_layers
from emotion_tf.training.init import start_towers
from emotion_tf.training.run_folder import RunFolder
from emotion_tf.training.train import Trainer


def started(config, path, encoder=None):
    """A run that has started and not trained, and what it said."""
    said = []
    trainer = Trainer(config, RunFolder(path), records.read_info(Path(config.data)), encoder, said.append)
    trainer.start("pytest")
    return trainer, said


def init(config, **runs):
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), init=str(run)) for part, run in runs.items()}
    )


def values(model, tower):
    """Weights, without the state of an encoder's dropout, which is of the run's own seed."""
    return [np.asarray(v) for v in model.get_layer(tower).weights if "dropout" not in v.name]


def test_both_towers_start_from_the_named_run_and_the_fusion_does_not(bert_run, bert_config, tiny_bert, tmp_path):
    config = init(dataclasses.replace(bert_config, train=dataclasses.replace(bert_config.train, seed=5)))
    fresh, _ = started(config, tmp_path / "fresh", tiny_bert)
    trainer, said = started(init(config, text=bert_run.path, face=bert_run.path), tmp_path / "run", tiny_bert)
    for tower in ("text_tower", "face_tower"):
        pairs = list(zip(values(trainer.model, tower), values(bert_run.model, tower), strict=True))
        assert len(pairs) > 5 and all((a == b).all() for a, b in pairs)
        assert any(f"{tower} starts from {bert_run.path}" in line for line in said)
        assert any(
            (a != b).any() for a, b in zip(values(fresh.model, tower), values(bert_run.model, tower), strict=True)
        )
    states = {v.name: int(v.value) for v in trainer.model.get_layer("text_tower").weights if "dropout_seed" in v.name}
    assert set(states.values()) == {5}, states
    assert (
        np.asarray(trainer.model.get_layer("logits").kernel) == np.asarray(fresh.model.get_layer("logits").kernel)
    ).all()


def test_which_weights_are_trained_does_not_matter_to_the_start(bert_run, bert_config, tiny_bert, tmp_path):
    """A module's frozen weights stand behind its trained ones in Keras: it must not mix them up."""
    text = dataclasses.replace(bert_config.text, freeze_embeddings=True)
    config = init(dataclasses.replace(bert_config, text=text), text=bert_run.path)
    trainer, _ = started(config, tmp_path / "run", tiny_bert)
    theirs, ours = (
        {v.name: np.asarray(v) for v in m.get_layer("text_tower").get_layer("bert").weights if "seed" not in v.name}
        for m in (bert_run.model, trainer.model)
    )
    assert list(theirs) != list(ours) and theirs.keys() == ours.keys()
    assert all((theirs[name] == ours[name]).all() for name in theirs)


def test_a_tower_that_was_taken_over_learns_as_pretrained_branches_do(bert_run, small_config):
    spec = records.data_spec(records.read_info(Path(small_config.data)))
    model = build_model(small_config, spec, 50)
    assert list(pretrained_layers(model, small_config)) == []
    layers = list(pretrained_layers(model, init(small_config, face=bert_run.path)))
    assert {id(w) for layer in layers for w in layer.weights} == {id(w) for w in model.get_layer("face_tower").weights}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"face": {"cnn_filters": (4, 6)}}, "The face tower of .* is another one .*Expected the same --face"),
        ({"face": {"cnn_filters": (4, 8, 8)}}, "The face tower of .* is another one"),
        ({"text": {"vocabulary_size": 20}}, "knows other words"),
    ],
)
def test_another_tower_or_vocabulary_is_refused(bert_run, bert_config, tiny_bert, tmp_path, change, words):
    config = init(bert_config, text=bert_run.path, face=bert_run.path)
    for part, values in change.items():
        config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})
    with pytest.raises(UserError, match=words):
        started(config, tmp_path / "run", tiny_bert)
    assert not (tmp_path / "run").exists()


def test_crops_of_another_size_are_named(bert_run, small_config):
    config = init(dataclasses.replace(small_config, towers="face"), face=bert_run.path)
    spec = dataclasses.replace(bert_run.spec, face_size=12)
    with pytest.raises(UserError, match=r"crops of \d+ px. Received crops of 12 px .*one --face-size"):
        start_towers(build_model(config, spec, 2), config, spec, WordVocabulary(()), print)


def test_words_matter_only_to_branches_that_read_them(bert_run, bert_config, tiny_bert):
    text = dataclasses.replace(bert_config.text, branches=("bert",), init=str(bert_run.path))
    config = dataclasses.replace(bert_config, towers="text", text=text)
    model = build_model(config, bert_run.spec, 2, tiny_bert)
    with pytest.raises(UserError, match="The text tower of .* is another one"):  # the run has a GRU, too
        start_towers(model, config, bert_run.spec, WordVocabulary(("other",)), print)


def test_no_run_and_a_run_without_that_tower_are_refused(small_config, tmp_path):
    with pytest.raises(UserError, match="No run at"):
        started(init(small_config, face=tmp_path / "none"), tmp_path / "run")
    text = dataclasses.replace(small_config, towers="text", train=dataclasses.replace(small_config.train, epochs=1))
    from helpers import train_run

    train_run(text, tmp_path / "text")
    with pytest.raises(UserError, match="has no face tower. Expected a run trained with --towers face or both"):
        started(init(small_config, face=tmp_path / "text"), tmp_path / "run")
