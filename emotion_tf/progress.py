"""Progress of long tasks: a bar on a terminal, one line per minute in a log, with the rate and the remaining time.

A task that cannot be counted has a title and the time since it began, on a terminal only.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
LOG_EVERY = 60.0  # seconds


def track(items: Iterable[T], total: int | None, title: str, unit: str, done: int = 0) -> Iterator[T]:
    """Yields the items and displays the progress.

    Args:
        items: items to process.
        total: number of items, including those done before; None: unknown.
        title: title of the bar.
        unit: unit of the items, such as "clips".
        done: number of items done before, in an interrupted run.
    """
    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"), TimeRemainingColumn(),
        console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    start = last_line = time.monotonic()
    with bar:
        task = bar.add_task(title, total=total, completed=done, rate=0.0)
        for n, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            rate = n / max(now - start, 1e-9)
            bar.update(task, advance=1, rate=rate)
            if bar.disable and now - last_line > LOG_EVERY:
                last_line = now
                count, left = f"{done + n}", ""
                if total is not None:
                    count, left = f"{count}/{total}", f", {(total - done - n) / rate:.0f} s left"
                print(
                    f"{title}: {count}, {rate:.1f} {unit}/s{left}",
                    file=sys.stderr,
                    flush=True,
                )


def track_batches(batches: Iterable[T], rows: int, size: int, title: str) -> Iterator[T]:
    """Yields the batches of `rows` utterances, `size` in each, and displays the progress."""
    return track(batches, math.ceil(rows / size), title, "batches")


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Displays a title and the time since it began on a terminal, until the block ends. The block prints nothing."""
    if not sys.stderr.isatty():
        yield
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        bar.add_task(title, total=None)
        yield
