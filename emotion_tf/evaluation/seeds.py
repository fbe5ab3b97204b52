"""Results of one configuration over several seeds: mean, standard deviation, interval of the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from scipy.stats import t

from emotion_tf.consoles import table_console

METRICS = ("weighted_f1", "accuracy", "macro_f1")


class Spread(NamedTuple):
    """Mean, standard deviation (n - 1), and the 95 % interval of the mean by Student's t."""

    mean: float
    deviation: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Returns the statistics of two or more values."""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    margin = float(t.ppf(0.975, len(values) - 1)) * deviation / np.sqrt(len(values))
    return Spread(mean, deviation, mean - margin, mean + margin)


def print_seeds(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a table for each split: the metrics of each run, their mean and interval.

    Args:
        scores: run -> split -> metrics, as `evaluate` writes them.
    """
    console = table_console(120)
    splits = [split for split in ("dev", "test") if all(split in metrics for metrics in scores.values())]
    for split in splits:
        table = Table("run", *METRICS, title=f"{split}, {len(scores)} seeds", title_justify="left")
        for run, metrics in scores.items():
            table.add_row(run, *(f"{metrics[split][name]:.4f}" for name in METRICS))
        spreads = [spread([metrics[split][name] for metrics in scores.values()]) for name in METRICS]
        table.add_row("mean ± deviation", *(f"{s.mean:.4f} ± {s.deviation:.4f}" for s in spreads))
        table.add_row("95 % of the mean", *(f"[{s.low:.4f}, {s.high:.4f}]" for s in spreads))
        floor = next(iter(scores.values()))[split]["majority_floor"]
        table.add_row(f"always {floor['label']}", *(f"{floor[name]:.4f}" if name in floor else "" for name in METRICS))
        console.print(table)
