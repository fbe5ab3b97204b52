"""One process at a time writes a folder; the message for a second one says who."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kills
import pytest

from emotion_tf import locks
from emotion_tf.errors import UserError

HOLD = "with locks.writer(Path('runs/a')):\n    print('locked', flush=True)\n    sys.stdin.read()"


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of runs/a until its input is closed."""
    code = f"{kills.HOOK}\nfrom pathlib import Path\nfrom emotion_tf import locks\n{HOLD}"
    words = [sys.executable, "-c", code, "0"]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_the_message_for_a_second_writer_says_who_holds_the_lock(holder, tmp_path):
    refused = pytest.raises(locks.Occupied, match=rf"runs/a is being written by process {holder.pid} on .* since 20")
    with refused, locks.writer(tmp_path / "runs" / "a"):
        pass
    with locks.writer(tmp_path / "runs" / "b"):
        pass
    holder.communicate()
    assert not (tmp_path / "runs").exists()  # neither the lock nor the empty folder stays
    with locks.writer(tmp_path / "runs" / "a"):
        pass


def test_a_dead_process_holds_no_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert os.listdir(tmp_path / "runs") == [".a.lock"]
    with locks.writer(tmp_path / "runs" / "a"):
        assert os.listdir(tmp_path / "runs") == [".a.lock"]
    assert not os.listdir(tmp_path / "runs")


def test_a_process_enters_again_by_any_path(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    with locks.writer(tmp_path / "runs" / "a"), locks.writer(tmp_path / "link" / "a"):
        pass
    with pytest.raises(KeyboardInterrupt), locks.writer(tmp_path / "runs" / "a"):
        raise KeyboardInterrupt
    assert not (tmp_path / "runs").exists()


def test_a_child_process_does_not_keep_the_lock_of_its_parent(tmp_path):
    code = """
with locks.writer(Path("a")):
    if not os.fork():
        import time
        os.mkdir("b")
        time.sleep(60)
    os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{kills.HOOK}\nfrom pathlib import Path\nfrom emotion_tf import locks\n{code}", "0"],
        cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    try:
        process.wait()
        while not (tmp_path / "b").exists():
            time.sleep(0.01)
        with locks.writer(tmp_path / "a"):
            pass
    finally:
        os.killpg(process.pid, 9)


def test_many_processes_write_one_after_the_other(tmp_path):
    """Each removes its lock file while others try: never two at once."""
    code = """
for _ in range(200):
    try:
        with locks.writer(Path("a")):
            os.mkdir("inside")
            os.rmdir("inside")
    except locks.Occupied:
        pass
"""
    script = f"{kills.HOOK}\nfrom pathlib import Path\nfrom emotion_tf import locks\n{code}"
    processes = [subprocess.Popen([sys.executable, "-c", script, "0"], cwd=tmp_path) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert os.listdir(tmp_path) == []


def test_a_parent_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    refused = pytest.raises(UserError, match=r"^Cannot write .*file/a: [\w ]+; choose another folder\.$")
    with refused, locks.writer(tmp_path / "file" / "a"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, None])
def test_only_a_full_disk_needs_more_space(number):
    """NumPy says "10 requested and 0 written", without a number."""
    assert locks.advice(OSError(number, "")) == "free some space or choose another folder"
    assert locks.advice(OSError(errno.EACCES, "")) == "choose another folder"


def test_a_folder_that_takes_no_file_is_one_line():
    """Creating a file in /proc fails as if the folder were missing."""
    with pytest.raises(UserError, match="Cannot write /proc/x: No such file"), locks.writer(Path("/proc/x")):
        pass


def test_without_locks_of_the_file_system_the_file_is_the_lock(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.writer(tmp_path / "a"), locks.writer(tmp_path / "a"):
        (tmp_path / ".b.lock").write_bytes((tmp_path / ".a.lock").read_bytes())  # as of another process
    message = f"b is being written by process {os.getpid()} on .* if it was killed, remove {tmp_path}/.b.lock"
    with pytest.raises(locks.Occupied, match=message), locks.writer(tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == [".b.lock"]


ANOTHER_USER = "if os.getuid() == 0:\n    os.setuid(65534)\n"
LOCK_TWICE = """
with locks.writer(Path("run")), locks.writer(Path("run")):
    if not os.fork():
        try:
            with locks.writer(Path("run")):
                os._exit(1)
        except locks.Occupied as error:
            print(error, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture
def shared():
    """A folder that other users can read, with a folder `run` that they can write."""
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "run").mkdir()
        (Path(path) / "run").chmod(0o777)
        Path(path).chmod(0o755)
        yield Path(path)


def test_a_stale_lock_of_another_user_does_not_matter(shared):
    (shared / ".run.lock").write_text("process 1 on a since 2026")
    (shared / ".run.lock").chmod(0o444)
    shared.chmod(0o1777)  # as /tmp: only the owner removes a file
    done = kills.run(ANOTHER_USER + LOCK_TWICE, shared)
    assert done.stdout.startswith("run is being written by process 1 on a"), done.stderr


def test_a_folder_whose_parent_cannot_be_written_is_locked_itself(shared):
    shared.chmod(0o555)
    done = kills.run(ANOTHER_USER + LOCK_TWICE, shared)
    assert done.stdout.startswith("run is being written by another process"), done.stderr
    done = kills.run(f"{ANOTHER_USER}with locks.writer(Path('new')):\n    pass", shared)
    assert "Cannot write new: Permission denied" in done.stderr


def test_a_lock_file_that_cannot_be_opened_is_named(shared):
    (shared / ".run.lock").touch(0o000)
    done = kills.run(ANOTHER_USER + LOCK_TWICE, shared)
    assert "/.run.lock: Permission denied" in done.stderr
