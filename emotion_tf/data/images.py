"""Face crops: any picture file to a square JPEG once, and JPEGs to pixels inside the graph."""

from __future__ import annotations

import os
from pathlib import Path

# A header can claim billions of pixels: OpenCV must refuse it before it allocates. Read when cv2 is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 1024 * 1024))

import cv2
import numpy as np
import tensorflow as tf

from emotion_tf.errors import UserError

JPEG_QUALITY = 95
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
    pixels = tf.map_fn(
        lambda jpeg: _decode_one(jpeg, face_size),
        real,
        fn_output_signature=tf.TensorSpec((face_size, face_size, 3), tf.uint8),
    )
    shape = tf.concat([tf.shape(face_jpeg), [face_size, face_size, 3]], axis=0)
    faces = tf.scatter_nd(tf.where(mask), tf.cast(pixels, tf.int32), tf.cast(shape, tf.int64))
    faces = tf.ensure_shape(tf.cast(faces, tf.uint8), (None, None, face_size, face_size, 3))
    return {"faces": faces, "face_mask": mask}


def _decode_one(jpeg: tf.Tensor, face_size: int) -> tf.Tensor:
    # the accurate method gives the same pixels on every machine
    pixels = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")

    def resized() -> tf.Tensor:
        return tf.cast(tf.round(tf.image.resize(pixels, (face_size, face_size), antialias=True)), tf.uint8)

    is_crop = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], face_size))
    return tf.ensure_shape(tf.cond(is_crop, lambda: pixels, resized), (face_size, face_size, 3))
