"""Examples to click: utterances with faces that the project draws itself, as for the demo data set."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from emotion_tf.data import demo_drawing, demo_faces

SIDE = 160
EXAMPLES = (
    ("You did it! This is the best day of my life!", "Ada: The letter came.", "joy", 3),
    ("I can't believe you read my diary.", "Ben: I only looked at the first page.", "anger", 5),
    ("Fine.", "Ada: We have to leave in five minutes.", "sadness", 8),
    ("What was that noise?", "", "fear", 13),
    ("", "", "surprise", 21),
    ("I don't know what to say.", "Ben: I am moving out.", "", 0),
)
"""Utterance, what was said before, the expression that is drawn (none: no face), and the seed of the drawing."""


def draw_examples(folder: Path) -> tuple[list[list[str | bool | None]], list[str]]:
    """Draws the faces into a folder.

    Returns:
        Of each example the utterance, what was said before, the picture's path, and that it is a crop already; and what
        is written on its button.
    """
    rows: list[list[str | bool | None]] = []
    labels = []
    for n, (text, past, kind, seed) in enumerate(EXAMPLES):
        path = folder / f"face_{n}.png" if kind else None
        if path is not None:
            cv2.imwrite(str(path), _drawn(kind, seed))
        rows.append([text, past, str(path) if path else None, bool(path)])
        face = f"a face of {kind}" if kind else "no face"
        labels.append(f"{text or 'No words'} / {face}")
    return rows, labels


def _drawn(kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    face = demo_faces.Face(
        demo_faces.sample_identity(rng), demo_faces.sample_expression(kind, rng), demo_faces.sample_shot(rng)
    )
    return demo_drawing.render_face(face, SIDE)
