"""Explanations as a self-contained HTML page, with pictures as PNG and tables as CSV."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from emotion_tf.evaluation import pages
from emotion_tf.evaluation.colours import AGAINST, FIGURE, FIRST, FOR, GREY, NEUTRAL
from emotion_tf.evaluation.csv_tables import to_csv
from emotion_tf.evaluation.figures import figure_uri
from emotion_tf.interpret import pictures
from emotion_tf.interpret.explanation import Curves, Explanation, WordAttributions
from emotion_tf.interpret.summary import MIN_UTTERANCES, MeanFace, Summary

TOP_WORDS = 12


def write_page(
    folder: Path,
    explanations: Sequence[tuple[Explanation, str]],
    summary: Summary | None,
    facts: dict[str, Any],
) -> None:
    """Writes index.html, every picture as PNG, and every table as CSV.

    Args:
        folder: existing folder.
        explanations: each with the reason of its selection, or an empty string.
        summary: attributions over the data set, if any.
        facts: `title`, and the rows of `about` (name, value), such as command, data and seed.
    """
    environment = pages.environment(Path(__file__).parent)
    environment.filters |= {
        "png": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
        "words": words_html,
        "curve": lambda curves: figure_uri(_draw_curves(curves)),
        "crop": pictures.crop_png,
        "mean_face": mean_face,
    }
    page = environment.get_template("explain.html").render(
        explanations=explanations, summary=summary, top=TOP_WORDS, min_utterances=MIN_UTTERANCES, **facts
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    _write_pictures(folder, [explanation for explanation, _ in explanations])
    if summary is not None:
        _write_tables(folder, summary)


def words_html(attributions: WordAttributions, line: int) -> Markup:
    """Returns the words of a line as HTML, each with its value as background and in numbers."""
    peak = float(np.abs(attributions.values).max(initial=0.0)) or 1.0
    words = []
    for i in (i for i, span in enumerate(attributions.spans) if span.line == line):
        value = float(attributions.values[i])
        red, green, blue = NEUTRAL if not attributions.signed else FOR if value > 0 else AGAINST
        style = f"background: rgba({red}, {green}, {blue}, {0.75 * abs(value) / peak:.2f})"
        number = f"{value:+.2f}" if attributions.signed else pages.percent(value)
        word = Markup('<span class="word" style="{}">{}<small>{}</small></span>')
        words.append(word.format(style, attributions.word(i), number if attributions.read[i] else "not read"))
    return Markup("\n").join(words)


def curve_picture(curves: Curves) -> bytes:
    """Draws deletion and insertion curves with the mean of those that they are compared with, and returns a PNG."""
    return _png(_draw_curves(curves))


@matplotlib.rc_context(FIGURE)
def _draw_curves(curves: Curves) -> Figure:
    figure, grid = plt.subplots(1, 2, figsize=(5.6, 2.2), layout="constrained", sharey=True)
    for axes, name in zip(grid, ("deletion", "insertion"), strict=True):
        axes.plot(curves.fractions, getattr(curves, name), color=FIRST, label="in this order")
        means = getattr(curves, f"random_{name}")
        axes.plot(curves.fractions, means, color=GREY, linestyle="--", label=f"mean of {curves.null}")
        axes.set_title(name, fontsize=9)
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        axes.tick_params(labelsize=8)
    grid[0].set_ylabel("score", fontsize=8)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncol=2, fontsize=8, frameon=False)
    return figure


def mean_face(face: MeanFace) -> bytes:
    """Draws the mean map of a class on its mean crop, and returns a PNG."""
    return pictures.overlay(face.crop, face.values, False, float(face.values.max(initial=0.0)))


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    plt.close(figure)
    return buffer.getvalue()


def _write_pictures(folder: Path, explanations: Sequence[Explanation]) -> None:
    for n, explanation in enumerate(explanations, 1):
        for face_map in explanation.maps:
            name = re.sub(r"\W+", "_", face_map.key)
            for t, data in enumerate(face_map.overlays(explanation.crops), 1):
                (folder / f"{n:02}_{name}_crop{t}.png").write_bytes(data)
            if face_map.curves is not None:
                (folder / f"{n:02}_{name}_curves.png").write_bytes(curve_picture(face_map.curves))
        for attributions in explanation.word_attributions:
            if attributions.curves is not None:
                (folder / f"{n:02}_words_curves.png").write_bytes(curve_picture(attributions.curves))


def _write_tables(folder: Path, summary: Summary) -> None:
    for name, table in (
        ("words", summary.words),
        ("modalities", summary.modalities),
        ("importance", summary.importance),
    ):
        to_csv(table, folder / f"{name}.csv", float_format="%.6g")
    for face in summary.faces:
        (folder / f"mean_face_{re.sub(r'[^a-zA-Z0-9]+', '_', face.label)}.png").write_bytes(mean_face(face))
