"""Results of cross-validation: metrics of each fold, of all utterances together, and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from emotion_tf.consoles import table_console
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.significance import format_bounds, intervals

METRICS = ("weighted_f1", "accuracy", "macro_f1")


def summary(
    label: np.ndarray,
    weight: np.ndarray,
    group: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    folds: Sequence[tuple[int, int, np.ndarray]],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Returns the metrics of the folds and of all out-of-fold predictions.

    Args:
        label: int (N,), true classes.
        weight: float (N,).
        group: (N,), dialogue of each utterance.
        predicted: int (R, N), out-of-fold predictions of each repeat.
        probabilities: float (R, N, C), out-of-fold probabilities of each repeat.
        folds: repeat, number and positions of each fold.
        labels: names of the C classes.

    Returns:
        A dict: `folds` (metrics of each fold), `pooled` (metrics of all utterances, for each repeat), `interval` (95 %
        intervals of the mean over the repeats, over dialogues and, with several, repeats), `mean` and `deviation`
        (n - 1) over the folds. The training sets of the folds overlap, so the deviation does not give the error of the
        mean.
    """
    majority = int(np.bincount(label, weight, len(labels)).argmax())
    metrics_of_folds = [
        {
            "repeat": repeat,
            "fold": number,
            **metrics(
                label[rows], predicted[repeat, rows], probabilities[repeat, rows], labels, majority, weight[rows]
            ),
        }
        for repeat, number, rows in folds
    ]
    pooled = [
        metrics(label, *repeat, labels, majority, weight) for repeat in zip(predicted, probabilities, strict=True)
    ]
    scores = {name: [fold[name] for fold in metrics_of_folds] for name in METRICS}
    return {
        "folds": metrics_of_folds,
        "pooled": pooled,
        "interval": intervals(label, predicted, group, weight),
        "mean": {name: float(np.mean(values)) for name, values in scores.items()},
        "deviation": {name: float(np.std(values, ddof=1)) for name, values in scores.items()},
    }


def print_summary(title: str, numbers: dict[str, Any]) -> None:
    """Prints a line a fold, mean and deviation, the pooled numbers and the majority floor."""
    table = Table("repeat", "fold", "utterances", *METRICS, title=title, title_justify="left")
    for fold in numbers["folds"]:
        scores = (f"{fold[name]:.4f}" for name in METRICS)
        table.add_row(str(fold["repeat"]), str(fold["fold"]), str(fold["utterances"]), *scores)
    spread = (f"{numbers['mean'][name]:.4f} ± {numbers['deviation'][name]:.4f}" for name in METRICS)
    table.add_row("mean ± deviation", "", "", *spread)
    for repeat, pooled in enumerate(numbers["pooled"]):
        scores = (f"{pooled[name]:.4f}" for name in METRICS)
        table.add_row(str(repeat), "all out-of-fold", str(pooled["utterances"]), *scores)
    bounds = (format_bounds(numbers["interval"][name]) for name in METRICS)
    over = "dialogues and repeats" if len(numbers["pooled"]) > 1 else "dialogues"
    table.add_row("95 %", f"over {over}", "", *bounds)
    floor = numbers["pooled"][0]["majority_floor"]
    table.add_row(f"always {floor['label']}", "", "", f"{floor['weighted_f1']:.4f}", f"{floor['accuracy']:.4f}", "")
    table_console(140).print(table)
