"""Figures: as data URIs of pages, and the confusion matrix as a file.

A module that a prediction needs does not import this one: Matplotlib takes 0.3 s.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from emotion_tf import files
from emotion_tf.evaluation.colours import DARK, FIRST, MAX_OPACITY
from emotion_tf.evaluation.pages import image_uri

CELLS = LinearSegmentedColormap.from_list("cells", [(0, f"{FIRST}00"), (1, f"{FIRST}{round(255 * MAX_OPACITY):02x}")])
"""Colours of the cells of a confusion matrix, from a share of 0 to one of 1."""


def figure_uri(figure: Figure) -> str:
    """Returns a figure as the data URI of an SVG, and closes it. The picture is light on light pages, dark on dark."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    return image_uri(_with_dark_colours(buffer.getvalue().decode()).encode())


def _with_dark_colours(svg: str) -> str:
    """Returns an SVG whose colours are variables of its style, so that a dark page has other ones."""
    for n, colour in enumerate(DARK):
        svg = svg.replace(colour, f"var(--c{n})")
    light, dark = (
        "".join(f"--c{n}:{colour};" for n, colour in enumerate(colours)) for colours in (DARK, DARK.values())
    )
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    return svg.replace("<defs>", f"{style}<defs>", 1)


def plain_text(text: str) -> str:
    """Returns a text of a user for Matplotlib, which would read what stands between two dollar signs as a formula."""
    return text.replace("$", r"\$")


def plot_confusion(path: Path, confusion: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> None:
    """Draws the confusion matrix; the colour is the share of the true class, as in the report."""
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.75 * len(labels)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(shares, cmap=CELLS, vmin=0, vmax=1)
    for i, j in np.ndindex(counts.shape):
        axes.text(
            j,
            i,
            f"{counts[i, j]}\n{shares[i, j]:.0%}",
            ha="center",
            va="center",
            fontsize=8,
        )
    names = [plain_text(label) for label in labels]
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), names)
    axes.set(xlabel="predicted", ylabel="true", title=plain_text(title))
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)
