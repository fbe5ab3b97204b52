"""Display of a running search: a live table on a terminal, one line per trial in a log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from emotion_tf.terminal import printable, say
from emotion_tf.wording import plural
from tuning.results import best_trial
from tuning.space import Parameter

MAX_ROWS = 10
"""Number of ended trials in the live table."""
OTHER_COLUMNS, LEAST_WIDTH = 41, 30
"""Width of all columns of the live table but the last one, and the least width of the last one."""


class SearchDisplay:
    """Displays trials as they end. A context manager.

    Args:
        oracle: oracle of the search.
        searched: hyperparameters of the search.
        trials: number of trials of the whole search.
    """

    def __init__(self, oracle: Any, searched: Sequence[Parameter], trials: int) -> None:
        self.oracle, self.searched, self.trials = oracle, searched, trials
        self.start, self.previous_trials = time.monotonic(), len(oracle.ended_trials)
        self.printed_trials = self.previous_trials
        self.start_of: dict[str, float] = {}
        self.live = Live(console=Console(), refresh_per_second=2, transient=True, auto_refresh=False)

    def __enter__(self) -> SearchDisplay:
        if self.live.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def update(self, running: Mapping[str, Any]) -> None:
        """Displays the ended trials and the running ones: worker -> trial."""
        ended = self.oracle.ended_trials
        if self.live.is_started:
            self.live.update(self._table(ended, running), refresh=True)
        for trial in [] if self.live.is_started else ended[self.printed_trials :]:
            self.printed_trials += 1
            say(self._line(trial, ended), flush=True)
        self.printed_trials = len(ended)

    def remaining_time(self, ended: Sequence[Any]) -> str:
        """Returns the remaining time at the pace of this session; empty before its first trial ends."""
        count = len(ended) - self.previous_trials
        if not count:
            return ""
        seconds = round((time.monotonic() - self.start) / count * max(0, self.trials - len(ended)))
        return f"{seconds // 60}m{seconds % 60:02d}s left"

    def _line(self, trial: Any, ended: Sequence[Any]) -> str:
        report, best = self.oracle.reports[trial.trial_id], best_trial(self.oracle)
        head = f"trial {trial.trial_id} ({self.printed_trials}/{self.trials})  "
        best_so_far = f"best {best.score:.4f} (trial {best.trial_id})  " if best else ""
        tail = best_so_far + self.remaining_time(ended)
        if report["error"]:
            return f"{head}broken: {report['error']}  |  {tail}"
        star = " *" if trial is best else ""
        duration = f"{plural(report['epochs'], 'epoch')}  {report['seconds']:.0f} s"
        return f"{head}{report['score']:.4f}{star}  {duration}  |  {tail}  |  {self._values(trial)}"

    def _values(self, trial: Any) -> str:
        values = trial.hyperparameters.values
        named = ((p.option.removeprefix("train."), values.get(p.option)) for p in self.searched)
        return " ".join(f"{n}={v:.3g}" if isinstance(v, float) else f"{n}={v}" for n, v in named if v is not None)

    def _table(self, ended: Sequence[Any], running: Mapping[str, Any]) -> Group:
        best = best_trial(self.oracle)
        width = self.live.console.width - OTHER_COLUMNS
        table = Table("trial", "F1", "epochs", "seconds")
        if width >= LEAST_WIDTH:  # else those of the best trial alone are shown, above the table
            table.add_column("hyperparameters")
        latest = [trial for trial in ended[-MAX_ROWS:] if trial is not best]
        for trial in [*([best] if best else []), *latest]:
            report = self.oracle.reports[trial.trial_id]
            score = (
                Text("broken", "red") if report["error"] else Text(f"{report['score']:.4f}", "bold" * (trial is best))
            )
            details = Text(shorten_words(printable(report["error"] or self._values(trial)), width))
            cells = (trial.trial_id, score, str(report["epochs"]), f"{report['seconds']:.0f}", details)
            table.add_row(*cells[: len(table.columns)])
        now = time.monotonic()
        for trial in running.values():
            start = self.start_of.setdefault(trial.trial_id, now)
            details = Text(shorten_words(printable(self._values(trial)), width), "dim")
            cells = (trial.trial_id, Text("running", "dim"), "", f"{now - start:.0f}", details)
            table.add_row(*cells[: len(table.columns)])
        broken = sum(1 for report in self.oracle.reports.values() if report["error"])
        lines = [f"{len(ended)} of {plural(self.trials, 'trial')}, {broken} broken  {self.remaining_time(ended)}"]
        if best:
            lines.append(f"best weighted F1 {best.score:.4f} (trial {best.trial_id}): {printable(self._values(best))}")
        return Group(*map(Text, lines), table)


def shorten_words(text: str, width: int) -> str:
    """Returns as many words of a text as fit into `width` columns; no word, such as lr=0.003, is cut."""
    if len(text) <= width:
        return text
    return f"{text[: max(0, width - 1)].rpartition(' ')[0]} …".strip()
