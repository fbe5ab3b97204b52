"""`prepare --scheduler`: the workers of a cluster write what one machine writes, though one of them is killed."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

import pytest
import synthetic_faces
from small_tables import write_table

from emotion_tf.data import clip_source
from emotion_tf.data.clips import COLUMNS

LEARNED = ("--tokenizer", "learned", "--face-size", "32")
MTCNN = (*LEARNED, "--faces.detector", "mtcnn")  # in whose place there is the detector of the tests
DEAD = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scheduler", "http://x"), "Invalid `--scheduler`. Expected the address of Dask's scheduler"),
        (("--scheduler", DEAD, "--processes", "2"), "Received --processes and --scheduler"),
        (("--scheduler", DEAD), "No scheduler of Dask at tcp://127.0.0.1:1"),
    ],
)
def test_a_wrong_option(tmp_path, fault, monkeypatch, words, said):
    monkeypatch.setattr("emotion_tf.cluster.TIMEOUT", 0.5)
    synthetic_faces.write_empty(tmp_path / "in" / "a.mp4", frames=4)
    table = write_table(tmp_path / "in" / "table.csv", [{"clip": "a.mp4"}], COLUMNS)
    assert said in fault("prepare", "clips", table, "--out", tmp_path / "data", *LEARNED, *words)
    if "--processes" not in words:
        manifest = write_table(tmp_path / "in" / "manifest.csv", [{"faces": ""}])
        assert said in fault("prepare", "table", manifest, "--out", tmp_path / "data", *LEARNED, *words)
    assert os.listdir(tmp_path) == ["in"]


def test_text_alone_needs_no_cluster(tmp_path, fault):
    words = ("prepare", "meld", "--root", tmp_path, "--out", tmp_path / "data", "--text-only", "--scheduler", DEAD)
    assert "--text-only reads no clips. Expected no --scheduler" in fault(*words)


@pytest.mark.slow
def test_a_killed_worker_changes_no_byte_and_a_lethal_clip_is_in_the_account(dask, tmp_path, succeed, monkeypatch):
    monkeypatch.setattr(clip_source, "load_detector", synthetic_faces.load_detector)
    monkeypatch.chdir(tmp_path)  # the paths, and those in messages, are relative
    for n in range(4):
        synthetic_faces.write_speaker(tmp_path / "in" / f"{n}.mp4", n)
    synthetic_faces.write_empty(tmp_path / "in" / "crash.mp4", synthetic_faces.CRASH)
    (tmp_path / "in" / "text.mp4").write_text("no video")
    names = [*map(str, range(4)), "crash", "text"]
    clips = [{"clip": f"{names[n % 6]}.mp4" if n % 10 else "", "utterance_id": str(n)} for n in range(24)]
    write_table(Path("in/table.csv"), clips, COLUMNS)
    words = ("prepare", "clips", "in/table.csv", *MTCNN, "--faces.crops", "2")
    succeed(*words, "--out", "one", "--processes", "1")
    kill_after(monkeypatch, dask, parts=1)
    succeed(*words, "--out", "many", "--scheduler", dask.address)
    assert not differences(tmp_path / "one", tmp_path / "many")

    synthetic_faces.write_empty(tmp_path / "in" / "lethal.mp4", synthetic_faces.LETHAL)
    write_table(Path("in/table.csv"), [*clips[:8], {"clip": "lethal.mp4", "utterance_id": "24"}], COLUMNS)
    printed = succeed(*words, "--out", "lethal", "--scheduler", dask.address)
    assert "worker ended: 3 workers ended in this clip" in printed
    (*_, entry) = json.loads(Path("lethal/dataset_info.json").read_text())["account"]["not_used"]
    assert Path(*entry["clip"]).name == "lethal.mp4" and entry["problem"] == "worker ended"


def kill_after(monkeypatch, dask, parts):
    """Kills a worker when so many parts are written."""
    from emotion_tf.data import records

    written, write = [], records._write_part

    def write_part(*arguments):
        written.append(write(*arguments))
        if len(written) == parts:
            dask.kill_worker()
        return written[-1]

    monkeypatch.setattr(records, "_write_part", write_part)


def differences(one: Path, other: Path) -> list[str]:
    compared = filecmp.dircmp(one, other)
    assert compared.common_files and not compared.common_dirs
    _, changed, errors = filecmp.cmpfiles(one, other, compared.common_files, shallow=False)
    return [*compared.left_only, *compared.right_only, *changed, *errors]


@pytest.mark.slow
def test_pictures_of_a_table(dask, manifest_path, tmp_path, succeed, fault):
    words = ("prepare", "table", manifest_path, "--tokenizer", "learned", "--face-size", "24")
    succeed(*words, "--out", tmp_path / "one")
    succeed(*words, "--out", tmp_path / "many", "--scheduler", dask.address)
    assert not differences(tmp_path / "one", tmp_path / "many")
