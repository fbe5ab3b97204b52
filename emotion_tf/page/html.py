"""Answers as pieces of HTML for the page. All that visitors gave is escaped by the templates."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from emotion_tf.evaluation.pages import image_uri
from emotion_tf.faces.candidates import Candidates
from emotion_tf.interpret.pictures import crop_png
from emotion_tf.interpret.render import words_html
from emotion_tf.page.answer import Answer
from emotion_tf.page.chart import draw
from emotion_tf.page.film import FilmAnswer

COLOURS = ("#1f77b4", "#b45f06", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#c2399b", "#7f7f7f")
"""Of the classes, in their order, in a film's timeline."""


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _download(data: bytes, name: str, said: str) -> Markup:
    kind = {"png": "image/png", "csv": "text/csv"}[name.rsplit(".", 1)[1]]
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return Markup('<a class="download" download="{}" href="{}">{}</a>').format(name, address, said)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "picture": image_uri,
        "crop": lambda crop: image_uri(crop_png(crop)),
        "words": words_html,
        "clock": _clock,
        "download": _download,
    }
    return environment


ENVIRONMENT = _environment()


def answers_html(answers: Sequence[Answer | str]) -> str:
    """Answers side by side; a string stands in for the answer of a run that has none."""
    shown = []
    for one in answers:
        files = [] if isinstance(one, str) else [(one.table().to_csv(index=False).encode(), "csv"), (draw(one), "png")]
        shown.append((None if isinstance(one, str) else one, one if isinstance(one, str) else "", files))
    return ENVIRONMENT.get_template("answer.html").render(shown=shown)


def film_html(film: FilmAnswer) -> str:
    """The timeline of a film, and for each of its utterances what is shown when it is chosen."""
    found = film.prediction
    end = max(line.end for line in found.lines)
    rows = [
        {
            "line": line,
            "face": one.jpegs[len(one.jpegs) // 2] if one.jpegs else b"",
            "probabilities": [float(p) for p in probabilities],
            "best": int(probabilities.argmax()),
            "sure": float(probabilities.max()) >= film.threshold,
        }
        for line, one, probabilities in zip(found.lines, found.faces, found.probabilities, strict=True)
    ]
    return ENVIRONMENT.get_template("film.html").render(film=film, rows=rows, end=end, colours=COLOURS)


def faces_html(found: Candidates, name: str) -> str:
    """Where faces were found, or the sentence that there is none."""
    return ENVIRONMENT.get_template("faces.html").render(found=found, name=name)


def notice(text: str) -> str:
    """A sentence to the visitor in place of an answer."""
    return ENVIRONMENT.from_string('<p class="notice">{{ text }}</p>').render(text=text)
