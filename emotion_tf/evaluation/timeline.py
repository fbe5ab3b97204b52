"""Chart of the emotions over the time of a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from emotion_tf import files
from emotion_tf.evaluation.colours import INK, LINE
from emotion_tf.evaluation.figures import plain_text

LEGEND = (0.25, 0.5, 0.75, 1.0)
"""Probabilities in the legend."""
ABOVE = ",\nabove the threshold"


def plot_timeline(
    path: Path,
    spans: np.ndarray,
    labels: Sequence[str],
    predicted: np.ndarray,
    probabilities: np.ndarray,
    title: str,
    abstain_below: float = 0.0,
) -> None:
    """Draws a lane for each class: the opacity of an utterance is the probability, a dot marks the predicted class.

    A legend says so.

    Args:
        path: the PNG.
        spans: float (N, 2), start and end of each utterance in seconds.
        labels: C class names.
        predicted: int (N,), predicted classes.
        probabilities: (N, C).
        title: title of the chart.
        abstain_below: threshold of the probability below which no class is marked.
    """
    height = 1.4 + 0.36 * len(labels)
    figure = Figure(figsize=(12, height), layout="constrained")  # without pyplot: the page draws in several threads
    axes = figure.subplots()
    minutes = float(spans[:, 1].max()) >= 120
    times = spans / 60 if minutes else spans
    widths = times[:, 1] - times[:, 0]
    for lane in range(len(labels)):
        colour = matplotlib.colormaps["tab10"](lane % 10)
        shades = np.tile(colour, (len(times), 1))
        shades[:, 3] = probabilities[:, lane]
        axes.bar(times[:, 0], 0.9, widths, lane - 0.45, align="edge", color=shades)
        is_predicted = (predicted == lane) & (probabilities[:, lane] >= abstain_below)
        axes.plot(times[is_predicted].mean(axis=1), np.full(is_predicted.sum(), lane), ".", color="black", markersize=4)
    axes.set_yticks(range(len(labels)), [plain_text(label) for label in labels])
    axes.set(
        xlim=(0, times.max()),
        ylim=(len(labels) - 0.5, -0.5),
        xlabel="minutes" if minutes else "seconds",
        title=plain_text(title),
    )
    axes.set_facecolor("0.97")
    axes.grid(axis="x", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    samples = [Patch(facecolor=INK, alpha=share, label=f"{100 * share:.0f} %") for share in LEGEND]
    dot = Line2D([], [], color="black", marker=".", linestyle="none", label="predicted" + ABOVE * (abstain_below > 0))
    figure.legend(handles=[*samples, dot], title="probability", loc="outside right center", frameon=False)
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
