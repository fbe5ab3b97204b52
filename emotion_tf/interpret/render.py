"""Explanations as one self-contained HTML page, with the pictures beside it as PNG and the tables as CSV."""

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
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from emotion_tf.interpret import pictures
from emotion_tf.interpret.kinds import Curves, Explanation, Strip
from emotion_tf.interpret.summary import FEWEST, FaceOfClass, Summary

TOP_WORDS = 12
FOR, AGAINST, NEUTRAL = (214, 69, 55), (52, 110, 191), (120, 120, 120)


def write_page(
    folder: Path,
    explanations: Sequence[tuple[Explanation, str]],
    summary: Summary | None,
    facts: dict[str, Any],
) -> None:
    """Writes index.html, and beside it every picture as PNG and every table as CSV.

    Args:
        folder: where to; it exists.
        explanations: each with why it was chosen, or nothing.
        summary: of the whole data set, where there is one.
        facts: `title`, and the rows of `about` (name, value): command, data, seed and so on.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "png": lambda data: "data:image/png;base64," + base64.b64encode(data).decode(),
        "words": words_html,
        "curve": curve_picture,
        "crop": pictures.picture,
        "mean_face": mean_face,
    }
    page = environment.get_template("explain.html").render(
        explanations=explanations, summary=summary, top=TOP_WORDS, fewest=FEWEST, **facts
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    _write_pictures(folder, [one for one, _ in explanations])
    if summary is not None:
        _write_tables(folder, summary)


def words_html(strip: Strip, line: int) -> Markup:
    """A line of a strip: each word on a ground as strong as its number, the number below it."""
    spans = [(i, span) for i, span in enumerate(strip.spans) if span.line == line]
    peak = float(np.abs(strip.values).max(initial=0.0)) or 1.0
    made = []
    for i, _ in spans:
        value = float(strip.values[i])
        red, green, blue = NEUTRAL if not strip.signed else FOR if value > 0 else AGAINST
        ground = f"background: rgba({red}, {green}, {blue}, {0.75 * abs(value) / peak:.2f})"
        number = (f"{value:+.2f}" if strip.signed else f"{value:.0%}") if strip.read[i] else "not read"
        word = Markup('<span class="word" style="{}">{}<small>{}</small></span>')
        made.append(word.format(ground, strip.word(i), number))
    return Markup("\n").join(made)


def curve_picture(curves: Curves) -> bytes:
    """Both curves beside those of random orders, PNG."""
    figure, grid = plt.subplots(1, 2, figsize=(5.2, 1.9), layout="constrained", sharey=True)
    for axes, name in zip(grid, ("deletion", "insertion"), strict=True):
        axes.plot(curves.fractions, getattr(curves, name), color="#d64537", label="in this order")
        axes.plot(curves.fractions, getattr(curves, f"random_{name}"), color="#888", linestyle="--", label="at random")
        axes.set_title({"deletion": "taken away", "insertion": "put back"}[name], fontsize=9)
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
        axes.tick_params(labelsize=8)
    grid[0].set_ylabel("score", fontsize=8)
    grid[0].legend(fontsize=7, frameon=False)
    return _png(figure)


def mean_face(face: FaceOfClass) -> bytes:
    """The mean map of a class on its mean crop, PNG."""
    return pictures.overlay(face.crop, face.values, False, float(face.values.max(initial=0.0)))


def _png(figure: Any) -> bytes:
    made = io.BytesIO()
    figure.savefig(made, dpi=110, format="png")
    plt.close(figure)
    return made.getvalue()


def _write_pictures(folder: Path, explanations: Sequence[Explanation]) -> None:
    for n, one in enumerate(explanations, 1):
        for seen in one.maps:
            name = re.sub(r"\W+", "_", seen.key)
            for t, data in enumerate(seen.overlays(one.crops), 1):
                (folder / f"{n:02}_{name}_crop{t}.png").write_bytes(data)
            if seen.curves is not None:
                (folder / f"{n:02}_{name}_curves.png").write_bytes(curve_picture(seen.curves))
        for strip in one.strips:
            if strip.curves is not None:
                (folder / f"{n:02}_words_curves.png").write_bytes(curve_picture(strip.curves))


def _write_tables(folder: Path, summary: Summary) -> None:
    for name, table in (("words", summary.words), ("modalities", summary.shares), ("importance", summary.importance)):
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    for face in summary.faces:
        (folder / f"mean_face_{re.sub(r'[^a-zA-Z0-9]+', '_', face.label)}.png").write_bytes(mean_face(face))
