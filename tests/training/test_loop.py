"""Training as the user meets it: what is left behind, continuing to the same bits, freezing, the best epoch."""

import contextlib
import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from helpers import build_setup, train_run, training_data
from small_records import with_other_hash

from emotion_tf.errors import UserError
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.runs.run import Run
from emotion_tf.training import loop
from emotion_tf.training.checkpoint import Checkpoints

CLOCK = ["seconds", "utterances_per_second"]


def change(config, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def word_config(small_config):
    """Convolutions over words alone, one update an epoch: the quickest training that there is."""
    text = dataclasses.replace(small_config.text, branches=("cnn",), word_dim=4, cnn_filters=3)
    return change(dataclasses.replace(small_config, towers=("text",), text=text), steps_per_epoch=1, warmup=0.0)


@contextlib.contextmanager
def eagerly():
    """As the fixture `eager`, for fixtures of the module."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def small_run(word_config, small_config, tmp_path_factory):
    """A finished run of two towers."""
    path = tmp_path_factory.mktemp("runs") / "small"
    face = dataclasses.replace(small_config.face, cnn_filters=(4,))
    with eagerly():
        train_run(change(dataclasses.replace(word_config, towers=("text", "face"), face=face), epochs=2), path)
    return Run(path)


def weights(model):
    return [np.array(v) for v in model.weights]


def arrays(path):
    """Everything in the last checkpoint of a run, without the clock."""
    with np.load(path / "checkpoint" / "last.npz") as file:
        values = {name: file[name] for name in file}
    state = {k: v for k, v in json.loads(str(values.pop("about"))).items() if k != "seconds"}
    return values, state


def history(path):
    return pd.read_csv(path / "history.csv").drop(columns=CLOCK)


def check_same_bits(path, other):
    """Weights, seeds, averages, optimizer and history of two unfinished runs."""
    (values, state), (others, other_state) = arrays(path), arrays(other)
    assert values.keys() == others.keys() and state == other_state
    for name, value in values.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
    pd.testing.assert_frame_equal(history(path), history(other), check_exact=True)


def interrupt(monkeypatch, owner, name, call):
    """Lets a function be interrupted as it is called for the n-th time."""
    function, calls = getattr(owner, name), []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **options)

    monkeypatch.setattr(owner, name, interrupted)


def test_a_run_folder_holds_what_predict_needs(small_run, dataset):
    names = {path.name for path in small_run.path.iterdir()}
    assert names >= {"config.json", "run.json", "vocab.txt", "words.txt", "model.keras", "history.csv", "logs"}
    assert "checkpoint" not in names
    assert list(pd.read_csv(small_run.history)["epoch"]) == [1, 2]
    assert small_run.labels == tuple(json.loads((dataset / "dataset_info.json").read_text())["labels"])


def test_training_moves_the_missing_embedding_of_absent_modalities(small_run):
    """Some demo utterances have no face; each has a text."""
    text, face = (
        np.asarray(small_run.model.towers[name].find_layer(f"{name}_missing").missing) for name in ("text", "face")
    )
    assert face.any() and not text.any()


@pytest.mark.parametrize("cache_features", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_resuming_after_each_epoch_gives_identical_weights(bert_config, tiny_bert, tmp_path, eager, cache_features):
    """Frozen epochs, by features or not, then the whole network; the word vectors' file is gone after one epoch.

    With all that a training carries along: averages, auxiliary heads, batches in parts, random layers.
    """
    vectors = tmp_path / "glove.txt"
    config = dataclasses.replace(
        change(
            bert_config, epochs=3, steps_per_epoch=1, freeze_epochs=2, batch_size=64, accumulate=2, ema=0.9,
            auxiliary_weight=0.3, schedule="cosine", cache_features=cache_features,
        ),
        text=dataclasses.replace(
            bert_config.text, branches=("bert", "cnn"), context=0, word_dim=9, cnn_filters=3, embeddings=str(vectors)
        ),
        face=dataclasses.replace(bert_config.face, cnn_filters=(4,)),
        fusion=dataclasses.replace(bert_config.fusion, modality_dropout=0.3),
    )  # fmt: skip
    states, lines = {}, []
    for name, stops in (("whole", (0,)), ("cut", (1, 2, 0))):
        vectors.write_text("the 1.5 2.5 0.5\nyou -1 0.125 2\n")
        for stop in stops:
            state = train_run(config, tmp_path / name, tiny_bert, lines.append, until=stop, save_model=False)
            states.setdefault(name, []).append(state.epoch)
            vectors.unlink(missing_ok=True)
    assert states == {"whole": [3], "cut": [1, 2, 3]}
    resumed = [line for line in lines if line.startswith("Resumed after epoch")]
    assert len(resumed) == 2 and resumed[0].startswith("Resumed after epoch 1")
    check_same_bits(tmp_path / "whole", tmp_path / "cut")
    run = Run(tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint" / "base-0.npz").is_file() == cache_features
    assert run.config == config and run.config.text.word_dim == 9 and run.word_dim == 3


INTERRUPTIONS = {
    "first checkpoint": (Checkpoints, "save", 2),  # the one of the best epoch is there
    "validation": (loop, "_validate", 2),
    "history": (loop, "write_epoch", 2),
    "later checkpoint": (Checkpoints, "save", 3),
    "calibration": (loop, "calibrate", 1),
    "model": (TwoTower, "save", 1),
    "clearing": (Run, "delete_checkpoints", 1),
}
"""What is interrupted, one after the other: each training goes on by at least an epoch, or ends, before the next."""


def test_interruptions_anywhere_give_identical_weights(word_config, tmp_path, monkeypatch, eager):
    config = change(word_config, epochs=5, ema=0.9)
    state = train_run(config, tmp_path / "whole")
    whole, cut = (Run(tmp_path / name) for name in ("whole", "cut"))
    epochs = []
    for what, (owner, name, call) in INTERRUPTIONS.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, owner, name, call)
            train_run(config, cut.path)
        epochs.append(arrays(cut.path)[1]["epoch"] if (cut.checkpoints / "last.npz").exists() else 0)
        if what != "clearing":
            with pytest.raises(UserError, match="continue it with --resume"):
                _ = Run(cut.path).model
    assert epochs[:3] == [0, 1, 2] and epochs[3] in (3, 4) and epochs[4:] == [5, 5, 5]
    assert dataclasses.replace(train_run(config, cut.path), seconds=0) == dataclasses.replace(state, seconds=0)
    assert not cut.checkpoints.exists()
    for a, b in zip(weights(whole.model), weights(cut.model), strict=True):
        np.testing.assert_array_equal(a, b)
    pd.testing.assert_frame_equal(history(whole.path), history(cut.path), check_exact=True)
    assert whole.calibration == cut.calibration


def test_until_stops_the_training(word_config, tmp_path, eager):
    config = change(word_config, epochs=3)
    for until, epochs in ((2, 2), (1, 2), (9, 3)):
        assert train_run(config, tmp_path / "run", until=until, save_model=False).epoch == epochs
    assert history(tmp_path / "run")["epoch"].tolist() == [1, 2, 3]
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_shard_that_is_damaged_between_epochs_is_named(word_config, tmp_path, eager):
    data = shutil.copytree(word_config.data, tmp_path / "data")
    shard = min(data.glob("train-*"))

    def damage(line):
        if line.startswith("epoch 1/"):
            shard.write_bytes(bytes(shard.stat().st_size))

    config = change(dataclasses.replace(word_config, data=str(data)), epochs=2)
    with pytest.raises(UserError, match=f"^{shard}: The record at offset \\d+ has changed. Prepare .* again.$"):
        train_run(config, tmp_path / "run", say=damage)


def test_resuming_on_other_data_is_refused(word_config, tmp_path, eager):
    train_run(word_config, tmp_path / "run", until=1, save_model=False)
    data = training_data(word_config)
    with pytest.raises(UserError, match="trained on other data"):
        loop.train(
            word_config,
            Run(tmp_path / "run"),
            dataclasses.replace(data, dataset=with_other_hash(data.dataset, "train")),
            PretrainedFiles(),
            command="pytest",
        )


def test_an_existing_run_is_replaced_only_with_overwrite(word_config, tmp_path, eager):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for overwrite in (False, True):  # it is no run
        with pytest.raises(UserError, match="--overwrite"):
            train_run(word_config, tmp_path / "run", overwrite=overwrite)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    shutil.rmtree(tmp_path / "run")
    train_run(word_config, tmp_path / "run", until=2, save_model=False)
    assert train_run(word_config, tmp_path / "run", overwrite=True, until=1, save_model=False).epoch == 1
    assert history(tmp_path / "run")["epoch"].tolist() == [1]


def test_numbers_on_dev_are_weighted_means_by_hand():
    logits = np.log(np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]], np.float32))
    label, weight = np.array([0, 1, 1]), np.array([1.0, 3.0, 0.5], np.float32)
    outputs = {"logits": logits, "text/present": np.ones(3, bool)}
    numbers = loop._validate(SimpleNamespace(infer=lambda inputs: outputs, dev_batches=[({}, label, weight)]))
    assert numbers["dev_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3]) @ weight / 4.5, rel=1e-5)
    assert numbers["dev_accuracy"] == pytest.approx((1 + 3) / 4.5)
    f1 = np.array([2 / 2.5, 2 * 3 / 6.5])  # 0: precision 1 / 1.5, recall 1; 1: precision 1, recall 3 / 3.5
    assert numbers["dev_weighted_f1"] == pytest.approx(f1 @ [1, 3.5] / 4.5)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_saved_model_is_the_best_epoch_by_validation(word_config, tmp_path, monkeypatch, eager, ema):
    """With averaged weights where they are asked for."""
    scores = iter([0.2, 0.5, 0.3, 0.4, 0.1])
    validated = []

    def validate(stage):
        validated.append(weights(stage.setup.model))
        return {"dev_loss": 1.0, "dev_accuracy": 0.0, "dev_weighted_f1": next(scores)}

    monkeypatch.setattr(loop, "_validate", validate)
    lines = []
    config = change(word_config, epochs=9, patience=3, ema=ema)
    state = train_run(config, tmp_path / "run", say=lines.append, later=1.0)
    assert sum(line.endswith(" left, evaluation included") for line in lines) == state.epoch
    assert (state.epoch, state.best_epoch, state.best) == (5, 1, 0.5)  # three epochs without a better one
    assert any(line.startswith("Stopped early: 3 epochs") for line in lines)
    assert not any((a == b).all() for a, b in zip(validated[0], validated[1], strict=True) if a.any())
    for a, b in zip(weights(Run(tmp_path / "run").model), validated[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_best_epoch_may_belong_to_an_earlier_phase(bert_config, tiny_bert, tmp_path, monkeypatch, eager):
    """Its checkpoint holds what that phase changed; the frozen network is in the phase's base."""
    text = dataclasses.replace(bert_config.text, branches=("bert",), context=0)
    config = change(
        dataclasses.replace(bert_config, towers=("text",), text=text),
        epochs=2, freeze_epochs=1, batch_size=64, ema=0.9, warmup=0.0,
    )  # fmt: skip
    scores = iter([0.5, 0.1])
    validated = []

    def validate(stage):
        validated.append((stage.train is not None, weights(stage.setup.model)))
        return {"dev_loss": 1.0, "dev_accuracy": 0.0, "dev_weighted_f1": next(scores)}

    monkeypatch.setattr(loop, "_validate", validate)
    train_run(config, tmp_path / "run", tiny_bert)
    (kept, best), (trained_whole, last) = validated
    assert kept and not trained_whole
    assert sum((a != b).any() for a, b in zip(best, last, strict=True)) > 10
    for a, b in zip(weights(Run(tmp_path / "run").model), best, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def plain_run(word_config, tmp_path_factory):
    """Path of a run of two epochs, with a warm-up in the first, before its model is saved."""
    path = tmp_path_factory.mktemp("runs") / "plain"
    with eagerly():
        train_run(change(word_config, epochs=2, warmup=0.5), path, save_model=False)
    return path


def test_averages_are_validated_but_do_not_change_training(word_config, plain_run, tmp_path, eager):
    train_run(change(word_config, epochs=2, warmup=0.5, ema=0.9), tmp_path / "run", save_model=False)
    plain, averaged = history(plain_run), history(tmp_path / "run")
    assert plain["loss"].tolist() == averaged["loss"].tolist()
    assert (plain["dev_loss"] != averaged["dev_loss"]).all()


def test_freezing_without_anything_pretrained_changes_nothing(word_config, plain_run, tmp_path, eager):
    """One phase: one optimizer, and one schedule over all epochs."""
    train_run(change(word_config, epochs=2, warmup=0.5, freeze_epochs=1), tmp_path / "run", save_model=False)
    check_same_bits(plain_run, tmp_path / "run")


@pytest.mark.slow
def test_bert_is_trained_and_train_encoder_false_leaves_it_bit_identical(bert_config, tiny_bert, tmp_path, eager):
    said, moved = {}, {}
    for train_encoder in (True, False):
        text = dataclasses.replace(bert_config.text, branches=("bert",), train_encoder=train_encoder)
        config = change(
            dataclasses.replace(bert_config, towers=("text",), text=text), epochs=1, steps_per_epoch=1, warmup=0.0
        )
        start = build_setup(config, tiny_bert).model.towers["text"].find_layer("bert").get_weights()
        lines = []
        train_run(config, tmp_path / str(train_encoder), tiny_bert, lines.append)
        end = Run(tmp_path / str(train_encoder)).model.towers["text"].find_layer("bert").get_weights()
        moved[train_encoder] = sum(not np.array_equal(a, b) for a, b in zip(start, end, strict=True))
        said[train_encoder] = lines[0]
    assert moved[False] == 0
    assert moved[True] > 10
    assert "(BERT: 0 in 0 variables)" in said[False]
    assert "(BERT: 0 in" not in said[True]


@pytest.mark.slow
def test_frozen_then_unfrozen(bert_config, tiny_bert, tmp_path, monkeypatch, eager):
    text = dataclasses.replace(bert_config.text, branches=("bert",))
    config = change(
        dataclasses.replace(bert_config, towers=("text",), text=text), epochs=2, freeze_epochs=1, steps_per_epoch=2
    )
    seen = []
    train_epoch = loop._train_epoch

    def watch(stage, *arguments):
        bert = stage.setup.model.towers["text"].find_layer("bert")
        before = bert.get_weights()
        state = train_epoch(stage, *arguments)
        seen.append((before, bert.get_weights()))
        return state

    monkeypatch.setattr(loop, "_train_epoch", watch)
    train_run(config, tmp_path / "run", tiny_bert)
    (start, frozen), (_, trained) = seen
    assert all(np.array_equal(a, b) for a, b in zip(start, frozen, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(frozen, trained, strict=True))


def test_erase_changes_the_training_crops(small_config, tmp_path, eager):
    losses = []
    for erase in (0.0, 1.0, 1.0):
        face = dataclasses.replace(small_config.face, erase=erase)
        config = dataclasses.replace(change(small_config, epochs=1, steps_per_epoch=1), towers=("face",), face=face)
        path = tmp_path / str(len(losses))
        train_run(config, path, save_model=False)
        losses.append(history(path)["loss"][0])
    assert losses[0] != losses[1] == losses[2]


def diverging(config, **options):
    """A configuration whose first update makes the weights infinite: the rate is outside its range."""
    config = change(config, optimizer="sgd", weight_decay=0.0, clip_norm=1e9, warmup=0.0, **options)
    object.__setattr__(config.train, "learning_rate", 1e38)
    return config


def test_a_loss_that_is_not_finite_is_refused_with_the_rate(word_config, tmp_path, eager):
    begin = change(word_config, epochs=2, optimizer="sgd", weight_decay=0.0)
    train_run(begin, tmp_path / "run", until=1, save_model=False)
    with pytest.raises(UserError, match=r"The loss became (nan|inf) in epoch 2.*--train\.learning-rate \(now 1e\+38"):
        train_run(diverging(word_config, epochs=2, steps_per_epoch=3), tmp_path / "run")
    # the epoch before is the last that is on disk
    assert history(tmp_path / "run")["epoch"].tolist() == [1]


def test_weights_that_are_not_finite_after_the_last_update_are_not_kept(word_config, tmp_path, eager):
    """The loss of the epoch, which is taken before each update, is still finite."""
    with pytest.raises(UserError, match="The loss on dev became (nan|inf) in epoch 1"):
        train_run(diverging(word_config, epochs=1, steps_per_epoch=1), tmp_path / "run")
    assert not any((tmp_path / "run").rglob("*.npz")) and not (tmp_path / "run" / "model.keras").exists()
