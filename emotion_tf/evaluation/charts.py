"""Figures of the report, as data URIs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import average_precision_score, precision_recall_curve

from emotion_tf.evaluation.colours import FIGURE, FIRST, GREY, SECOND
from emotion_tf.evaluation.figures import figure_uri, plain_text
from emotion_tf.evaluation.reliability import Bin
from emotion_tf.evaluation.selective import Curve

SIZE = (5.4, 4.0)  # inches: half the width of the page; a phone scales it to two thirds, where 9 points stay readable
POINTS = 300
BELOW: dict[str, Any] = {"loc": "outside lower center", "fontsize": 8, "title_fontsize": 8, "frameon": False}
LARGEST_DOT, SMALLEST_DOT = 160.0, 6.0  # points squared


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid()
    return figure, axes


@matplotlib.rc_context(FIGURE)
def precision_recall(label: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], weight: np.ndarray) -> str:
    """Draws a precision-recall curve of each class against the rest, with its average precision."""
    counts = weight > 0
    label, probabilities, weight = label[counts], probabilities[counts], weight[counts]
    figure, axes = _axes("recall", "precision")
    for i, name in enumerate(labels):
        is_class = label == i
        if not is_class.any():
            continue
        precision, recall, _ = precision_recall_curve(is_class, probabilities[:, i], sample_weight=weight)
        area = average_precision_score(is_class, probabilities[:, i], sample_weight=weight)
        points = np.unique(np.linspace(0, len(recall) - 1, POINTS).astype(int))
        axes.step(
            recall[points],
            precision[points],
            where="post",
            color=plt.get_cmap("tab10")(i % 10),
            label=f"{plain_text(name)} {area:.2f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    figure.legend(title="average precision", ncol=4, **BELOW)
    return figure_uri(figure)


@matplotlib.rc_context(FIGURE)
def loss_curves(history: pd.DataFrame, best_epoch: int) -> str:
    """Draws training and validation loss, and the epoch whose weights were kept."""
    figure, axes = _axes("epoch", "loss")
    axes.plot(history["epoch"], history["loss"], color=GREY, marker=".", label="train")
    axes.plot(history["epoch"], history["dev_loss"], color=FIRST, marker=".", label="dev")
    axes.set_ylim(bottom=0)
    return _with_best_epoch(figure, axes, best_epoch)


@matplotlib.rc_context(FIGURE)
def f1_curve(history: pd.DataFrame, best_epoch: int) -> str:
    """Draws weighted F1 on dev, and the epoch whose weights were kept."""
    figure, axes = _axes("epoch", "weighted F1")
    axes.plot(history["epoch"], history["dev_weighted_f1"], color=FIRST, marker=".", label="dev")
    return _with_best_epoch(figure, axes, best_epoch)


def _with_best_epoch(figure: Figure, axes: Axes, best_epoch: int) -> str:
    axes.axvline(best_epoch, color=SECOND, linestyle=":", label="best epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(ncol=3, **BELOW)
    return figure_uri(figure)


@matplotlib.rc_context(FIGURE)
def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Draws accuracy against confidence, before and after calibration; dots have the area of their utterances."""
    figure, axes = _axes("confidence", "accuracy")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    largest = max(b.weight for bins in (before, after) for b in bins)
    for bins, colour, name in ((before, SECOND, "before"), (after, FIRST, "after")):
        x, y = [b.confidence for b in bins], [b.accuracy for b in bins]
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.6)
        areas = [max(LARGEST_DOT * b.weight / largest, SMALLEST_DOT) for b in bins]
        axes.scatter(x, y, areas, color=colour, alpha=0.75, linewidths=0, zorder=2.5, clip_on=False, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    legend = figure.legend(ncol=3, title="area of a dot: number of utterances", **BELOW)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([30.0])
    return figure_uri(figure)


@matplotlib.rc_context(FIGURE)
def risk_coverage_curve(curve: Curve, error_rate: float) -> str:
    """Draws the error rate of the most confident predictions, and that of abstaining at random."""
    figure, axes = _axes("coverage (share of utterances answered)", "risk (share of wrong answers)")
    points = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).astype(int))
    axes.plot(curve.coverage[points], curve.risk[points], color=FIRST, label="least confident left out first")
    axes.axhline(error_rate, color=GREY, linestyle="--", linewidth=1, label="left out at random")
    axes.set(xlim=(0, 1), ylim=(0, None))
    figure.legend(ncol=2, **BELOW)
    return figure_uri(figure)
