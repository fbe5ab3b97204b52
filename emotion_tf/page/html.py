"""Answers as HTML fragments of the page. The templates escape all that visitors entered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from emotion_tf.evaluation.csv_tables import to_csv
from emotion_tf.evaluation.pages import image_uri
from emotion_tf.faces.candidates import Candidates
from emotion_tf.interpret.pictures import crop_png
from emotion_tf.interpret.render import words_html
from emotion_tf.page.answer import Answer
from emotion_tf.page.chart import draw_answer
from emotion_tf.page.film import FilmAnswer
from emotion_tf.wording import plural

TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MOST_TICKS = 6


def _clock(seconds: float) -> str:
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _ticks(end: float) -> list[int]:
    """Returns the times of a scale that ends at `end` seconds, at most `MOST_TICKS` with round steps."""
    step = next((step for step in TICK_SECONDS if end / step < MOST_TICKS), int(end / MOST_TICKS) + 1)
    # the label of a later tick would stand out of the page
    return [tick for tick in range(0, int(end) + 1, step) if tick <= 0.97 * end]


def _download(data: bytes, name: str, label: str) -> Markup:
    kind = {"png": "image/png", "csv": "text/csv"}[name.rsplit(".", 1)[1]]
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return Markup('<a class="download" download="{}" href="{}">{}</a>').format(name, address, label)


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
        "plural": plural,
    }
    return environment


ENVIRONMENT = _environment()


def answers_html(answers: Sequence[Answer | str]) -> str:
    """Renders answers side by side; a string is the problem of a run without an answer."""
    rows: list[tuple[Answer | None, str, list[tuple[bytes, str]]]] = []
    for answer in answers:
        if isinstance(answer, str):
            rows.append((None, answer, []))
        else:
            files = [(to_csv(answer.table()).encode(), "csv"), (draw_answer(answer), "png")]
            rows.append((answer, "", files))
    return ENVIRONMENT.get_template("answer.html").render(rows=rows)


def film_html(film: FilmAnswer) -> str:
    """Renders the timeline of a film, and the details of each subtitle, which are shown when it is selected."""
    prediction = film.prediction
    end = max(subtitle.end for subtitle in prediction.subtitles)
    rows = [
        {
            "subtitle": subtitle,
            "face": crops.jpegs[len(crops.jpegs) // 2] if crops.jpegs else b"",
            "probabilities": [float(p) for p in probabilities],
            "predicted": int(predicted),
            "sure": float(probabilities[predicted]) >= film.threshold,
        }
        for subtitle, crops, predicted, probabilities in zip(
            prediction.subtitles, prediction.faces, prediction.predicted, prediction.probabilities, strict=True
        )
    ]
    return ENVIRONMENT.get_template("film.html").render(film=film, rows=rows, end=end, ticks=_ticks(end))


def faces_html(candidates: Candidates, name: str) -> str:
    """Renders where faces were found, or that none was found."""
    return ENVIRONMENT.get_template("faces.html").render(candidates=candidates, name=name)


def notice(text: str) -> str:
    """Renders a message in place of an answer."""
    return ENVIRONMENT.from_string('<p class="notice">{{ text }}</p>').render(text=text)
