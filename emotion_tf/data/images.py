"""Face crops: any picture file to a square JPEG once, and JPEGs to pixels inside the graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# A header can claim billions of pixels: OpenCV must refuse it before it allocates. Read when cv2 is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 1024 * 1024))

import cv2
import numpy as np
import tensorflow as tf

from emotion_tf.errors import UserError

JPEG_QUALITY = 95
MOST_PIXELS = 4 * 1024 * 1024
"""Of a picture that a stranger gives the served model: a face crop has a fiftieth of that."""
JPEG_BEGINS, PNG_BEGINS = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# A picture that cannot be read is told by us, in one line.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def read_crop(path: Path, face_size: int, where: str = "") -> bytes:
    """The picture at `path` as the JPEG of a face crop that `prepare` keeps and the served model takes.

    Args:
        path: a picture in a format that OpenCV reads.
        face_size: side in pixels.
        where: what names this picture to the user (file and row).

    Raises:
        UserError: the file is absent, empty or not a picture.
    """
    return to_crop(_read(path, where), face_size, f"face picture {path}", where)


def to_crop(data: bytes | np.ndarray, face_size: int, name: str = "face", where: str = "") -> bytes:
    """Picture bytes, or RGB pixels uint8 (H, W, 3), as the JPEG of a square crop of `face_size` pixels.

    A JPEG that already has that size is kept byte for byte. A picture that is not square is padded with its edges.

    Raises:
        UserError: not a picture, or pixels of another dtype or shape.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3 or 0 in data.shape:
            raise UserError(
                f"{where}Invalid {name}. Expected uint8 pixels (H, W, 3). Received: {data.dtype} {data.shape}."
            )
        pixels = cv2.cvtColor(data, cv2.COLOR_RGB2BGR)
    else:
        pixels = _decode(data, name, where)
        if pixels.shape[:2] == (face_size, face_size) and _is_whole_jpeg(data):
            return data
    ok, jpeg = cv2.imencode(".jpg", _square(pixels, face_size), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise UserError(f"{where}Cannot write the {name} as JPEG.")
    return jpeg.tobytes()


def read_pixels(path: Path) -> np.ndarray:
    """A picture as it is, upright: uint8 (H, W, 3) BGR.

    Raises:
        UserError: the file is absent, empty or not a picture.
    """
    return _decode(_read(path, ""), f"picture {path}", "")


def decode_photo(data: bytes) -> np.ndarray:
    """The same of a picture's bytes. Raises UserError when they are none."""
    return _decode(data, "picture", "")


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{where}Cannot read the face picture {path}: {error.strerror}. Expected an existing file."
        ) from None


def _decode(data: bytes, name: str, where: str) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        pixels = None
    if pixels is None:
        what = "an empty file" if not data else f"{len(data)} bytes that begin {data[:8]!r}"
        raise UserError(
            f"{where}Cannot decode the {name}. Expected a picture such as JPEG or PNG of at most 64 megapixels. "
            f"Received: {what}."
        )
    return pixels


def _is_whole_jpeg(data: bytes) -> bool:
    # The end marker: a truncated JPEG decodes in OpenCV with a grey rest, and fails in TensorFlow.
    # Exif may turn the picture, which OpenCV heeds and TensorFlow does not.
    return data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9" and b"Exif" not in data[:64]


def _square(pixels: np.ndarray, size: int) -> np.ndarray:
    # resized before it is padded: a strip of 1 x 60,000 pixels must not become 10 GB
    side = max(pixels.shape[:2])
    height, width = (max(1, round(length * size / side)) for length in pixels.shape[:2])
    if side != size:
        shrinks = side > size
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    top, left = (size - height) // 2, (size - width) // 2
    return cv2.copyMakeBorder(pixels, top, size - height - top, left, size - width - left, cv2.BORDER_REPLICATE)


def decode_faces(face_jpeg: tf.Tensor, face_size: int) -> dict[str, tf.Tensor]:
    """JPEGs to the face tower's inputs, inside the graph.

    Args:
        face_jpeg: string (B, T); an empty string is no face.
        face_size: side of the crops in pixels; another size is resized.

    Returns:
        faces uint8 (B, T, face_size, face_size, 3), zero where there is none, and face_mask bool (B, T).
    """
    mask = tf.not_equal(face_jpeg, "")
    real = tf.boolean_mask(face_jpeg, mask)
    pixels = tf.map_fn(lambda jpeg: _decode_one(jpeg, face_size), real, fn_output_signature=_pixels(face_size))
    return {"faces": _in_place(pixels, mask, face_size), "face_mask": mask}


def decode_pictures(pictures: tf.Tensor, face_size: int) -> dict[str, tf.Tensor]:
    """The same for pictures from anywhere: what is no whole JPEG or PNG of at most `MOST_PIXELS` counts as no face.

    Each picture is looked at by itself only where one of the batch cannot be decoded: that takes three times as long.

    Args:
        pictures: string (B, T); an empty string is no face.
        face_size: side of the crops in pixels; another size is resized.
    """
    given = tf.not_equal(pictures, "")

    def together(pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _each(pictures, face_size, _decode_checked)

    def one_by_one(pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _each(pictures, face_size, _decode_or_none)

    real = tf.data.Dataset.from_tensors(tf.boolean_mask(pictures, given))
    found = real.map(together).ignore_errors().concatenate(real.map(one_by_one)).take(1)
    pixels, whole = found.get_single_element()
    mask = tf.scatter_nd(tf.where(given), tf.cast(whole, tf.int32), tf.shape(given, tf.int64)) > 0
    return {"faces": _in_place(pixels, given, face_size), "face_mask": tf.ensure_shape(mask, (None, None))}


def _pixels(face_size: int) -> tf.TensorSpec:
    return tf.TensorSpec((face_size, face_size, 3), tf.uint8)


def _in_place(pixels: tf.Tensor, mask: tf.Tensor, face_size: int) -> tf.Tensor:
    """Pictures (N, H, W, 3) where the mask (B, T) holds, zero elsewhere."""
    shape = tf.concat([tf.shape(mask), [face_size, face_size, 3]], axis=0)
    faces = tf.scatter_nd(tf.where(mask), tf.cast(pixels, tf.int32), tf.cast(shape, tf.int64))
    return tf.ensure_shape(tf.cast(faces, tf.uint8), (None, None, face_size, face_size, 3))


def _each(
    pictures: tf.Tensor, face_size: int, decode: Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    spec = (_pixels(face_size), tf.TensorSpec((), tf.bool))
    return tf.map_fn(lambda picture: decode(picture, face_size), pictures, fn_output_signature=spec)


def _decode_or_none(picture: tf.Tensor, face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """As `_decode_checked`, whatever the bytes are."""
    found = tf.data.Dataset.from_tensors(picture).map(lambda data: _decode_checked(data, face_size)).ignore_errors()
    return found.concatenate(tf.data.Dataset.from_tensors(_none(face_size))).take(1).get_single_element()


def _decode_checked(picture: tf.Tensor, face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Pixels and true; black and false for another format or too large a picture. A damaged one is an error."""
    is_jpeg, is_png = (tf.strings.substr(picture, 0, len(begin)) == begin for begin in (JPEG_BEGINS, PNG_BEGINS))
    # read from the header, before memory is taken for what it claims
    area = tf.case(
        [(is_jpeg, lambda: _jpeg_area(picture)), (is_png, lambda: _png_area(picture))],
        lambda: tf.zeros((), tf.int64),
    )
    fits = tf.logical_and(area > 0, area <= MOST_PIXELS)
    return tf.cond(fits, lambda: (_decode_one(picture, face_size), True), lambda: _none(face_size))


def _none(face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros((face_size, face_size, 3), tf.uint8), tf.constant(False)


def _jpeg_area(picture: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(picture)[:2], tf.int64))


def _png_area(picture: tf.Tensor) -> tf.Tensor:
    """Width times height, which stand in the first chunk (PNG specification, 11.2.2)."""
    sides = tf.io.decode_raw(tf.strings.substr(picture, 16, 8), tf.uint8)
    powers = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    # below 2^31 each, as the specification demands; so their product does not overflow
    return tf.reduce_prod(tf.reduce_sum(tf.reshape(tf.cast(sides, tf.int64), (2, 4)) * powers, axis=1) % (1 << 31))


def _decode_one(jpeg: tf.Tensor, face_size: int) -> tf.Tensor:
    # the accurate method gives the same pixels on every machine
    pixels = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")

    def resized() -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(pixels, (face_size, face_size), antialias=True)), tf.uint8)

    is_crop = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], face_size))
    return tf.ensure_shape(tf.cond(is_crop, lambda: pixels, resized), (face_size, face_size, 3))
