"""Face crops inside the graph: decodes JPEGs, and untrusted pictures. `faces.encode` makes the JPEGs of image files."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from emotion_tf.faces.crops import JPEG_QUALITY
from emotion_tf.pictures import JPEG_BEGINS, PNG_BEGINS

MAX_PIXELS = 4 * 1024 * 1024
"""Largest image that the served model decodes; a face crop has a fiftieth of that."""


def decode_faces(face_jpeg: tf.Tensor, face_size: int) -> dict[str, tf.Tensor]:
    """Decodes JPEGs to the face tower's inputs, inside the graph.

    Args:
        face_jpeg: string (B, T); an empty string is no face.
        face_size: side of the crops in pixels; of other sizes, they are resized as `encode_crop` does.

    Returns:
        faces uint8 (B, T, face_size, face_size, 3), zero for padding, and face_mask bool (B, T).
    """
    mask = tf.not_equal(face_jpeg, "")
    crops = tf.boolean_mask(face_jpeg, mask)
    return {"faces": _scatter(_decode_crops(face_size)(crops), mask, face_size), "face_mask": mask}


@functools.cache
def _decode_crops(face_size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from JPEGs (N,) to pixels, traced once for all data sets."""

    def decode(jpegs: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(lambda jpeg: decode_face(jpeg, face_size), jpegs, fn_output_signature=_pixel_spec(face_size))

    return tf.function(decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)


def decode_pictures(pictures: tf.Tensor, face_size: int) -> dict[str, tf.Tensor]:
    """`decode_faces` for untrusted images: anything but a complete JPEG or PNG of at most `MAX_PIXELS` is no face.

    If one image of a batch cannot be decoded, the images are decoded one by one, which takes three times as long.

    Args:
        pictures: string (B, T); an empty string is no face.
        face_size: side of the crops in pixels; other images are resized as `encode_crop` does.
    """
    is_image = tf.not_equal(pictures, "")

    def together(pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _map_decode(pictures, face_size, _decode_checked)

    def one_by_one(pictures: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _map_decode(pictures, face_size, _decode_or_blank)

    images = tf.data.Dataset.from_tensors(tf.boolean_mask(pictures, is_image))
    decoded = images.map(together).ignore_errors().concatenate(images.map(one_by_one)).take(1)
    pixels, is_valid = decoded.get_single_element()
    mask = tf.scatter_nd(tf.where(is_image), tf.cast(is_valid, tf.int32), tf.shape(is_image, tf.int64)) > 0
    return {"faces": _scatter(pixels, is_image, face_size), "face_mask": tf.ensure_shape(mask, (None, None))}


def _pixel_spec(face_size: int) -> tf.TensorSpec:
    return tf.TensorSpec((face_size, face_size, 3), tf.uint8)


def _scatter(pixels: tf.Tensor, mask: tf.Tensor, face_size: int) -> tf.Tensor:
    """Puts images (N, H, W, 3) where the mask (B, T) is true, and zeros elsewhere."""
    # TensorFlow scatters no uint8, but gathers them: image 0 is black
    number = tf.reshape(tf.cumsum(tf.reshape(tf.cast(mask, tf.int32), [-1])), tf.shape(mask))
    images = tf.concat([tf.zeros((1, face_size, face_size, 3), tf.uint8), pixels], axis=0)
    faces = tf.gather(images, tf.where(mask, number, 0))
    return tf.ensure_shape(faces, (None, None, face_size, face_size, 3))


def _map_decode(
    pictures: tf.Tensor, face_size: int, decode: Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]
) -> tuple[tf.Tensor, tf.Tensor]:
    spec = (_pixel_spec(face_size), tf.TensorSpec((), tf.bool))
    return tf.map_fn(lambda picture: decode(picture, face_size), pictures, fn_output_signature=spec)


def _decode_or_blank(picture: tf.Tensor, face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`_decode_checked`, or black and false for a damaged image."""
    decoded = tf.data.Dataset.from_tensors(picture).map(lambda data: _decode_checked(data, face_size)).ignore_errors()
    return decoded.concatenate(tf.data.Dataset.from_tensors(_blank(face_size))).take(1).get_single_element()


def _decode_checked(picture: tf.Tensor, face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns pixels and true, or black and false for another format or a too large image. A damaged image fails."""
    is_jpeg, is_png = (tf.strings.substr(picture, 0, len(begin)) == begin for begin in (JPEG_BEGINS, PNG_BEGINS))
    # read from the header before memory is allocated for the declared size
    area = tf.case(
        [(is_jpeg, lambda: _jpeg_area(picture)), (is_png, lambda: _png_area(picture))],
        lambda: tf.zeros((), tf.int64),
    )
    fits = tf.logical_and(area > 0, area <= MAX_PIXELS)
    return tf.cond(fits, lambda: (_decode_crop(picture, face_size), True), lambda: _blank(face_size))


def _blank(face_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros((face_size, face_size, 3), tf.uint8), tf.constant(False)


def _jpeg_area(picture: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(picture)[:2], tf.int64))


def _png_area(picture: tf.Tensor) -> tf.Tensor:
    """Returns width times height from the first chunk (PNG specification, 11.2.2)."""
    sides = tf.io.decode_raw(tf.strings.substr(picture, 16, 8), tf.uint8)
    powers = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    # the specification limits each side to less than 2^31, so the product does not overflow
    return tf.reduce_prod(tf.reduce_sum(tf.reshape(tf.cast(sides, tf.int64), (2, 4)) * powers, axis=1) % (1 << 31))


def decode_face(jpeg: tf.Tensor, face_size: int) -> tf.Tensor:
    """Decodes the JPEG of a record, inside the graph. Fails for more than `MAX_PIXELS` before memory is allocated.

    Args:
        jpeg: string ().
        face_size: side of the crop in pixels; another size is resized.

    Returns:
        uint8 (face_size, face_size, 3).
    """
    with tf.control_dependencies([tf.debugging.assert_less_equal(_jpeg_area(jpeg), tf.constant(MAX_PIXELS, tf.int64))]):
        return _decode_crop(jpeg, face_size)


def _decode_crop(picture: tf.Tensor, face_size: int) -> tf.Tensor:
    """Decodes a crop. Another size, or a PNG, becomes what `encode_crop` makes of it, so that both give one answer."""
    pixels = _decode_jpeg(picture)
    is_jpeg = tf.strings.substr(picture, 0, len(JPEG_BEGINS)) == JPEG_BEGINS
    is_crop = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], face_size)) & is_jpeg
    crop = tf.cond(is_crop, lambda: pixels, lambda: _decode_jpeg(_encode_square(pixels, face_size)))
    return tf.ensure_shape(crop, (face_size, face_size, 3))


def _decode_jpeg(picture: tf.Tensor) -> tf.Tensor:
    # the accurate method gives the same pixels on every machine
    return tf.io.decode_jpeg(picture, channels=3, dct_method="INTEGER_ACCURATE")


def _encode_square(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """`faces.crops.encode_square` inside the graph; OpenCV's whole numbers in enlarging differ by one at times."""
    shape = tf.shape(pixels)[:2]
    side = tf.reduce_max(shape)
    new = tf.maximum(1, tf.cast(tf.round(tf.cast(shape * size, tf.float64) / tf.cast(side, tf.float64)), tf.int32))
    resized = tf.cond(
        side > size,
        lambda: tf.image.resize(pixels, new, tf.image.ResizeMethod.AREA),
        lambda: tf.image.resize(pixels, new),
    )
    square = tf.cast(tf.floor(resized + 0.5), tf.uint8)
    for axis in (0, 1):  # pads with the edges
        inside = tf.range(size) - (size - new[axis]) // 2
        square = tf.gather(square, tf.clip_by_value(inside, 0, new[axis] - 1), axis=axis)
    return tf.io.encode_jpeg(square, quality=JPEG_QUALITY)
