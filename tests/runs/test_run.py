"""The folder of a run: side files and labels that are not those of the model."""

from __future__ import annotations

import json
import shutil

import pytest

from emotion_tf.errors import UserError
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
