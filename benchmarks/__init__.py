"""Scripts that each measure one thing and print a table."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emotion_tf.errors import UserError

MAIN = Path(__file__).resolve().parent.parent / "main.py"


class Usage(NamedTuple):
    """What a command used: seconds, processor seconds, and peak memory in MB of its largest process (POSIX)."""

    seconds: float
    processor: float
    memory: float


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser without arguments whose help shows the docstring of a benchmark as it is written."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def run_benchmark(main: Callable[[], None]) -> None:
    """Runs a benchmark. An error of the user is one line and exit code 2, as on the program's command line."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def process_tree(pid: int) -> list[int]:
    """Returns the ids of a process and its descendants (Linux)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [pid]
    for process in tree:
        tree += children.get(process, [])
    return tree


def resident_bytes(pid: int) -> int:
    """Returns the memory of a process in RAM; 0 if it has ended (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)


def measure_program(*arguments: Any, cwd: Path | None = None) -> Usage:
    """Runs `main.py` with these arguments in a process of its own.

    Raises:
        UserError: it failed; with its last line on standard error.
    """
    return measure_command([sys.executable, MAIN, *arguments], cwd)


def measure_command(command: Sequence[Any], cwd: Path | None = None) -> Usage:
    """Runs a command. Its peak memory is at least that of this process, which should hold little.

    Raises:
        UserError: it failed; with its last line on standard error.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        start = time.perf_counter()
        words = [str(word) for word in command]
        process = subprocess.Popen(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            last = (log.read().strip() or "no message").splitlines()[-1]
            raise UserError(f"`{' '.join(words[1:])}` failed: {last}")
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
