"""Encoding of face crops, and their decoding inside the graph."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import hostile_pictures
import numpy as np
import pytest
import tensorflow as tf
from small_tables import write_picture

from emotion_tf.data import images
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.pictures import jpeg_size

SIZE = 32


def jpeg(size=SIZE, seed=0, grey=False) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3) if grey else (3, 3, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(coarse, (size, size)), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def pixels(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_decode_faces_puts_each_picture_at_its_position():
    decoded = images.decode_faces(tf.constant([[jpeg(seed=1), b""], [b"", b""], [b"", jpeg(seed=2)]]), SIZE)
    faces, mask = decoded["faces"].numpy(), decoded["face_mask"].numpy()
    assert faces.shape == (3, 2, SIZE, SIZE, 3) and faces.dtype == np.uint8
    assert mask.tolist() == [[True, False], [False, False], [False, True]]
    assert not faces[~mask].any()
    for (i, j), seed in (((0, 0), 1), ((2, 1), 2)):
        assert np.abs(faces[i, j].astype(int) - pixels(jpeg(seed=seed))).max() <= 3  # RGB, up to the decoder's rounding


@pytest.mark.parametrize("shape", [(2, 3), (0, 1), (1, 0)])
def test_decode_faces_without_any_face(shape):
    decoded = images.decode_faces(tf.fill(shape, ""), SIZE)
    assert decoded["faces"].shape == (*shape, SIZE, SIZE, 3) and not decoded["face_mask"].numpy().any()


def test_decode_faces_in_a_graph_for_any_batch():
    decode = tf.function(
        lambda x: images.decode_faces(x, SIZE), input_signature=[tf.TensorSpec((None, None), tf.string)]
    )
    for batch in ([[jpeg()]], [[b"", jpeg(seed=4)]] * 3):
        eager = images.decode_faces(tf.constant(batch), SIZE)["faces"]
        np.testing.assert_array_equal(decode(tf.constant(batch))["faces"], eager)


def test_decode_faces_fills_grey():
    faces = images.decode_faces(tf.constant([[jpeg(grey=True)]]), SIZE)["faces"].numpy()[0]
    assert (faces[0] == faces[0][..., :1]).all() and faces[0].std() > 5


def picture(height, width, kind=".jpg"):
    coarse = np.random.default_rng(height).integers(0, 256, (7, 7, 3), np.uint8)
    return cv2.imencode(kind, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (picture(SIZE, SIZE, ".png"), 0),
        (picture(2 * SIZE, 2 * SIZE), 0),
        (picture(112, 112, ".png"), 3),  # halves are rounded up or to even
        (picture(48, 80), 3),
        (picture(90, 33), 3),
        (picture(3, 300), 3),
        (picture(20, 20), 8),  # OpenCV enlarges in whole numbers
        (picture(SIZE, 20), 0),
    ],
)
def test_a_picture_gives_the_same_crop_in_the_graph_and_outside(data, tolerance):
    inside = images.decode_pictures(tf.constant([[data]]), SIZE)["faces"].numpy()[0, 0]
    outside = images.decode_faces(tf.constant([[encode.encode_crop(data, SIZE)]]), SIZE)["faces"].numpy()[0, 0]
    assert np.abs(inside.astype(int) - outside).max() <= tolerance and inside.std() > 20


def test_a_jpeg_of_the_same_size_is_unchanged(tmp_path):
    path = write_picture(tmp_path / "a.jpg")
    assert encode.read_crop(path, SIZE) == path.read_bytes()
    assert encode.read_crop(path, 16) != path.read_bytes()
    assert encode.encode_crop(jpeg(grey=True), SIZE) == jpeg(grey=True)


@pytest.mark.parametrize("data", [jpeg()[:-40], jpeg() + b"\0\0", jpeg()[:20] + b"Exif" + jpeg()[24:]])
def test_a_jpeg_that_tensorflow_may_read_otherwise_is_encoded_again(data):
    try:
        crop = encode.encode_crop(data, SIZE)
    except UserError:
        return  # OpenCV cannot read it either
    assert crop != data
    tf.io.decode_jpeg(crop)


@pytest.mark.parametrize("filler", [b"\xff", b"\0"])
def test_a_jpeg_with_bytes_that_decoders_skip_is_encoded_again(filler):
    """The check of records would refuse it."""
    data = jpeg()[:2] + filler + jpeg()[2:]
    try:
        crop = encode.encode_crop(data, SIZE)
    except UserError:
        assert filler == b"\0"  # no JPEG by its first bytes
        return
    assert crop != data and jpeg_size(crop) == (SIZE, SIZE)
    assert np.abs(pixels(crop).astype(int) - pixels(jpeg())).mean() < 2


def test_a_png_with_alpha_loses_it(tmp_path):
    bgra = np.full((SIZE, SIZE, 4), (10, 120, 240, 128), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), bgra)
    crop = tf.io.decode_jpeg(encode.read_crop(tmp_path / "a.png", SIZE)).numpy()
    assert crop.shape == (SIZE, SIZE, 3)
    assert np.abs(crop.astype(int) - (240, 120, 10)).max() <= 4


@pytest.mark.parametrize("depth", [np.uint16, np.uint8])
def test_a_grey_or_deep_png(depth, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 9), np.iinfo(depth).max // 2, depth))
    crop = pixels(encode.read_crop(tmp_path / "a.png", SIZE))
    assert crop.shape == (SIZE, SIZE, 3) and np.abs(crop.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(16, 48), (48, 16), (31, 32)])
def test_a_picture_that_is_not_square_is_padded_with_its_edges(height, width):
    picture = np.full((height, width, 3), 200, np.uint8)
    picture[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = 0
    crop = pixels(encode.encode_crop(picture, SIZE)).astype(int)
    assert crop.shape == (SIZE, SIZE, 3)
    assert abs(crop[0].mean() - 200) < 8 and abs(crop[:, -1].mean() - 200) < 8
    dark = np.argwhere(crop[..., 0] < 150)
    assert len(dark) and np.abs(dark.mean(axis=0) - (SIZE - 1) / 2).max() < 1.5
    spread = np.ptp(dark, axis=0) + 1
    assert abs(int(spread[0]) - int(spread[1])) <= 1  # not squeezed


def test_a_thin_strip_costs_no_memory():
    """1 x 60,000 pixels, padded to a square before they are resized, would be 10 GB."""
    crop = encode.encode_crop(np.full((1, 60_000, 3), 90, np.uint8), SIZE)
    assert np.abs(pixels(crop).astype(int) - 90).max() <= 2


def test_pixels_are_rgb():
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[..., 0] = 255
    crop = tf.io.decode_jpeg(encode.encode_crop(picture, SIZE)).numpy()
    assert crop[..., 0].min() > 240 and crop[..., 2].max() < 15


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_pixels_of_another_dtype_or_shape(bad):
    with pytest.raises(UserError, match=r"Invalid row 3. Expected uint8 pixels \(H, W, 3\)"):
        encode.encode_crop(bad, SIZE, "row 3")


def huge_png() -> bytes:
    """Returns a PNG whose header declares 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\xff\xd8\xff", b"\xff\xd8\xff\xd9", b"\x89PNG\r\n\x1a\n", b"GIF89a", huge_png()],
    ids=["empty", "text", "jpeg start", "jpeg ends", "png start", "gif start", "huge png"],
)  # fmt: skip
def test_invalid_pictures(content, tmp_path):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match="Cannot decode") as caught:
        encode.read_crop(path, SIZE, "m.csv: line 9: ")
    message = str(caught.value)
    assert message.startswith("m.csv: line 9: ") and str(path) in message and "\n" not in message


def test_no_file_and_a_folder(tmp_path):
    for path, reason in ((tmp_path / "none.jpg", "No such file"), (tmp_path, "Not a regular file")):
        with pytest.raises(UserError, match=reason):
            encode.read_crop(path, SIZE)


def test_the_graph_decodes_no_png_that_hides_its_size():
    """libpng skips an unknown chunk before the header, in whose place a small size may stand."""
    side = 2100
    pictures = tf.constant([[hostile_pictures.hidden_png(side), hostile_pictures.complete_png(64)]])
    assert images.decode_pictures(pictures, SIZE)["face_mask"].numpy().tolist() == [[False, True]]


def test_a_record_with_a_large_jpeg_fails_before_it_is_decoded():
    with pytest.raises(tf.errors.InvalidArgumentError, match="9000000"):
        images.decode_faces(tf.constant([[hostile_pictures.jpeg(3000)]]), SIZE)


def test_a_device_is_not_read(tmp_path):
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        if not path.exists():
            os.mkfifo(path)
        with pytest.raises(UserError, match="Not a regular file"):
            encode.read_crop(path, SIZE)
