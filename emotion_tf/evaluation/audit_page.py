"""The audit of a data set as one self-contained HTML page and a PNG contact sheet."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from emotion_tf import files, pictures
from emotion_tf.evaluation import pages
from emotion_tf.evaluation.colours import FIGURE, FIRST, SECOND
from emotion_tf.evaluation.figures import figure_uri, plain_text

MAX_CLIPS = 10


def write_page(path: Path, facts: dict[str, Any]) -> None:
    """Writes the page of an audit.

    Args:
        path: the HTML file.
        facts: the result of `data.audit.gather_facts`.
    """
    pages.write(
        path,
        "audit.html",
        **facts,
        charts=_charts(facts),
        all_causes=sorted({cause for count in facts["causes"].values() for cause in count}),
        longest=facts["lengths"][-MAX_CLIPS:][::-1],
        shortest=facts["lengths"][:MAX_CLIPS],
    )


def write_sheet(path: Path, facts: dict[str, Any]) -> None:
    """Draws the contact sheet: a row of crops for each class."""
    columns = max([1, *(len(crops) for crops in facts["crops"].values())])
    labels = facts["labels"]
    figure, grid = plt.subplots(
        len(labels), columns, figsize=(columns + 1.2, len(labels) + 0.5), squeeze=False, layout="constrained"
    )
    for row, label in zip(grid, labels, strict=True):
        crops = facts["crops"][label]
        for n, axes in enumerate(row):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if n < len(crops):
                with contextlib.suppress(ValueError):  # the place of a damaged crop stays empty
                    axes.imshow(pictures.decode(crops[n])[..., ::-1])
        total = sum(split[label] for split in facts["splits"].values())
        row[0].set_ylabel(f"{plain_text(label)}\n{total}", rotation=0, ha="right", va="center")
    figure.suptitle(f"{plain_text(facts['name'])}: crops of each class, with its number of utterances", fontsize=10)
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def _charts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns (title, PNG as a data URI) of each histogram that has values."""
    histograms = [(f"score: {policy}", scores, None) for policy, scores in sorted(facts["scores"].items())]
    histograms.append(("margin to the next face", facts["margins"], facts["margin_rule"]))
    histograms.append(("height of the face in the frame, px", facts["heights"], None))
    histograms.append(("length of the clip, s", [seconds for seconds, _, _ in facts["lengths"]], None))
    return [(title, _histogram(title, values, line)) for title, values, line in histograms if len(values)]


@matplotlib.rc_context(FIGURE)
def _histogram(title: str, values: list[float], line: float | None) -> str:
    figure, axes = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
    # a single clip of five minutes would squeeze all others into one bar
    top = float(np.quantile(values, 0.99))
    axes.hist(np.minimum(values, top), bins=30, color=FIRST)
    if line is not None:
        axes.axvline(line, color=SECOND, linestyle="--")
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=8)
    return figure_uri(figure)
