"""Scripts that each measure one thing and print a table."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rich.console import Console
from rich.table import Table

from emotion_tf.errors import UserError

MEASURES = "EMOTION_TF_MEASURES"
"""Environment variable with the path of the file for `note_measures`."""
MAIN = Path(__file__).resolve().parent.parent / "main.py"


class Usage(NamedTuple):
    """What a command used: seconds, processor seconds, and peak memory in MB of its largest process (POSIX)."""

    seconds: float
    processor: float
    memory: float


class Measure(NamedTuple):
    """A measured number: what it is, its value with the unit, and its share of a limit measured in the same run."""

    name: str
    value: str
    share: str = ""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        self.exit(2, f"error: {message}. `python -m {self.prog} --help` lists the arguments.\n")


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser without arguments whose help shows the docstring of a benchmark as it is written."""
    spec = sys.modules["__main__"].__spec__
    name = spec.name if spec and spec.name.startswith("benchmarks.") else "benchmarks"
    return OneLineParser(name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def note_measures(measures: Sequence[Measure]) -> None:
    """Appends measures to the file that `benchmarks.all` names in the environment, if it runs this benchmark."""
    if path := os.environ.get(MEASURES):
        with open(path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(measure) + "\n" for measure in measures)


def show_measures(title: str, measures: Sequence[Measure]) -> None:
    """Prints measures as a table, and notes them."""
    table = Table("measure", "value", "share of the limit", title=title, title_justify="left")
    for measure in measures:
        table.add_row(*measure)
    Console(width=110).print(table)
    note_measures(measures)


def processor() -> str:
    """Returns the name of the processor, with the instructions that matter to TensorFlow (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value for key, value in (line.split(":", 1) for line in lines if ":" in line)}
    flags = set(facts.get("flags", "").split())
    kinds = [name for name in ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags]
    return ", ".join([facts.get("model name", platform.machine()).strip(), *kinds])


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
