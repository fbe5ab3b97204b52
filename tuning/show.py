"""A search as it goes: a live table on a terminal, a line a trial in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuning.results import best_trial
from tuning.space import Parameter

LAST = 10


class Show:
    """Shows trials as they end. A context manager.

    Args:
        oracle: of the search.
        searched: its hyperparameters.
        trials: how many there will be.
    """

    def __init__(self, oracle: Any, searched: Sequence[Parameter], trials: int) -> None:
        self.oracle, self.searched, self.trials = oracle, searched, trials
        self.began, self.before = time.monotonic(), len(oracle.ended)
        self.said = self.before
        self.since: dict[str, float] = {}
        self.live = Live(console=Console(), refresh_per_second=2, transient=True, auto_refresh=False)

    def __enter__(self) -> Show:
        if self.live.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def update(self, running: Mapping[str, Any]) -> None:
        """After a while: `running` is worker -> trial."""
        ended = self.oracle.ended
        if self.live.is_started:
            self.live.update(self._table(ended, running), refresh=True)
        for trial in [] if self.live.is_started else ended[self.said :]:
            self.said += 1
            print(self._line(trial, ended), flush=True)
        self.said = len(ended)

    def left(self, ended: Sequence[Any]) -> str:
        """Time left, by the pace since this session began."""
        now = len(ended) - self.before
        if not now:
            return ""
        seconds = round((time.monotonic() - self.began) / now * max(0, self.trials - len(ended)))
        return f"{seconds // 60}m{seconds % 60:02d}s left"

    def _line(self, trial: Any, ended: Sequence[Any]) -> str:
        report, best = self.oracle.reports[trial.trial_id], best_trial(self.oracle)
        head = f"trial {trial.trial_id} ({self.said}/{self.trials})  "
        tail = f"best {best.score:.4f} (trial {best.trial_id})  {self.left(ended)}" if best else self.left(ended)
        if report["error"]:
            return f"{head}broken: {report['error']}  |  {tail}"
        star = " *" if trial is best else ""
        return (
            f"{head}{report['score']:.4f}{star}  {report['epochs']} epochs  {report['seconds']:.0f} s  |  {tail}  |  "
            f"{self._values(trial)}"
        )

    def _values(self, trial: Any) -> str:
        values = trial.hyperparameters.values
        named = ((one.option.removeprefix("train."), values.get(one.option)) for one in self.searched)
        return " ".join(f"{n}={v:.3g}" if isinstance(v, float) else f"{n}={v}" for n, v in named if v is not None)

    def _table(self, ended: Sequence[Any], running: Mapping[str, Any]) -> Group:
        best = best_trial(self.oracle)
        table = Table("trial", "weighted F1", "epochs", "seconds", "hyperparameters", expand=True)
        shown = [trial for trial in ended[-LAST:] if trial is not best]
        for trial in [*([best] if best else []), *shown]:
            report = self.oracle.reports[trial.trial_id]
            score = (
                Text("broken", "red") if report["error"] else Text(f"{report['score']:.4f}", "bold" * (trial is best))
            )
            about = Text(report["error"] or self._values(trial), overflow="ellipsis", no_wrap=True)
            table.add_row(trial.trial_id, score, str(report["epochs"]), f"{report['seconds']:.0f}", about)
        now = time.monotonic()
        for trial in running.values():
            began = self.since.setdefault(trial.trial_id, now)
            about = Text(self._values(trial), "dim", overflow="ellipsis", no_wrap=True)
            table.add_row(trial.trial_id, Text("running", "dim"), "", f"{now - began:.0f}", about)
        broken = sum(1 for one in self.oracle.reports.values() if one["error"])
        head = f"{len(ended)} of {self.trials} trials, {broken} broken  {self.left(ended)}"
        return Group(Text(head + (f"  best {best.score:.4f} (trial {best.trial_id})" if best else "")), table)
