"""Python code that dies at its n-th change of a file, as after SIGKILL."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIED = 99
HOOK = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
sys.dont_write_bytecode = True
left = int(sys.argv[1])

def hook(event, arguments):
    global left
    changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
    if changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        left -= 1
        if left == 0:
            os._exit({DIED})
"""


def run(code: str, folder: Path, step: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs code in a folder. It dies before its change number `step`, from 1; 0: it does not."""
    script = f"{HOOK}\nfrom pathlib import Path\nfrom emotion_tf import files, kinds, locks\n"
    script += f"sys.addaudithook(hook)\n{code}"
    command = [sys.executable, "-c", script, str(step)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def kill_at_each_step(code: str, folder: Path) -> Iterator[int]:
    """Runs code again and again, each time killed one step later; yields the number of the step after each death."""
    for step in range(1, 1000):
        done = run(code, folder, step)
        if done.returncode != DIED:
            assert done.returncode == 0, done.stderr
            return
        yield step


@contextlib.contextmanager
def lock_of_another_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that holds the lock of a folder."""
    code = f"{HOOK}\nfrom pathlib import Path\nfrom emotion_tf import locks\nwith locks.writer(Path({str(path)!r})):\n"
    code += "    print('locked', flush=True)\n    sys.stdin.read()"
    words = [sys.executable, "-c", code, "0"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        yield process


class Snapshots:
    """Copies of a folder before each change of a file in it: what a kill at that moment would leave.

    Args:
        folder: the folder to watch in the block.
        copies: folder of the copies, 0, 1, 2 ...
    """

    _active: Snapshots | None = None
    _is_hooked = False

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self.copies, self.count = folder, copies, 0

    def __enter__(self) -> Snapshots:
        if not Snapshots._is_hooked:  # a hook stays to the end of the process
            sys.addaudithook(_watch)
            Snapshots._is_hooked = True
        Snapshots._active = self
        return self

    def __exit__(self, *error: object) -> None:
        Snapshots._active = None

    def take(self) -> None:
        """Copies the folder."""
        Snapshots._active = None
        shutil.copytree(self.folder, self.copies / str(self.count), symlinks=True)
        self.count += 1
        Snapshots._active = self


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    active = Snapshots and Snapshots._active  # the module is emptied at the end of the process, and the hook stays
    if active is None or not active.folder.exists():
        return
    if event == "open":
        is_change = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        is_change = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
    # Python removes the files of trees by names relative to a descriptor
    if is_change and (not os.path.isabs(str(arguments[0])) or str(arguments[0]).startswith(str(active.folder))):
        active.take()
