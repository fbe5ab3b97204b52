"""Utterances as callers pass them (strings, paths, bytes, pixels), to the strings that a `Preprocessor` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf.faces import encode

Face = str | Path | bytes | np.ndarray
"""An aligned face crop: path or bytes of an image file, or RGB pixels uint8 (H, W, 3)."""


def encode_faces(faces: Face | Sequence[Face] | None, size: int, row: int = 0) -> list[bytes]:
    """Returns one face crop, several or none as JPEGs of `size` pixels.

    Raises:
        UserError: an image cannot be read. The message names the `row` of the utterance.
    """
    if faces is None:
        return []
    crops = [faces] if isinstance(faces, (str, Path, bytes, np.ndarray)) else list(faces)
    return [
        encode.read_crop(Path(crop), size)
        if isinstance(crop, (str, Path))
        else encode.encode_crop(crop, size, f"face of row {row}")
        for crop in crops
    ]


def pad_rows(rows: Sequence[Sequence[Any]], filler: Any, least: int = 1) -> list[list[Any]]:
    """Pads rows with `filler` to the length of the longest row, and to `least` at least."""
    width = max(least, max(len(row) for row in rows))
    return [[*row, *[filler] * (width - len(row))] for row in rows]
