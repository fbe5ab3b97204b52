"""Cross-validation from the command line: complete, without a leak, the same after an interruption."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_records import with_dev_as_test

from emotion_tf import folders
from emotion_tf.config import Config
from emotion_tf.data import pipeline, splits
from emotion_tf.data.dataset import Dataset
from emotion_tf.errors import UserError
from emotion_tf.evaluation.cross_validation import summary
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.training import cross_validate, loop
from emotion_tf.training.initialize import check_unseen

OPTIONS = ("--towers", "text", "--text.branches", "cnn", "--text.word-dim", 4, "--text.cnn-filters", 3, "--folds", 2)
ONE_EPOCH = ("--train.epochs", 1, "--train.batch-size", 64)


@pytest.fixture
def words(dataset):
    return ("crossval", "--data", dataset, *OPTIONS, *ONE_EPOCH)


@pytest.mark.slow
def test_every_utterance_is_predicted_by_a_model_not_trained_on_its_dialogue(words, succeed, dataset, eager):
    printed = succeed(*words, "--name", "cv", "--repeats", 2)
    path = folders.RUNS / "cv"
    table = pd.read_csv(path / "oof.csv", dtype=str)
    rows = list(pipeline.read_rows(Dataset.open(dataset).rows("train")))
    assert [(r["dialogue_id"], r["utterance_id"]) for r in rows] == list(
        zip(table["dialogue_id"], table["utterance_id"], strict=True)
    )
    for repeat in range(2):
        held = [pd.read_csv(path / f"repeat{repeat}-fold{n}" / "held_out.csv", dtype=str) for n in range(2)]
        assert not set(held[0]["dialogue_id"]) & set(held[1]["dialogue_id"])
        assert len(held[0]) + len(held[1]) == len(rows)
    numbers = json.loads((path / "metrics.json").read_text())
    assert [(f["repeat"], f["fold"]) for f in numbers["folds"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert numbers["pooled"][0]["utterances"] == len(rows) and len(numbers["pooled"]) == 2
    assert numbers["initial"] == []
    assert numbers["deviation"]["weighted_f1"] >= 0 and "always neutral" in printed


@pytest.mark.slow
def test_an_interrupted_cross_validation_resumes_with_identical_results(words, succeed, command, monkeypatch, eager):
    succeed(*words, "--name", "whole")
    write_epoch = loop.write_epoch
    calls = []

    def interrupted(run, numbers):
        calls.append(run.path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write_epoch(run, numbers)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_epoch", interrupted)
        code, printed = command(*words, "--name", "cut")
    assert code == 130 and "Continue with: python main.py crossval " in printed.err
    first = folders.RUNS / "cut" / "repeat0-fold0" / "held_out.csv"
    before = first.stat().st_mtime_ns
    succeed(*words, "--name", "cut")
    assert calls == ["repeat0-fold0", "repeat0-fold1"] and first.stat().st_mtime_ns == before
    assert (folders.RUNS / "cut" / "oof.csv").read_bytes() == (folders.RUNS / "whole" / "oof.csv").read_bytes()


def test_a_leak_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(
        splits, "group_utterances", lambda dialogue, pictures: list(range(len(dialogue)))
    )  # single utterances
    with pytest.raises(cross_validate.UserError, match="is on both sides"):
        cross_validate.plan(Dataset.open(dataset).rows("train"), 2, 1, 0)


def test_an_initial_tower_trained_on_the_folds_is_refused(words, fault, untrained):
    message = fault(*words, "--name", "cv", "--text.init", untrained)
    assert "Invalid `text.init`" in message and "are held out (train)" in message
    assert not (folders.RUNS / "cv").exists()


def test_an_initial_tower_trained_on_the_folds_indirectly_is_refused(words, fault, untrained, dataset, tmp_path):
    """The same utterances in another data set; a run that started from such a run; what cannot be looked at is said."""

    def make_run(name, data, init="", **about):
        run = tmp_path / name
        shutil.copytree(untrained, run)
        config = json.loads((run / "config.json").read_text())
        parts = {part: {**config[part], "init": str(init)} for part in ("text", "face")}
        (run / "config.json").write_text(json.dumps({**config, **parts, "data": str(data)}))
        (run / "run.json").write_text(json.dumps({**json.loads((run / "run.json").read_text()), **about}))
        return run

    with_dev_as_test(dataset, tmp_path / "other")
    count = Dataset.open(dataset).splits["train"].records
    sha256 = Dataset.open(tmp_path / "other").spec.data_sha256
    first = make_run("first", tmp_path / "other", data_sha256=sha256)
    second = make_run("second", tmp_path / "gone", init=first, data_sha256="0" * 64)
    for run in (first, second):
        message = fault(*words, "--name", "cv", "--text.init", run)
        assert f"{first} was trained on {count} of the utterances" in message and f"Received: {run}." in message
        face = ("--towers", "face", "--face.init", run)
        assert f"{first} was trained on " in fault(*words[:3], *face, "--name", "cv")
    third = make_run("third", tmp_path / "gone", init=tmp_path / "no", data_sha256="0" * 64)
    lines = []
    config = dataclasses.replace(Config(), data=str(dataset), text=dataclasses.replace(Config().text, init=str(third)))
    check_unseen(config, Dataset.open(dataset), ["train"], say=lines.append)
    assert f"Not checked whether {third} was trained on these data: No data set at" in lines[0]
    assert f"{third} started from {tmp_path / 'no'}, which does not exist" in lines[1]
    itself = make_run("itself", tmp_path / "gone", init=tmp_path / "itself", data_sha256="0" * 64)
    text = dataclasses.replace(config.text, init=str(itself))
    check_unseen(dataclasses.replace(config, text=text), Dataset.open(dataset), ["train"], say=lines.append)
    assert len(lines) == 3


def test_another_folder_or_number_of_folds_is_refused(words, fault, succeed, tmp_path):
    (folders.RUNS / "cv").mkdir(parents=True)
    assert "is not a cross-validation with these" in fault(*words, "--name", "cv")
    assert "Invalid `--folds`. Expected 2 to" in fault(*words, "--name", "x", "--folds", 1000)
    assert "Invalid `--repeats`" in fault(*words, "--name", "x", "--repeats", 0)
    assert not (folders.RUNS / "x").exists()


def test_labels_of_folds_are_kept_beside_their_probabilities():
    """Two repeats of two folds; the label need not be the most probable class."""
    predictions = [
        (
            SimpleNamespace(repeat=repeat, positions=np.array(rows)),
            np.full(len(rows), repeat),
            np.tile(p, (len(rows), 1)),
        )
        for repeat, rows, p in (
            (0, [0, 2], [0.3, 0.7]),
            (0, [1], [0.4, 0.6]),
            (1, [2, 1], [0.8, 0.2]),
            (1, [0], [1, 0]),
        )
    ]
    predicted, probabilities = cross_validate.out_of_fold(3, predictions, 2, 2)
    assert predicted.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert probabilities[:, :, 0].tolist() == [[0.3, 0.4, 0.3], [1, 0.8, 0.8]]
    label, folds = np.array([0, 0, 1]), [(0, 0, np.array([0, 2])), (0, 1, np.array([1])), (1, 0, np.array([0, 1, 2]))]
    numbers = summary(label, np.ones(3), np.arange(3), predicted, probabilities, folds, ("a", "b"))
    assert [row["accuracy"] for row in numbers["pooled"]] == pytest.approx([2 / 3, 1 / 3])
    assert [row["accuracy"] for row in numbers["folds"]] == pytest.approx([1 / 2, 1, 1 / 3])
    with pytest.raises(ValueError, match="not complete"):
        cross_validate.out_of_fold(3, predictions[:3], 2, 2)


def test_sentences_about_initial_towers_are_stored_with_each_fold(dataset, tmp_path, monkeypatch):
    recorded = []

    def train(*_, initial, **__):
        recorded.append(initial)
        raise UserError("enough")

    monkeypatch.setattr(cross_validate, "train", train)
    whole, config = Dataset.open(dataset), dataclasses.replace(Config(), data=str(dataset))
    _, folds = cross_validate.plan(whole.rows("train"), 2, 1, 0)
    validation = cross_validate.CrossValidation(config, tmp_path, whole, PretrainedFiles(), print, ["not checked"])
    with pytest.raises(UserError, match="enough"):
        list(validation.run(folds))
    assert recorded == [["not checked"]]
