"""A full disk in each verb: exit code 2, one line that names the file, nothing left; with room, the command completes.

Files are limited to a few kilobytes (RLIMIT_FSIZE): larger writes fail, as on a full disk.
"""

from __future__ import annotations

import shutil

import pytest
from helpers import largest_file
from small_tables import write_table

from emotion_tf import folders
from emotion_tf.data.manifest import COLUMNS

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def run(untrained_words, command):
    """An untrained run in the folder of the runs."""
    return shutil.copytree(untrained_words, folders.RUNS / "run")


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def check(words, size, result, fault, succeed, folder):
    """Runs a command without room, then with room; `result` is what it writes."""
    before = tree(folder)
    with largest_file(size):
        message = fault(*words)
    assert message.startswith("Cannot write") and str(result) in message and "File too large" in message, message
    assert tree(folder) == before
    succeed(*words)
    assert result.exists() and not [name for name in tree(folder) if "/." in f"/{name}"]


@pytest.mark.parametrize("size", [2_000, 60_000])
def test_prepare(size, manifest_path, tmp_path, fault, succeed):
    words = ("prepare", "table", manifest_path, "--out", tmp_path / "data", "--tokenizer", "learned")
    check(words, size, tmp_path / "data", fault, succeed, tmp_path)


def test_prepare_demo(tmp_path, fault, succeed):
    """The disk is full while the pictures are drawn."""
    words = ("prepare", "demo", "--utterances", "200", "--out", tmp_path / "data")
    before = tree(tmp_path)
    with largest_file(600):
        message = fault(*words)
    assert "Cannot write" in message and "data" in message and "free some space" in message
    assert tree(tmp_path) == before


SMALL = ("--towers", "text", "--text.branches", "cnn", "--text.word-dim", 4, "--text.cnn-filters", 3)
SMALL += ("--train.steps-per-epoch", 1, "--train.batch-size", 16, "--train.epochs", 1, "--name", "x")


@pytest.mark.parametrize(
    ("verb", "size", "name", "hint"),
    [
        ("train", 3_000, "checkpoint/", "train --resume --name x"),
        ("train", 70_000, "x/model.keras", "train --resume --name x"),
        ("crossval", 70_000, "x/repeat0-fold0/model.keras", "crossval --data "),
    ],
)
def test_a_training_goes_on(verb, size, name, hint, dataset, fault, command, succeed, monkeypatch):
    """The page without explanations, which take most of the time."""
    monkeypatch.setattr("emotion_tf.cli.report._explanations", lambda *_: {})
    words = (verb, "--data", dataset, *SMALL, *(("--folds", 2) if verb == "crossval" else ()))
    with largest_file(size):
        message = fault(*words)
    run = folders.RUNS / "x"
    assert message.startswith(f"Cannot write {run.parent}/") and name in message and "File too large" in message
    assert f"{run} is kept. Continue with: python main.py {hint}" in message
    printed = succeed(*(words if verb == "crossval" else ("train", "--resume")))
    assert ("Resumed after epoch 1" in printed) == (name[-1] != "/")
    assert folders.RUN.is_finished(run) or folders.CROSS_VALIDATION.is_finished(run)
    assert not [name for name in tree(run.parent) if "/." in f"/{name}"]


def test_export(run, fault):
    before = tree(run)
    with largest_file(60_000):
        message = fault("export", run)
    assert message.startswith(f"Cannot write into {run / 'serving'}: ") and "File too large" in message
    assert tree(run) == before


def test_features(run, dataset, tmp_path, fault, succeed):
    words = ("features", run, dataset, "--out", tmp_path / "x.npz")
    check(words, 2_000, tmp_path / "x.npz", fault, succeed, tmp_path)


@pytest.mark.usefixtures("opened_once")
def test_predict_table(run, tmp_path, fault, succeed):
    table = write_table(tmp_path / "table.csv", [{"utterance_id": str(i)} for i in range(60)], COLUMNS)
    words = ("predict-table", run, table, "--out", tmp_path / "out.csv")
    check(words, 2_000, tmp_path / "out.csv", fault, succeed, tmp_path)


def test_explain(run, tmp_path, fault, succeed, monkeypatch):
    """The page alone: the explanations take most of the time."""
    monkeypatch.setattr("emotion_tf.cli.explain._explain_utterance", lambda *_: [])
    words = ("explain", run, "--text", "I am so glad.", "--out", tmp_path / "page")
    check(words, 2_000, tmp_path / "page", fault, succeed, tmp_path)
    succeed(*words, "--overwrite")
