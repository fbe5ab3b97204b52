"""The folder of a run: side files and labels that are not those of the model."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from emotion_tf.data import dataset
from emotion_tf.errors import UserError
from emotion_tf.evaluation import compare, seeds
from emotion_tf.evaluation.calibration import read_calibration
from emotion_tf.evaluation.results import read_splits
from emotion_tf.folders import RUN
from emotion_tf.runs import ensemble
from emotion_tf.runs.ensemble import open_run
from emotion_tf.runs.run import Run


@pytest.fixture
def copied(untrained, tmp_path):
    return shutil.copytree(untrained, tmp_path / "run")


@pytest.mark.parametrize("name", ["words.txt", "vocab.txt"])
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[::-1],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, "more"],
        lambda lines: lines[:-1],
        lambda lines: [],
    ],
    ids=["reversed", "a line twice", "longer", "shorter", "empty"],
)
def test_another_vocabulary_is_refused(name, change, copied):
    lines = (copied / name).read_text().splitlines()
    (copied / name).write_text("".join(line + "\n" for line in change(lines)))
    with pytest.raises(UserError, match=f"{name}: The vocabulary is not the one of run.json. Expected SHA-256"):
        Run(copied).preprocessor(None)


def test_labels_and_face_size_are_those_of_the_model(copied):
    """The model has them, too: another order would give another name to each answer."""
    info = json.loads((copied / "run.json").read_text())
    for name, value in (("labels", info["labels"][::-1]), ("face_size", 48)):
        (copied / "run.json").write_text(json.dumps({**info, name: value}))
        with pytest.raises(UserError, match=f"run.json: Invalid `{name}`. Expected .*, as in model.keras"):
            _ = Run(copied).model


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that this user may not enter, also if the user is root."""
    folder = tmp_path / "locked"
    folder.mkdir()

    def refuse(function):
        def call(path, *args, **options):
            if str(path).startswith(f"{folder}/"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *args, **options)

        return call

    for name in ("stat", "lstat", "open"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    return folder


@pytest.mark.parametrize(
    "read",
    [
        dataset.Dataset.open,
        lambda folder: Run(folder).info,
        lambda folder: open_run(folder).info,
        lambda folder: Run(folder).config,
        read_calibration,  # not one without temperature
        lambda folder: read_splits(folder / "metrics.json"),
        lambda folder: compare.read_run(folder, "test"),
        lambda folder: seeds.read_configuration([folder]),
        lambda folder: ensemble.check_members([folder, folder.with_name("other")]),
    ],
    ids=["data", "run", "open_run", "config", "calibration", "metrics", "compare", "seeds", "ensemble"],
)
def test_a_folder_that_may_not_be_entered_is_one_line(read, locked):
    with pytest.raises(UserError, match=r"Cannot read the .*locked/\w+\.json: Permission denied"):
        read(locked)
    assert not RUN.matches(locked) and not RUN.is_finished(locked)


def test_a_long_name_is_one_line(tmp_path):
    """The folder that it replaced would have a name that is too long."""
    with pytest.raises(UserError, match="No data set at .* Make one with"):
        dataset.Dataset.open(tmp_path / ("x" * 250))
