"""A data set in parts: a kill at any step loses no finished part, and the end leaves nothing but the data set."""

from __future__ import annotations

import json
import os

import kills
import pytest

from emotion_tf.data.partial import PartialDataset, PlannedPart
from emotion_tf.errors import UserError

SHARDS = {"keya": "a", "keyb": "b", "keyc": "b"}
"""Key of each part -> its shard."""
PREPARE = f"""
from emotion_tf.data.partial import PartialDataset, PlannedPart
kind = kinds.Kind("data set", ("info",))
plan = [PlannedPart("train", name, [None], key) for key, name in {SHARDS!r}.items()]
if not kind.matches(Path("x/data")):
    with files.resumable_folder(Path("x/data"), kind) as folder:
        partial = PartialDataset(folder, plan)
        for part in partial.open():
            with partial.new_part(part) as (path, note), open("log", "a") as log:
                path.write_text(part.key)
                log.write("x")
                note |= {{"with_face": 1, "max_faces": 1, "problems": [["", ""]]}}
        result = partial.assemble()
        (result / "info").write_text("data")
else:
    with locks.writer(Path("x/data")):
        files.recover(Path("x/data"), kind)
"""


def test_a_kill_at_any_step_repeats_no_finished_part(tmp_path):
    """Each process is killed one step later than the one before, and continues its work."""
    notes = set()
    for _ in kills.kill_at_each_step(PREPARE, tmp_path):
        partial = tmp_path / "x" / ".data.partial"
        if not (tmp_path / "x" / "data").exists():
            assert notes <= {path.name for path in partial.glob("*.json")}
            notes = {path.name for path in partial.glob("key?.json")}
    data = tmp_path / "x" / "data"
    assert {path.name: path.read_text() for path in data.iterdir()} == {"info": "data", "a": "keya", "b": "keybkeyc"}
    assert os.listdir(tmp_path / "x") == ["data"]
    # a part is written again only if it had no note yet
    assert len((tmp_path / "log").read_text()) < 6 * len(SHARDS)


def test_a_data_set_whose_parts_are_all_there_is_finished(tmp_path):
    plan = [PlannedPart("train", name, [None], key) for key, name in SHARDS.items()]
    partial, data = PartialDataset(tmp_path / "partial", plan), tmp_path / "data"
    (tmp_path / "partial" / "result").mkdir(parents=True)
    for part in partial.open():
        with partial.new_part(part) as (path, note):
            path.write_text(part.key)
            note |= {"with_face": 1, "max_faces": 1, "problems": []}
    partial.assemble().rename(data)
    assert partial.has_become(data)
    for damaged in ("keybkeyx", "keybkeycc", "keyb"):
        (data / "b").write_text(damaged)
        assert not partial.has_become(data)


def note_text(**values):
    """Returns a note as JSON, with other values; None leaves a field out."""
    note = {"bytes": 1, "sha256": "0" * 64, "with_face": 0, "max_faces": 0, "problems": []} | values
    return json.dumps({name: value for name, value in note.items() if value is not None})


def test_a_file_of_another_shard_is_not_taken(tmp_path):
    shard = PlannedPart("train", "a.tfrecord", [], "key")
    (tmp_path / "result").mkdir()
    first = PartialDataset(tmp_path, [shard])
    with first.new_part(shard) as (path, note):
        path.write_text("right")
        note |= {"with_face": 0, "max_faces": 0, "problems": []}
    first.assemble()
    (tmp_path / "result" / "a.tfrecord").write_text("wrong")
    assert PartialDataset(tmp_path, [shard]).open() == [shard]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**5, "Expected JSON"),
        ("null", "Expected an object"),
        (note_text(bytes=-1), "`bytes`. Expected a number of at"),
        (note_text(sha256=3), "`sha256`. Expected a text"),
        (note_text(with_face="x"), "`with_face`. Expected an integer"),
        (note_text(max_faces=-1), "`max_faces`. Expected a number of at"),
        (note_text(problems="x"), "`problems`. Expected a list"),
        (note_text(problems=None), "No `problems`"),
    ],
    ids=lambda value: value[:20],
)
def test_an_invalid_note_is_one_line(text, message, tmp_path):
    shard = PlannedPart("train", "a.tfrecord", [], "key")
    (tmp_path / "key.json").write_text(text)
    (tmp_path / "a.tfrecord").write_text("")
    for read in (
        PartialDataset(tmp_path, [shard]).open,
        lambda: PartialDataset(tmp_path, [shard]).has_become(tmp_path),
    ):
        with pytest.raises(UserError, match=rf"key.json: .*{message}.*Remove {tmp_path}; `prepare` then begins again"):
            read()
