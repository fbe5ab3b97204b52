"""Messages of usual mistakes with long paths fit the line of a terminal, and keep what to do."""

from __future__ import annotations

import shutil

import pytest

from emotion_tf import errors

MAX_LINE = errors.MAX_LINE  # before the fixture `command` raises it


@pytest.fixture
def folder(dataset, untrained, tmp_path):
    """A folder with a long name that holds a run, damaged copies, and a table without its column."""
    folder = tmp_path / ("a_folder_" + "with_a_long_name_" * 5)
    folder.mkdir()
    run = shutil.copytree(untrained, folder / "run")
    (shutil.copytree(run, folder / "damaged") / "run.json").write_text('{"labels": ')
    shutil.copytree(dataset, folder / "data")
    shard = folder / "data" / "train-00000-of-00001.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    (folder / "table.csv").write_text("speaker\nBob\n")
    (folder / "other").mkdir()
    return folder


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("train --data HERE/none", "does not exist. Make one with: python main.py prepare table MANIFEST --out /"),
        ("train --data HERE/data", "Prepare the data set again, or copy the shard again."),
        ("train --config HERE/none", "Expected the config.json of a run in saved_models/."),
        ("evaluate HERE/none", "saved_models/. python main.py runs lists them."),
        ("evaluate HERE/damaged", "Copy the run again, or train it again."),
        ("predict-table HERE/run HERE/none --out HERE/o.csv", "Expected a CSV file with a column utterance, faces, or"),
        ("predict-table HERE/run HERE/table.csv --out HERE/o.csv", "Neither a column utterance nor faces. Expected on"),
        ("prepare table HERE/table.csv --out HERE/new", "Expected split, dialogue_id, utterance_id, speaker, utteran"),
        ("serve HERE/run", "run has no export. Make one first: python main.py export /"),
        ("explain HERE/run --text Hi --out HERE/other", "exists. Expected a new name; --overwrite replaces it."),
        ("compare HERE/run --with HERE/other", "run has no results on test. Evaluate it: python main.py evaluate /"),
        ("predict-film HERE/run HERE/a.mp4 HERE/none --out HERE/o", "Expected SRT, WebVTT or ASS of at most 16 MB."),
    ],
)
def test_a_message_with_long_paths_keeps_its_fix(words, fix, folder, fault, monkeypatch):
    monkeypatch.setattr(errors, "MAX_LINE", MAX_LINE)
    message = fault(*(word.replace("HERE", str(folder)) for word in words.split()))
    assert fix in message and len(message) <= MAX_LINE
