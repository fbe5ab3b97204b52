"""Progress of long work: a bar on a terminal, a line a minute in a log, both with a rate and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
LOG_EVERY = 60.0


def track(items: Iterable[T], total: int, title: str, unit: str, done: int = 0) -> Iterator[T]:
    """Passes `items` on and shows how far they are.

    Args:
        items: what is worked on.
        total: how many there are, with those done before.
        title: of the bar.
        unit: such as "clips".
        done: how many were done before, in a run that was interrupted.
    """
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} " + unit + "/s"), TimeRemainingColumn(),
        console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
    began = logged = time.monotonic()
    with bar:
        task = bar.add_task(title, total=total, completed=done, rate=0.0)
        for n, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            rate = n / max(now - began, 1e-9)
            bar.update(task, advance=1, rate=rate)
            if bar.disable and now - logged > LOG_EVERY:
                logged = now
                left = (total - done - n) / rate
                print(
                    f"{title}: {done + n}/{total}, {rate:.1f} {unit}/s, {left:.0f} s left", file=sys.stderr, flush=True
                )
