"""What somebody gives as an utterance, to the strings that a `Preprocessor` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.data import images

Face = str | Path | bytes | np.ndarray
"""An aligned face crop: a picture's path, its bytes, or RGB pixels uint8 (H, W, 3)."""


def crops(face: Face | Sequence[Face] | None, size: int, row: int = 0) -> list[bytes]:
    """One crop, several or none, as JPEGs of `size` pixels.

    Raises:
        UserError: a picture that cannot be read; `row` names its utterance.
    """
    if face is None:
        return []
    several = [face] if isinstance(face, (str, Path, bytes, np.ndarray)) else list(face)
    return [
        images.read_crop(Path(one), size)
        if isinstance(one, (str, Path))
        else images.to_crop(one, size, f"face of row {row}")
        for one in several
    ]


def padded(rows: Sequence[Sequence[Any]], filler: str | bytes) -> tf.Tensor:
    """Rows of several strings as one tensor (B, N); N is at least 1, `filler` stands where there is none."""
    return tf.constant(filled(rows, filler))


def filled(rows: Sequence[Sequence[Any]], filler: Any, least: int = 1) -> list[list[Any]]:
    """Rows of several things, each as long as the longest and at least `least`, filled up at their end."""
    width = max(least, max(len(row) for row in rows))
    return [[*row, *[filler] * (width - len(row))] for row in rows]
