"""`prepare table` and `prepare demo` on the command line: invalid input is a message of one line and writes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from helpers import largest_file
from small_tables import COLUMNS, good_rows, pieces, write_table

LEARNED = ("--tokenizer", "learned", "--face-size", "32")


def check_refused(manifest, parts, fault):
    """Checks that `prepare table` names the parts, and that it writes nothing."""
    out = manifest.parent.parent / "out"
    message = fault("prepare", "table", manifest, "--out", out / "data", *pieces(manifest))
    assert str(manifest) in message and all(part in message for part in parts), message
    assert os.listdir(out) == []


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"emotion": "joyous"}, ["line 5", "Unknown emotion", "neutral, joy", "'joyous'", "'joy'", "--labels"]),
        ({"utterance_id": "0", "split": "train"}, ["line 5", "Duplicate key", "line 2", "Remove one"]),
        ({"faces": "none.jpg"}, ["line 5", "none.jpg", "No such file", "Expected a file"]),
        ({"faces": "text.jpg"}, ["line 5", "text.jpg", "Cannot decode", "b'This is '"]),
        ({"faces": "a.jpg;empty.jpg"}, ["line 5", "empty.jpg", "an empty file"]),
        ({"faces": "cut.png"}, ["line 5", "cut.png", "Cannot decode"]),
        ({"faces": "../secret.jpg"}, ["line 5", "leaves the manifest's folder", "'../secret.jpg'"]),
        ({"faces": "/etc/hostname"}, ["line 5", "leaves the manifest's folder", "'/etc/hostname'"]),
        ({"faces": "link.jpg"}, ["line 5", "leaves the manifest's folder", "'link.jpg'"]),
        ({"utterance": "NaN"}, ["line 5", "'utterance'", "'NaN'"]),
        ({"faces": "nan"}, ["line 5", "'faces'", "'nan'"]),
        ({"emotion": "nan"}, ["line 5", "'emotion'", "'nan'"]),
        ({"weight": "nan"}, ["line 5", "weight", "'nan'"]),
        ({"weight": "a lot"}, ["line 5", "weight", "'a lot'"]),
        ({"utterance": "a\0b"}, ["line 5", "NUL"]),
        ({"split": "valid"}, ["line 5", "split", "train, dev, test", "'valid'"]),
    ],
)
def test_an_invalid_last_row_writes_nothing(change, parts, manifest, fault):
    rows = good_rows()
    rows[-1] |= change
    write_table(manifest, rows, (*COLUMNS, "weight") if "weight" in change else COLUMNS)
    check_refused(manifest, parts, fault)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty", "split, dialogue_id"]),
        (",".join(COLUMNS).encode() + b"\n", ["no row"]),
        (b"split,dialogue_id,utterance_id,speaker,text,emotion,faces\n", ["line 1", "No column 'utterance'"]),
        (
            ",".join(COLUMNS).encode() + b"\ntrain,0,0,Ilka,Hi, you,joy,\n",
            ["line 2", "7 cells", "Received: 8", "Quote"],
        ),
        (",".join(COLUMNS).encode() + b"\ntrain,0,0,Ilka,caf\xe9,joy,\n", ["line 2", "UTF-8"]),
    ],
)
def test_an_invalid_table_writes_nothing(content, parts, manifest, fault):
    manifest.write_bytes(content)
    check_refused(manifest, parts, fault)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--labels", "mled"], ["--labels", "'mled'", "Did you mean 'meld'?"]),
        (["--labels", "joy", "joy"], ["--labels", "different"]),
        (["--labels", "sentiment"], ["line 2", "Unknown emotion", "neutral, positive, negative"]),
        (["--face-size", "4"], ["--face-size", "from 8 to 1,024", "4"]),
        (["--face-size", "100000"], ["--face-size", "100000"]),
        (["--context", "-1"], ["--context", "-1"]),
        (["--tokenizer", "none.txt"], ["none.txt", "No such file"]),
        (["--tokenizer", "minilmm"], ["'minilmm'", "Did you mean 'minilm'?"]),
    ],
)
def test_an_invalid_option_of_prepare(options, parts, manifest, fault):
    write_table(manifest, good_rows())
    out = manifest.parent.parent / "out"
    message = fault("prepare", "table", manifest, "--out", out / "data", "--tokenizer", "learned", *options)
    assert all(part in message for part in parts), message
    assert os.listdir(out) == []


def test_prepare_and_its_overwrite(manifest, fault, succeed):
    write_table(manifest, good_rows())
    out = manifest.parent.parent / "out" / "data"
    printed = succeed("prepare", "table", manifest, "--out", out, *LEARNED)
    assert "train: 2 utterances in 1 dialogue, 2 with a face" in printed and str(out) in printed
    assert "1 picture in more than one split" in printed
    before = (out / "dataset_info.json").read_bytes()
    message = fault("prepare", "table", manifest, "--out", out, *LEARNED)
    assert str(out) in message and "--overwrite" in message
    assert (out / "dataset_info.json").read_bytes() == before
    write_table(manifest, good_rows(6))
    succeed("prepare", "table", manifest, "--out", out, *LEARNED, "--overwrite")
    assert json.loads((out / "dataset_info.json").read_text())["splits"]["train"]["records"] == 4
    message = fault("prepare", "table", manifest, "--out", manifest.parent, *LEARNED, "--overwrite")
    assert "no data set" in message and manifest.exists()
    assert os.listdir(out.parent) == ["data"]


def test_utterances_without_text_or_faces_can_be_prepared(manifest, succeed):
    write_table(manifest, [{**row, "utterance": ""} for row in good_rows()])
    succeed("prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "faces", *LEARNED)
    write_table(manifest, [{**row, "faces": ""} for row in good_rows()])
    succeed("prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "texts", *LEARNED)


def test_too_few_utterances_for_the_demo(tmp_path, fault):
    message = fault("prepare", "demo", "--utterances", "3", "--out", tmp_path / "demo")
    assert "`utterances`" in message and "200" in message and "Received: 3" in message
    assert not (tmp_path / "demo").exists()


def large_table(manifest) -> None:
    """Writes a table with about a megabyte of pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    cv2.imwrite(str(manifest.parent / "noise.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 100])
    write_table(manifest, [{**row, "faces": ";".join(["noise.jpg"] * 20)} for row in good_rows(20)])


def test_a_full_disk_writes_nothing(manifest, fault):
    """Files are limited to 100 kB: larger writes fail, as on a full disk."""
    large_table(manifest)
    out = manifest.parent.parent / "out"
    with largest_file(100_000):
        message = fault("prepare", "table", manifest, "--out", out / "data", *pieces(manifest))
    assert str(out / "data") in message and "File too large" in message and "free some space" in message
    assert os.listdir(out) == []


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() or not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=200k", "none", disk]).returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_file_system_writes_nothing(manifest, tiny_disk, fault):
    large_table(manifest)
    message = fault("prepare", "table", manifest, "--out", tiny_disk / "data", *pieces(manifest))
    assert str(tiny_disk / "data") in message and "No space left on device" in message
    assert os.listdir(tiny_disk) == []


def test_a_folder_inside_a_file(manifest, fault):
    write_table(manifest, good_rows())
    (manifest.parent.parent / "out" / "file").write_text("kept")
    message = fault(
        "prepare", "table", manifest, "--out", manifest.parent.parent / "out" / "file" / "data", *pieces(manifest)
    )
    assert "Invalid `--out`" in message and "out/file is a file" in message
    assert (manifest.parent.parent / "out" / "file").read_text() == "kept"
