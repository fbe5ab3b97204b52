"""Progress of long tasks: a bar on a terminal, one line per minute in a log, with the rate and the remaining time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
LOG_EVERY = 60.0  # seconds


def track(items: Iterable[T], total: int, title: str, unit: str, done: int = 0) -> Iterator[T]:
    """Yields the items and displays the progress.

    Args:
        items: items to process.
        total: number of items, including those done before.
        title: title of the bar.
        unit: unit of the items, such as "clips".
        done: number of items done before, in an interrupted run.
    """
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
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
                remaining = (total - done - n) / rate
                print(
                    f"{title}: {done + n}/{total}, {rate:.1f} {unit}/s, {remaining:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
