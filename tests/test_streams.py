"""Output to pipes, devices, links and standard output, which stay what they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from emotion_tf import files
from emotion_tf.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def device(path: Path, minor: int) -> Path:
    """Makes a memory device: 3 is /dev/null, 7 is /dev/full."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except OSError:
        pytest.skip("this machine does not let a test make a device")
    return path


def test_a_full_device_stays_and_the_error_is_one_line(tmp_path):
    full = device(tmp_path / "full", 7)
    with pytest.raises(UserError, match=r"Cannot write .*full: No space left on device\.$"):
        files.write_text(full, "text", follow=True)
    assert stat.S_ISCHR(full.stat().st_mode) and os.listdir(tmp_path) == ["full"]


def test_a_device_is_written(tmp_path):
    null = device(tmp_path / "null", 3)
    files.write_text(null, "text", follow=True)
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_pipe_is_written(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "text", follow=True)
    reader.join(10)
    assert received == ["text"] and stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("content", ["before", None])
def test_the_target_of_a_link_is_replaced(content, tmp_path):
    (tmp_path / "target").mkdir()
    target, link = tmp_path / "target" / "a.txt", tmp_path / "link.txt"
    if content:
        target.write_text(content)
    link.symlink_to(target)
    files.write_text(link, "after", follow=True)
    assert link.is_symlink() and target.read_text() == "after" and os.listdir(target.parent) == ["a.txt"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "device", "pipe"])
def test_a_link_or_stream_in_a_folder_is_replaced(kind, tmp_path):
    """It may come with somebody else's folder. Only a path that the user typed is followed."""
    (tmp_path / "target").write_text("private")
    path = tmp_path / "metrics.json"
    targets = {"link": tmp_path / "target", "dangling link": tmp_path / "new", "device": Path("/dev/null")}
    path.symlink_to(targets[kind]) if kind in targets else os.mkfifo(path)
    files.write_text(path, "after")
    assert not path.is_symlink() and path.read_text() == "after"
    assert sorted(os.listdir(tmp_path)) == ["metrics.json", "target"] and (tmp_path / "target").read_text() == "private"


def test_a_link_at_the_temporary_name_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("private")
    with files.new_file(tmp_path / "a.txt") as temporary:
        temporary.touch()
    temporary.symlink_to("target")
    files.write_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "target").read_text() == "private" and (tmp_path / "a.txt").read_text() == "after"


def test_an_open_descriptor_is_written(tmp_path, capfd):
    with open(tmp_path / "a.txt", "wb") as file:
        file.write(b"first\n")
        file.flush()
        files.write_text(Path(f"/dev/fd/{file.fileno()}"), "second\n", follow=True)
    assert (tmp_path / "a.txt").read_text() == "first\nsecond\n"
    for name in ("-", "/dev/stdout", "/proc/self/fd/1"):
        files.write_text(Path(name), "text", follow=True)
        assert capfd.readouterr().out == "text"


def test_a_table_on_standard_output(untrained_text, tmp_path, command):
    (tmp_path / "t.csv").write_text("utterance\nHello\n")
    code, output = command("predict-table", untrained_text, tmp_path / "t.csv", "--out", "-")
    assert code == 0 and output.err == "1 predictions: -\n"
    assert output.out.startswith("utterance,predicted,p_") and output.out.count("\n") == 2


def test_a_full_or_closed_standard_output():
    overview = [sys.executable, "main.py", "options"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(overview, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: Cannot write: No space left on device.")
    assert done.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(overview, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
