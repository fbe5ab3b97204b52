"""Scripts that each measure one thing and print a table."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from emotion_tf.errors import UserError


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
