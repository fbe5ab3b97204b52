"""Examples of the page: utterances with drawn faces, as in the demo data set."""

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
"""Text, previous utterances, expression of the drawn face (empty: no face), and seed of the drawing."""


def draw_examples(folder: Path) -> tuple[list[list[str | bool | None]], list[str]]:
    """Draws the faces into a folder.

    Returns:
        For each example its text, previous utterances, path of the picture and whether that is a crop; and the labels
        of their buttons.
    """
    rows: list[list[str | bool | None]] = []
    labels = []
    for n, (text, context, expression, seed) in enumerate(EXAMPLES):
        path = folder / f"face_{n}.png" if expression else None
        if path is not None:
            cv2.imwrite(str(path), _draw_face(expression, seed))
        rows.append([text, context, str(path) if path else None, bool(path)])
        face = f"face: {expression}" if expression else "no face"
        labels.append(f"{text or 'No text'} ({face})")
    return rows, labels


def _draw_face(expression: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    face = demo_faces.Face(
        demo_faces.sample_identity(rng), demo_faces.sample_expression(expression, rng), demo_faces.sample_shot(rng)
    )
    return demo_drawing.render_face(face, SIDE)
