"""Utterances as callers pass them (strings, paths, bytes, pixels), to the strings that a `Preprocessor` reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.faces import encode

Face = str | Path | bytes | np.ndarray
"""An aligned face crop: path or bytes of an image file, or RGB pixels uint8 (H, W, 3)."""


def encode_faces(faces: Face | Sequence[Face] | None, size: int, row: int = 0) -> list[bytes]:
    """Returns one face crop, several or none as JPEGs of `size` pixels.

    Raises:
        UserError: an image cannot be read, or is neither a path, bytes nor pixels. The message names the `row` of the
            utterance.
    """
    if faces is None:
        return []
    if isinstance(faces, (str, bytes, np.ndarray)) or not isinstance(faces, Iterable):
        return [_encode_face(faces, size, row)]
    return [_encode_face(face, size, row) for face in faces]


def _encode_face(face: Any, size: int, row: int) -> bytes:
    if isinstance(face, (str, Path)):
        return encode.read_crop(Path(face), size)
    if isinstance(face, (bytes, np.ndarray)):
        return encode.encode_crop(face, size, f"face of row {row}")
    raise UserError(
        f"Invalid face of row {row}. Expected the path or the bytes of a picture, or uint8 pixels (H, W, 3); None if "
        f"there is no face. Received: {face!r:.80}."
    )


def pad_rows(rows: Sequence[Sequence[Any]], filler: Any, least: int = 1) -> list[list[Any]]:
    """Pads rows with `filler` to the length of the longest row, and to `least` at least."""
    width = max(least, max(len(row) for row in rows))
    return [[*row, *[filler] * (width - len(row))] for row in rows]
