"""Emotions over the time of a film, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from emotion_tf import files


def plot_timeline(
    path: Path,
    spans: np.ndarray,
    labels: Sequence[str],
    probabilities: np.ndarray,
    title: str,
    abstain_below: float = 0.0,
) -> None:
    """Draws a lane for each class; an utterance is as dark in it as the class is probable, and dotted where it wins.

    Args:
        path: the PNG.
        spans: seconds (N, 2), start and end of each utterance.
        labels: C class names.
        probabilities: (N, C).
        title: above the picture.
        abstain_below: where the most probable class has less, nothing wins.
    """
    height = 1.4 + 0.36 * len(labels)
    figure = Figure(figsize=(12, height), layout="constrained")  # without pyplot: the page draws in several threads
    axes = figure.subplots()
    minutes = float(spans[:, 1].max()) >= 120
    at = spans / 60 if minutes else spans
    widths = at[:, 1] - at[:, 0]
    for lane in range(len(labels)):
        colour = matplotlib.colormaps["tab10"](lane % 10)
        shades = np.tile(colour, (len(at), 1))
        shades[:, 3] = probabilities[:, lane]
        axes.bar(at[:, 0], 0.9, widths, lane - 0.45, align="edge", color=shades)
        won = (probabilities.argmax(axis=1) == lane) & (probabilities[:, lane] >= abstain_below)
        axes.plot(at[won].mean(axis=1), np.full(won.sum(), lane), ".", color="black", markersize=4)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(
        xlim=(0, at.max()), ylim=(len(labels) - 0.5, -0.5), xlabel="minutes" if minutes else "seconds", title=title
    )
    axes.set_facecolor("0.97")
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
