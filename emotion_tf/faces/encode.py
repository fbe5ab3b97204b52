"""Image files as pixels and as the square JPEGs of face crops, by OpenCV alone: a client needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from emotion_tf import files, pictures
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import encode_square
from emotion_tf.pictures import JPEG_BEGINS

MAX_BYTES = 256 * 1024 * 1024
"""Largest image file that is read: what `pictures.MAX_PIXELS` take uncompressed."""


def read_crop(path: Path, face_size: int, where: str = "") -> bytes:
    """Reads an image file as the JPEG of a face crop, as `prepare` stores it and the served model takes it.

    Args:
        path: an image in one of the `pictures.FORMATS`.
        face_size: side of the crop in pixels.
        where: prefix of error messages (file and row).

    Raises:
        UserError: the file does not exist, is empty, or is not an image.
    """
    return encode_crop(read(path, where), face_size, f"face picture {path}", where)


def encode_crop(data: bytes | np.ndarray, face_size: int, name: str = "face", where: str = "") -> bytes:
    """Encodes the bytes of an image file, or RGB pixels uint8 (H, W, 3), as the JPEG of a square crop.

    A JPEG that already has `face_size` pixels is returned unchanged, unless decoders may read it in different ways. An
    image that is not square is padded with its border.

    Raises:
        UserError: `data` is not an image, or pixels of another dtype or shape.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape:
            raise UserError(
                f"{where}Invalid {name}. Expected uint8 pixels (H, W, 3). Received: {data.dtype} {data.shape}."
            )
        pixels = cv2.cvtColor(data, cv2.COLOR_RGB2BGR)
    else:
        pixels = _decode(data, name, where)
        if pictures.jpeg_size(data) == pixels.shape[:2] == (face_size, face_size) and _is_complete_jpeg(data):
            return data
    return encode_square(pixels, face_size)


def read_pixels(path: Path) -> np.ndarray:
    """Reads an image file at its own size, upright: uint8 (H, W, 3) BGR.

    Raises:
        UserError: the file does not exist, is empty, or is not an image.
    """
    return _decode(read(path), f"picture {path}", "")


def decode_photo(data: bytes) -> np.ndarray:
    """`read_pixels` for the bytes of an image file. Raises UserError if they are not an image."""
    return _decode(data, "picture", "")


def read(path: Path, where: str = "") -> bytes:
    """Returns the content of an image file. Raises UserError if it does not exist or is too large."""
    return files.read_regular(path, MAX_BYTES, "face picture", f"a file of at most {MAX_BYTES >> 20} MB", where)


def _decode(data: bytes, name: str, where: str) -> np.ndarray:
    try:
        return pictures.decode(data)
    except ValueError as error:
        raise UserError(
            f"{where}Cannot decode the {name}. Expected {pictures.FORMATS} of at most {pictures.MAX_PIXELS >> 20} "
            f"megapixels. Received: {error}."
        ) from None


def _is_complete_jpeg(data: bytes) -> bool:
    # Without the end marker, OpenCV fills the missing part with grey, but TensorFlow fails.
    # OpenCV applies a rotation in the Exif data, TensorFlow does not.
    return data.startswith(JPEG_BEGINS) and data[-2:] == b"\xff\xd9" and b"Exif" not in data[:64]
