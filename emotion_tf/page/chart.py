"""Draws an answer as one picture, for download."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from emotion_tf.evaluation.colours import AGAINST, FOR, hex_code
from emotion_tf.evaluation.figures import plain_text
from emotion_tf.faces import encode
from emotion_tf.page.answer import Answer

PLAIN = "#7f8c99"
MAX_WORDS = 14
MAX_TITLE = 90


def draw_answer(answer: Answer) -> bytes:
    """Draws a PNG: probabilities, words with the largest attributions, face with its map, modalities."""
    panels = [_probabilities, *(draw for draw, is_drawn in _explanation_panels(answer) if is_drawn)]
    # without pyplot, which is not thread-safe
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        panel(axes, answer)
    best = f"{answer.labels[answer.predicted]} {answer.probabilities[answer.predicted]:.1%}"
    text = answer.explanation.utterance.text if answer.explanation else ""
    title = f"{answer.run}: {best if answer.is_sure else f'not sure ({best})'}"
    subtitle = text[:MAX_TITLE] + ("..." if len(text) > MAX_TITLE else "")
    figure.suptitle(plain_text(f"{title}\n{subtitle}" if subtitle else title), fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _explanation_panels(answer: Answer) -> list[tuple[Any, bool]]:
    explanation = answer.explanation
    if explanation is None:
        return []
    return [
        (_words, bool(explanation.words)),
        (_face, bool(explanation.maps)),
        (_modalities, len(explanation.shapley_values) > 1),
    ]


def _bars(axes: Any, names: list[str], values: np.ndarray, colours: list[str], title: str) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), [plain_text(name[:24]) for name in names])
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _probabilities(axes: Any, answer: Answer) -> None:
    colours = [hex_code(FOR) if n == answer.predicted else PLAIN for n in range(len(answer.labels))]
    _bars(axes, list(answer.labels), answer.probabilities, colours, "probabilities")
    axes.set_xlim(0, 1)


def _signed(values: np.ndarray) -> list[str]:
    return [hex_code(FOR if value >= 0 else AGAINST) for value in values]


def _words(axes: Any, answer: Answer) -> None:
    words = answer.explanation.words if answer.explanation else []
    largest = sorted(sorted(range(len(words)), key=lambda n: -abs(words[n][1]))[:MAX_WORDS])
    values = np.array([words[n][1] for n in largest])
    _bars(axes, [words[n][0] for n in largest], values, _signed(values), "words (nats)")


def _face(axes: Any, answer: Answer) -> None:
    if answer.explanation is not None:
        overlay = answer.explanation.maps[0].overlays(answer.explanation.crops)[0]
        axes.imshow(cv2.cvtColor(encode.decode_photo(overlay), cv2.COLOR_BGR2RGB))
        axes.set_title("face", fontsize=10)
    axes.axis("off")


def _modalities(axes: Any, answer: Answer) -> None:
    if answer.explanation is not None:
        shapley_values = answer.explanation.shapley_values
        values = np.array(list(shapley_values.values()))
        title = "modalities (nats)" + ": not to be trusted" * bool(answer.explanation.shapley_notes)
        _bars(axes, list(shapley_values), values, _signed(values), title)
