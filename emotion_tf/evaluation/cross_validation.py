"""What cross-validation says: of each fold, of all utterances together, and how much folds differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.significance import intervals

NAMES = ("weighted_f1", "accuracy", "macro_f1")


def summary(
    label: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    probabilities: np.ndarray,
    folds: Sequence[tuple[int, int, np.ndarray]],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Numbers of the folds and of all out-of-fold predictions.

    Args:
        label: int (N,), true classes.
        weight: float (N,).
        group: (N,), dialogue of each utterance.
        probabilities: (R, N, C), of each repeat.
        folds: repeat, number and positions of each fold.
        labels: names of the C classes.

    Returns:
        `folds` (metrics of each), `pooled` (metrics over all utterances, of each repeat), `interval` (95 %, of the
        first repeat's pooled predictions, by resampling dialogues), and of the folds `mean` and `deviation` (n - 1).
        The folds' training sets overlap, so their deviation is not the error of the mean.
    """
    majority = int(np.bincount(label, minlength=len(labels)).argmax())
    each = [
        {
            "repeat": repeat,
            "fold": number,
            **metrics(label[at], probabilities[repeat, at], labels, majority, weight[at]),
        }
        for repeat, number, at in folds
    ]
    pooled = [metrics(label, one, labels, majority, weight) for one in probabilities]
    scores = {name: [fold[name] for fold in each] for name in NAMES}
    return {
        "folds": each,
        "pooled": pooled,
        "interval": intervals(label, probabilities[0].argmax(axis=1), group, weight=weight),
        "mean": {name: float(np.mean(values)) for name, values in scores.items()},
        "deviation": {name: float(np.std(values, ddof=1)) for name, values in scores.items()},
    }


def print_summary(title: str, numbers: dict[str, Any]) -> None:
    """Prints a line a fold, mean and deviation, the pooled numbers and the majority floor."""
    table = Table("repeat", "fold", "utterances", *NAMES, title=title, title_justify="left")
    for fold in numbers["folds"]:
        scores = (f"{fold[name]:.4f}" for name in NAMES)
        table.add_row(str(fold["repeat"]), str(fold["fold"]), str(fold["utterances"]), *scores)
    spread = (f"{numbers['mean'][name]:.4f} ± {numbers['deviation'][name]:.4f}" for name in NAMES)
    table.add_row("mean ± deviation", "", "", *spread)
    for repeat, pooled in enumerate(numbers["pooled"]):
        scores = (f"{pooled[name]:.4f}" for name in NAMES)
        table.add_row(str(repeat), "all, out of fold", str(pooled["utterances"]), *scores)
    between = (f"[{low:.4f}, {high:.4f}]" for low, high in (numbers["interval"][name] for name in NAMES[:2]))
    table.add_row("0", "95 %, by dialogue", "", *between, "")
    floor = numbers["pooled"][0]["majority_floor"]
    table.add_row(f"always {floor['label']}", "", "", f"{floor['weighted_f1']:.4f}", f"{floor['accuracy']:.4f}", "")
    Console(width=None if Console().is_terminal else 140).print(table)
