"""`prepare clips`: invalid tables, continuation after an interruption, and how each face was selected."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from itertools import islice
from pathlib import Path

import pytest
import synthetic_faces
from small_records import PIECES, contents, read, shards
from small_tables import write_table

from emotion_tf.config import CropConfig
from emotion_tf.data import clip_source, records
from emotion_tf.data.clips import COLUMNS, parse_time, read_clips
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.program import command

OPTIONS = records.PrepareOptions(MELD_EMOTIONS, 32, 2, "x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of seven rows and its clips. Read only."""
    folder = tmp_path_factory.mktemp("clips")
    synthetic_faces.write_speaker(folder / "a.mp4", 1, 48)
    synthetic_faces.write_empty(folder / "sub" / "b.mp4")
    (folder / "c.mp4").write_text("not a video")
    rows = [
        {"utterance_id": "0", "clip": "a.mp4"},
        {"utterance_id": "1", "clip": "a.mp4", "start": "0.5", "end": "0:01.5"},
        {"utterance_id": "2", "clip": "sub/b.mp4"},
        {"utterance_id": "3", "clip": ""},
        {"utterance_id": "4", "clip": "c.mp4"},
        {"utterance_id": "5", "clip": "a.mp4", "start": "1,5"},
        {"split": "test", "utterance_id": "0", "clip": "a.mp4"},
    ]
    write_table(folder / "table.csv", rows, (*COLUMNS, "start", "end"))
    return folder


def prepare(folder, out, monkeypatch, processes=1, progress=lambda items, total, done: items, **shards):
    monkeypatch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
    rows, clips = read_clips(folder / "table.csv", MELD_EMOTIONS)
    source = clip_source.ClipSource(folder, clips, CropConfig(crops=2), None, processes)
    pieces = WordPieceTokenizer(PIECES, True)
    shards = {"rows_per_shard": 2, **shards}
    return records.write_dataset(rows, out, OPTIONS, pieces, source=source, progress=progress, **shards)


@pytest.fixture(scope="module")
def complete(folder, tmp_path_factory):
    """The data set of the table, written without interruption."""
    out = tmp_path_factory.mktemp("complete") / "out"
    with pytest.MonkeyPatch.context() as patch:
        prepare(folder, out, patch)
    return out


def test_records_have_the_clip_and_the_selection_of_each_face(complete):
    rows = read(shards(complete, "train"))
    first, second, empty, without, damaged, last = rows
    assert [row["face_problem"].decode() for row in rows] == [
        "",
        "",
        "no face found",
        "no clip",
        "cannot be decoded",
        "",
    ]
    assert [[clip.decode() for clip in row["clip"]] for row in rows] == [
        ["a.mp4"], ["a.mp4#t=0.5,1.5"], ["sub/b.mp4"], [], ["c.mp4"], ["a.mp4#t=1.5"],
    ]  # fmt: skip
    assert first["face_policy"] == b"speaking" and first["face_tracks"] == 1 and first["face_margin"] == float("inf")
    assert (first["face_frames"], first["face_track_length"]) == (16, 16) and first["face_score"] > 0
    assert len(first["face_jpeg"]) == 2 == len(first["face_time"]) == len(first["face_sharpness"])
    assert len(first["face_box"]) == 8 and first["face_height"] == first["face_box"][3::4]
    assert (
        first["face_rivals"] == pytest.approx(first["face_box"][:4], abs=3)
        and first["face_rivals_time"] in first["face_time"]
    )
    assert all(0.5 <= t <= 1.5 for t in second["face_time"]) and all(t >= 1.5 for t in last["face_time"])
    for row in (empty, without, damaged):
        assert row["face_jpeg"] == row["face_mask"] == row["face_box"] == [] and row["utterance"] == b"Hello there."


def test_dataset_info_has_options_and_account(complete):
    info = json.loads((complete / INFO).read_text())
    assert info["faces"]["policy"] == "speaking" and info["faces"]["rate"] == 8 and info["max_faces"] == 2
    assert info["account"]["rows"]["train"] == {
        "total": 6, "with a face": 3, "no face found": 1, "no clip": 1, "cannot be decoded": 1,
    }  # fmt: skip
    named = ["test-00000-of-00001.tfrecord", *(f"train-0000{n}-of-00003.tfrecord" for n in range(3))]
    assert sorted(p.name for p in complete.iterdir()) == [INFO, *named, "vocab.txt"]


def test_two_processes_write_the_same_bytes(folder, complete, tmp_path, monkeypatch):
    prepare(folder, tmp_path / "out", monkeypatch, processes=2)
    assert contents(tmp_path / "out") == contents(complete)


def test_an_interrupted_run_continues_after_its_last_shard(folder, complete, tmp_path, monkeypatch):
    def stop(items, total, done):
        for n, item in enumerate(items):
            if n == 5:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out", monkeypatch, progress=stop)
    partial = tmp_path / ".out.partial"
    assert [p.name for p in tmp_path.iterdir()] == [partial.name]
    finished = {p: p.stat().st_mtime_ns for p in partial.glob("*.tfrecord")}
    assert len(finished) == 2
    counts = []

    def count(items, total, done):
        counts.append((total, done))
        assert {p: p.stat().st_mtime_ns for p in finished} == finished
        return items

    prepare(folder, tmp_path / "out", monkeypatch, progress=count)
    assert counts == [(7, 4)]
    assert contents(tmp_path / "out") == contents(complete) and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_damaged_shard_and_shards_of_other_input_are_rewritten(folder, complete, tmp_path, monkeypatch):
    def stop(items, total, done):
        yield next(iter(items))
        yield from items
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "out", monkeypatch, progress=stop)
    partial = tmp_path / ".out.partial"
    note = next(note for note in partial.glob("*.json") if len(json.loads(note.read_text())["problems"]) == 2)
    damaged = note.with_suffix(".tfrecord")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    (partial / "foreign.tfrecord").write_text("x")
    finished_rows = []

    def record(items, total, done):
        finished_rows.append(done)
        return items

    prepare(folder, tmp_path / "out", monkeypatch, progress=record)
    assert finished_rows == [5]
    assert contents(tmp_path / "out") == contents(complete)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_run_continues_after_its_last_clips(folder, tmp_path, monkeypatch):
    def stop(items, total, done):
        yield from islice(items, 5)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["main.py", "prepare", "clips", "a b.csv"])
    done_before, shards = [], {"rows_per_shard": 4}
    with monkeypatch.context() as patch:
        patch.setattr(records, "CLIPS_PER_PART", 2)
        with pytest.raises(KeyboardInterrupt) as caught:
            prepare(folder, tmp_path / "out", monkeypatch, progress=stop, **shards)
        message = f"4 of 7 utterances are kept in {tmp_path / '.out.partial'}. Continue with: "
        assert str(caught.value) == f"{message}python main.py prepare clips 'a b.csv'"
        prepare(
            folder, tmp_path / "out", monkeypatch, progress=lambda items, *n: done_before.append(n) or items, **shards
        )
    assert done_before == [(7, 4)]
    prepare(folder, tmp_path / "whole", monkeypatch, **shards)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert Dataset.open(tmp_path / "out").splits["train"].shards[0].records == 4


def interrupt_at_the_end(items, total, done):
    yield from items
    raise KeyboardInterrupt


def test_a_changed_row_repeats_only_its_shard(folder, tmp_path, monkeypatch):
    """The rows after a removed one move into other shards; those before it stay."""
    copy = tmp_path / "in"
    shutil.copytree(folder, copy)
    with pytest.raises(KeyboardInterrupt, match=r"7 of 7 utterances are kept in .*/\.out\.partial. Continue with: "):
        prepare(copy, tmp_path / "out", monkeypatch, progress=interrupt_at_the_end)
    lines = (copy / "table.csv").read_text().splitlines(keepends=True)
    (copy / "table.csv").write_text("".join(lines[:6] + lines[7:]))  # without utterance 5, alone with its neighbour
    counts = []

    def count(items, total, done):
        counts.append((total, done))
        return items

    changed = prepare(copy, tmp_path / "out", monkeypatch, progress=count)
    assert counts == [(6, 3)]  # the second shard has utterance 5 as a neighbour
    assert changed.splits["train"].records == 5 and os.listdir(tmp_path / "out") != []
    assert contents(tmp_path / "out") == contents(prepare(copy, tmp_path / "again", monkeypatch).path)


def test_a_full_disk_keeps_the_finished_clips(folder, complete, tmp_path, monkeypatch):
    replace, written = Path.replace, []

    def full(self, target):
        if self.suffix == ".unfinished":
            written.append(self)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(UserError) as caught:
            prepare(folder, tmp_path / "out", monkeypatch)
    partial = tmp_path / ".out.partial"
    assert str(caught.value) == (
        f"Cannot write {tmp_path / 'out'}: No space left on device; free some space or choose another folder. "
        f"4 of 7 utterances are kept in {partial}. Continue with: {command()}"
    )
    assert not list(partial.glob("*.unfinished"))
    prepare(folder, tmp_path / "out", monkeypatch)
    assert contents(tmp_path / "out") == contents(complete) and [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("text", "value"), [("12.5", 12.5), ("1:02.5", 62.5), ("0:20:26,183", 1226.183), ("00:00:01", 1)]
)
def test_times_in_all_notations(text, value):
    assert parse_time(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": "none.mp4"}, "line 2: No clip at .*none.mp4"),
        ({"clip": f"{'x' * 300}.mp4"}, "line 2: No clip at .*x.mp4"),
        ({"clip": "../a.mp4"}, "line 2: The clip path leaves the manifest's folder"),
        ({"start": "x"}, "line 2: Invalid start. Expected seconds.*'x'"),
        ({"start": "3", "end": "2"}, "line 2: The clip ends before it starts.*3 and 2"),
        ({"emotion": "joyy"}, "line 2: Unknown emotion.*Did you mean 'joy'"),
        ({"clip": "", "utterance": ""}, "line 2: Neither an utterance nor a clip"),
        ({"clip": ""}, "No row names a clip"),
        ({"clip": "nan"}, "'clip' is 'nan', a missing value"),
    ],
)
def test_an_invalid_row_is_an_error_with_its_line(folder, change, message):
    path = write_table(folder / "bad.csv", [{"clip": "a.mp4", **change}], (*COLUMNS, "start", "end"))
    with pytest.raises(UserError, match=message):
        read_clips(path, MELD_EMOTIONS)


def test_two_rows_with_one_key_and_no_column(folder):
    path = write_table(folder / "bad.csv", [{"clip": "a.mp4"}] * 2, COLUMNS)
    with pytest.raises(UserError, match="line 3: Duplicate key"):
        read_clips(path, MELD_EMOTIONS)
    path = write_table(folder / "bad.csv", [{}])
    with pytest.raises(UserError, match="line 1: No column 'clip'"):
        read_clips(path, MELD_EMOTIONS)


def test_an_error_if_no_clip_can_be_decoded_leaves_no_files(folder, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "c.mp4").write_text("not a video")
    write_table(tmp_path / "in" / "table.csv", [{"clip": "c.mp4"}], COLUMNS)
    with pytest.raises(UserError, match="can be used: cannot be decoded 1. First: Cannot decode the clip .*c.mp4"):
        prepare(tmp_path / "in", tmp_path / "out", monkeypatch)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_account_comes_before_the_error_that_no_clip_can_be_used(folder, tmp_path, monkeypatch, capsys):
    rows, clips = read_clips(folder / "table.csv", MELD_EMOTIONS)
    first, *others = clips
    clips |= dict.fromkeys(others, FaceCrops(problem="same clip as another utterance"))
    clips[first] = Clip((Segment(folder / "a.mp4", 50.0, 51.0),))
    monkeypatch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
    source = clip_source.ClipSource(folder, clips, CropConfig(), None, 1)
    pieces = WordPieceTokenizer(PIECES, True)
    with pytest.raises(UserError, match="can be used: outside the clip 1. First: The clip .*a.mp4, which lasts 2.0"):
        records.write_dataset(rows, tmp_path / "out", OPTIONS, pieces, source=source)
    printed = capsys.readouterr().out
    assert "train: 6 rows: " in printed and "same clip as another utterance 4" in printed
