"""An answer as one picture, to keep or to show."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from emotion_tf.page.answer import Answer

FOR, AGAINST, PLAIN = "#d64537", "#346ebf", "#7f8c99"
MOST_WORDS = 14
LONGEST = 90


def draw(answer: Answer) -> bytes:
    """PNG of an answer: probabilities, the words that moved it most, the face with its map, and the modalities."""
    panels = [_probabilities, *(draw for draw, has in _explained(answer) if has)]
    # without pyplot, whose list of figures is one for all threads
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        panel(axes, answer)
    best = f"{answer.labels[answer.best]} {answer.probabilities[answer.best]:.1%}"
    said = answer.explanation.utterance.text if answer.explanation else ""
    title = f"{answer.run}: {best if answer.is_sure else f'not sure ({best})'}"
    # a $ would begin a formula, and fonts have no glyph for every sign
    shown = (said[:LONGEST] + ("..." if len(said) > LONGEST else "")).replace("$", r"\$")
    figure.suptitle(f"{title}\n{shown}" if shown else title, fontsize=11)
    made = io.BytesIO()
    figure.savefig(made, dpi=110, format="png")
    return made.getvalue()


def _explained(answer: Answer) -> list[tuple[Any, bool]]:
    found = answer.explanation
    if found is None:
        return []
    return [(_words, bool(found.words)), (_face, bool(found.maps)), (_modalities, len(found.shapley_values) > 1)]


def _bars(axes: Any, names: list[str], values: np.ndarray, colours: list[str], title: str) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$")[:24] for name in names])
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _probabilities(axes: Any, answer: Answer) -> None:
    colours = [FOR if n == answer.best else PLAIN for n in range(len(answer.labels))]
    _bars(axes, list(answer.labels), answer.probabilities, colours, "probabilities")
    axes.set_xlim(0, 1)


def _signed(values: np.ndarray) -> list[str]:
    return [FOR if value >= 0 else AGAINST for value in values]


def _words(axes: Any, answer: Answer) -> None:
    words = answer.explanation.words if answer.explanation else []
    kept = sorted(sorted(range(len(words)), key=lambda n: -abs(words[n][1]))[:MOST_WORDS])
    values = np.array([words[n][1] for n in kept])
    _bars(axes, [words[n][0] for n in kept], values, _signed(values), "words (nats)")


def _face(axes: Any, answer: Answer) -> None:
    if answer.explanation is not None:
        overlay = answer.explanation.maps[0].overlays(answer.explanation.crops)[0]
        axes.imshow(cv2.cvtColor(cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
        axes.set_title("face", fontsize=10)
    axes.axis("off")


def _modalities(axes: Any, answer: Answer) -> None:
    shares = answer.explanation.shapley_values if answer.explanation else {}
    values = np.array(list(shares.values()))
    _bars(axes, list(shares), values, _signed(values), "modalities (nats)")
