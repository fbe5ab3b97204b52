"""The report's figures, each as the address of a picture inside a page."""

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

from emotion_tf.evaluation.pages import drawn
from emotion_tf.evaluation.reliability import Bin
from emotion_tf.evaluation.selective import Curve

SIZE = (5.2, 4.2)  # inches: a phone shows it at about two thirds, which 9 points survive
POINTS = 300
BELOW: dict[str, Any] = {"loc": "outside lower center", "fontsize": 8, "title_fontsize": 8, "frameon": False}
BLUE, RED, GREY = "#2b6ca3", "#b5402a", "#8a8a8a"


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=SIZE, layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def precision_recall(label: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> str:
    """One curve a class against the rest, with its average precision."""
    figure, axes = _axes("recall", "precision")
    for i, name in enumerate(labels):
        truth = label == i
        if not truth.any():
            continue
        precision, recall, _ = precision_recall_curve(truth, probabilities[:, i])
        area = average_precision_score(truth, probabilities[:, i])
        keep = np.unique(np.linspace(0, len(recall) - 1, POINTS).astype(int))
        axes.step(
            recall[keep], precision[keep], where="post", color=plt.get_cmap("tab10")(i % 10), label=f"{name} {area:.2f}"
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    figure.legend(title="average precision", ncol=4, **BELOW)
    return drawn(figure, "svg")


def learning_curves(history: pd.DataFrame, chosen: int) -> str:
    """Loss in training and on validation, and validation F1, with the epoch that was chosen."""
    figure, axes = _axes("epoch", "loss")
    epoch = history["epoch"]
    axes.plot(epoch, history["loss"], color=GREY, marker=".", label="loss, training")
    axes.plot(epoch, history["dev_loss"], color=RED, marker=".", label="loss, dev")
    axes.set_ylim(bottom=0)
    axes.axvline(chosen, color=BLUE, linestyle=":", label="chosen")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    other = axes.twinx()
    other.spines["top"].set_visible(False)
    other.plot(epoch, history["dev_weighted_f1"], color=BLUE, marker=".", label="weighted F1, dev")
    other.set(ylabel="weighted F1", ylim=(0, 1))
    lines = [*axes.get_lines(), *other.get_lines()]
    figure.legend(lines, [str(line.get_label()) for line in lines], ncol=2, **BELOW)
    return drawn(figure, "svg")


def reliability_diagram(before: Sequence[Bin], after: Sequence[Bin]) -> str:
    """Accuracy against confidence, before and after calibration, with the share of utterances in each bin."""
    figure, axes = _axes("confidence", "accuracy")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    total = sum(one.weight for one in after)
    for one in after:
        axes.bar(one.low, one.weight / total, one.high - one.low, align="edge", color=BLUE, alpha=0.15)
    axes.bar(0, 0, color=BLUE, alpha=0.15, label="share of the utterances, after")
    for bins, colour, name in ((before, RED, "before"), (after, BLUE, "after")):
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color=colour, marker="o", ms=4, label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    figure.legend(ncol=2, **BELOW)
    return drawn(figure, "svg")


def risk_coverage_curve(curve: Curve, overall: float) -> str:
    """Share of wrong ones among the most confident predictions, beside that of abstaining at random."""
    figure, axes = _axes("coverage: share of utterances that are answered", "risk: share of wrong answers")
    keep = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).astype(int))
    axes.plot(curve.coverage[keep], curve.risk[keep], color=BLUE, label="the least confident left out first")
    axes.axhline(overall, color=GREY, linestyle="--", linewidth=1, label="left out at random")
    axes.set(xlim=(0, 1), ylim=(0, None))
    figure.legend(ncol=2, **BELOW)
    return drawn(figure, "svg")
