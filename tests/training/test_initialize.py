"""`--face.init` and `--text.init`: towers that start from another run's; and published word vectors."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import build_setup, train_run
from small_records import replace_record, with_dev_as_test

from emotion_tf.cli.arguments import TrainArguments
from emotion_tf.cli.train import train
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.embeddings import Embeddings
from emotion_tf.data.tokenizer import WordVocabulary
from emotion_tf.errors import UserError
from emotion_tf.models.two_tower import build_model
from emotion_tf.training.initialize import check_unseen, initialize_towers, initialize_words


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
    if "text" not in change:
        config = dataclasses.replace(config, towers=("face",))
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
    # a frozen embedding cannot learn the unknown word: it has the mean of the published vectors
    layer.trainable = False
    layer.embeddings.assign(before)
    initialize_words(tower, Embeddings(vectors, np.array([True, False, True])))
    frozen = np.asarray(layer.embeddings)
    np.testing.assert_array_equal(frozen[ids[3]], [2, 3])
    np.testing.assert_array_equal(np.delete(frozen, ids[3], axis=0), np.delete(table, ids[3], axis=0))


@pytest.fixture
def copy_run(untrained, tmp_path):
    """Function from a name and a data set to a copy of a run that says it was trained on these data."""

    def copy(name, data):
        run = tmp_path / name
        shutil.copytree(untrained, run)
        about = {"data": str(data)}, {"data_sha256": Dataset.open(data).spec.data_sha256}
        for file, changes in zip(("config.json", "run.json"), about, strict=True):
            (run / file).write_text(json.dumps({**json.loads((run / file).read_text()), **changes}))
        return run

    return copy


def with_test_as_train(data, out):
    """Copies a data set; the split train of the copy has the utterances of test."""
    shutil.copytree(data, out)
    values = json.loads((out / "dataset_info.json").read_text())
    for shard in values["splits"]["train"]["shards"]:
        (out / shard["file"]).unlink()
    values["splits"]["train"] = values["splits"]["test"]
    (out / "dataset_info.json").write_text(json.dumps(values))
    return out


def test_data_of_an_initial_run_are_checked_before_they_are_read(copy_run, dataset, small_config, tmp_path):
    data = shutil.copytree(dataset, tmp_path / "source")
    replace_record(data, "dev", 2, weight=-5.0)
    config, printed = init(small_config, face=copy_run("first", data)), []
    assert check_unseen(config, Dataset.open(dataset), ["test"], ["dev"], printed.append) == printed
    assert "Not checked whether" in printed[0] and "record 2 at offset" in printed[0] and "Received: -5.0" in printed[0]


@pytest.mark.parametrize("tower", ["text", "face"])
@pytest.mark.parametrize("use", ["trained", "validated"])
def test_a_tower_that_has_seen_the_utterances_of_test_is_refused(tower, use, copy_run, dataset, tmp_path, fault):
    """In training, or on dev, where the run selected its epoch; of another data set with the same utterances."""
    data = with_test_as_train(dataset, tmp_path / "source") if use == "trained" else dataset
    run = copy_run("first", data)
    target = with_dev_as_test(dataset, tmp_path / "target").path if use == "validated" else dataset
    printed = fault("train", "--data", target, "--towers", "text", "face", f"--{tower}.init", run, "--name", "leak")
    assert f"Invalid `{tower}.init`. Expected other data: {run} was {use} on " in printed
    assert "are held out (test" in printed and not Path("saved_models/leak").exists()


def test_a_tower_of_the_same_training_split_is_accepted(copy_run, dataset, small_config, tmp_path):
    """Of the same data set, and of one that shares train and dev but has another test; both are recorded."""
    lines = []
    config = init(small_config, text=copy_run("same", dataset))
    (sentence,) = check_unseen(config, Dataset.open(dataset), ["test"], ["dev"], lines.append)
    assert (
        sentence
        == f"{tmp_path / 'same'} (text) was not trained on test and dev of these data, and not selected by test."
    )
    source = with_dev_as_test(dataset, tmp_path / "source").path
    config = init(small_config, face=copy_run("other", source))
    (sentence,) = check_unseen(config, Dataset.open(dataset), ["test"], ["dev"], lines.append)
    assert (
        sentence
        == f"{tmp_path / 'other'} (face) was not trained on test and dev of these data, and not selected by test."
        and not lines
    )


def test_a_tower_whose_data_are_gone_is_reported_and_recorded(copy_run, dataset, small_config, tmp_path):
    other = with_test_as_train(dataset, tmp_path / "other")
    run, lines = copy_run("run", other), []
    shutil.rmtree(other)
    recorded = check_unseen(init(small_config, face=run), Dataset.open(dataset), ["test"], ["dev"], lines.append)
    assert recorded == lines and len(lines) == 1
    assert lines[0].startswith(f"Not checked whether {run} was trained on these data: No data set at {other}")


def test_an_initial_run_that_does_not_exist_is_not_reported_as_unchecked(dataset, small_config, tmp_path):
    lines = []
    with pytest.raises(UserError, match="No run at"):
        check_unseen(init(small_config, face=tmp_path / "typo"), Dataset.open(dataset), ["test"], say=lines.append)
    assert lines == []


def test_several_seeds_are_checked_once(small_config, monkeypatch):
    checks, recorded = [], []
    monkeypatch.setattr("emotion_tf.training.initialize.check_unseen", lambda *_, **__: checks.append(1) or ["checked"])
    monkeypatch.setattr("emotion_tf.training.loop.train", lambda *_, initial, **__: recorded.append(initial))
    monkeypatch.setattr("emotion_tf.cli.train._evaluate", lambda *_: None)
    monkeypatch.setattr("emotion_tf.evaluation.seeds.print_seeds", lambda paths: None)
    train(TrainArguments(small_config, name="seeds", seeds=3))
    assert checks == [1] and recorded == [["checked"]] * 3
