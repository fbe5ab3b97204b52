"""The same run with several seeds: mean, deviation, and how sure the mean is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import t

NAMES = ("weighted_f1", "accuracy", "macro_f1")


class Spread(NamedTuple):
    """Mean, standard deviation (n - 1), and the 95 % interval of the mean by Student's t."""

    mean: float
    deviation: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of two or more values."""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(t.ppf(0.975, len(values) - 1)) * deviation / np.sqrt(len(values))
    return Spread(mean, deviation, mean - reach, mean + reach)


def print_seeds(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a table of each split: run -> split -> metrics, as `evaluate` wrote them; then the mean over the runs."""
    console = Console(width=None if Console().is_terminal else 120)
    splits = [split for split in ("dev", "test") if all(split in metrics for metrics in scores.values())]
    for split in splits:
        table = Table("run", *NAMES, title=f"{split}, {len(scores)} seeds", title_justify="left")
        for run, metrics in scores.items():
            table.add_row(run, *(f"{metrics[split][name]:.4f}" for name in NAMES))
        found = [spread([metrics[split][name] for metrics in scores.values()]) for name in NAMES]
        table.add_row("mean ± deviation", *(f"{one.mean:.4f} ± {one.deviation:.4f}" for one in found))
        table.add_row("95 % of the mean", *(f"[{one.low:.4f}, {one.high:.4f}]" for one in found))
        floor = next(iter(scores.values()))[split]["majority_floor"]
        table.add_row(f"always {floor['label']}", *(f"{floor[name]:.4f}" if name in floor else "" for name in NAMES))
        console.print(table)
