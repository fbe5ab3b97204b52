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
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import average_precision_score, precision_recall_curve

from emotion_tf.evaluation.figures import figure_uri, plain_text
from emotion_tf.evaluation.reliability import Bin
from emotion_tf.evaluation.selective import Curve

SIZE = (5.2, 4.2)  # inches; a phone scales it to about two thirds, where 9 points stay readable
POINTS = 300
BELOW: dict[str, Any] = {"loc": "outside lower center", "fontsize": 8, "title_fontsize": 8, "frameon": False}
BLUE, RED, GREY = "#2b6ca3", "#b5402a", "#8a8a8a"


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


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
    return figure_uri(figure, "svg")


def learning_curves(history: pd.DataFrame, best_epoch: int) -> str:
    """Draws training and validation loss, validation F1, and the epoch whose weights were kept."""
    figure, axes = _axes("epoch", "loss")
    epoch = history["epoch"]
    axes.plot(epoch, history["loss"], color=GREY, marker=".", label="loss, train")
    axes.plot(epoch, history["dev_loss"], color=RED, marker=".", label="loss, dev")
    axes.set_ylim(bottom=0)
    axes.axvline(best_epoch, color=BLUE, linestyle=":", label="best epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    other.plot(epoch, history["dev_weighted_f1"], color=BLUE, marker=".", label="weighted F1, dev")
    other.set(ylabel="weighted F1", ylim=(0, 1))
    lines = [*axes.get_lines(), *other.get_lines()]
    figure.legend(lines, [str(line.get_label()) for line in lines], ncol=2, **BELOW)
    return figure_uri(figure, "svg")


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Draws accuracy against confidence, before and after calibration, with the share of utterances in each bin."""
    figure, axes = _axes("confidence", "accuracy")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    total = sum(b.weight for b in after)
    for b in after:
        axes.bar(b.low, b.weight / total, b.high - b.low, align="edge", color=BLUE, alpha=0.15)
    axes.bar(0, 0, color=BLUE, alpha=0.15, label="share of utterances, after")
    for bins, colour, name in ((before, RED, "before"), (after, BLUE, "after")):
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color=colour, marker="o", ms=4, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    figure.legend(ncol=2, **BELOW)
    return figure_uri(figure, "svg")


def risk_coverage_curve(curve: Curve, error_rate: float) -> str:
    """Draws the error rate of the most confident predictions, and that of abstaining at random."""
    figure, axes = _axes("coverage (share of utterances answered)", "risk (share of wrong answers)")
    points = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).astype(int))
    axes.plot(curve.coverage[points], curve.risk[points], color=BLUE, label="least confident left out first")
    axes.axhline(error_rate, color=GREY, linestyle="--", linewidth=1, label="left out at random")
    axes.set(xlim=(0, 1), ylim=(0, None))
    figure.legend(ncol=2, **BELOW)
    return figure_uri(figure, "svg")
