"""Decoding of pictures from elsewhere: the header is checked before a decoder allocates memory.

Pillow reads the header and OpenCV decodes. Both take the format from the first bytes, and only the formats of `HEADERS`
are decoded, so that one cannot take a file for another format than the other does. OpenCV has a limit of its own as
well, which `emotion_tf/__init__.py` sets.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings

import cv2
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from emotion_tf.streams import silent_libraries

MAX_PIXELS = 64 * 1024 * 1024
MAX_SCAN_PIXELS = 16 * MAX_PIXELS
"""Largest number of pixels times scans of a progressive JPEG: each scan takes as long as the whole picture."""
JPEG_BEGINS = b"\xff\xd8\xff"
PNG_BEGINS = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
"""The header chunk belongs to it: libpng skips unknown chunks before the header."""
PNG_SIGNATURE_BYTES = 8
PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
"""Chunks without which an animated PNG is its still picture (PNG, third edition, 11.3.6)."""
FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xDB), 0xFF}
"""Markers that are no segment, and 0xDA, at which the compressed data begin."""
HEADERS: dict[bytes, type[ImageFile]] = {
    JPEG_BEGINS: JpegImageFile,
    PNG_BEGINS: PngImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"RIFF": WebPImageFile,
}
"""First bytes of a file -> Pillow's reader of the header."""
FORMATS = "JPEG, PNG, WebP, TIFF, GIF or BMP"
# Our own errors report damaged pictures.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(data: bytes) -> np.ndarray:
    """Decodes a picture, upright: uint8 (H, W, 3) BGR.

    Of several frames or pages, the first is returned; of an animated PNG, the picture that programs without animations
    show.

    Raises:
        ValueError: `data` is no complete picture of at most `MAX_PIXELS` pixels in one of the `FORMATS`. The message
            describes what it is.
    """
    check_header(data)
    still = _still_png(data) if data.startswith(PNG_BEGINS) else data
    try:
        with silent_libraries():
            pixels = cv2.imdecode(np.frombuffer(still, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError(describe(data))
    return pixels


def check_header(data: bytes) -> None:
    """Raises ValueError if the header of a picture cannot be read, or if decoding takes too much memory or time."""
    reader = next((reader for begin, reader in HEADERS.items() if data.startswith(begin)), None)
    if reader is None:
        raise ValueError(describe(data))
    try:
        header = reader(io.BytesIO(data))
        if isinstance(header, TiffImageFile) and _has_repeated_tags(data):
            raise ValueError("Pillow and OpenCV may take another of the values")
    except Exception:  # a damaged header raises errors of many classes
        raise ValueError(describe(data)) from None
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels")
    if isinstance(header, TiffImageFile):
        _check_tiles(header)
    scans = data.count(b"\xff\xda") if isinstance(header, JpegImageFile) else 1
    if width * height * scans > MAX_SCAN_PIXELS:
        raise ValueError(f"{width} x {height} pixels in {scans} scans")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height from the frame header of a JPEG; None if there is none where it must be.

    It is stricter than decoders, which skip stray bytes between segments: they find no other header.
    """
    if not data.startswith(JPEG_BEGINS):
        return None
    start = 2
    while start + 9 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker in FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", data, start + 5)
            return width, height
        if marker in WITHOUT_LENGTH:
            return None
        start += 2 + int.from_bytes(data[start + 2 : start + 4])
    return None


def describe(data: bytes) -> str:
    """Returns the length and the first bytes of a file."""
    return f"{len(data)} bytes that begin {data[:8]!r}" if data else "an empty file"


def _still_png(data: bytes) -> bytes:
    """Returns a PNG up to its end, without its animation. Raises ValueError if a chunk is cut.

    OpenCV allocates the length that a chunk claims to have, and a damaged frame crashes it (opencv/opencv#27744).
    """
    still = bytearray(data[:PNG_SIGNATURE_BYTES])
    start, kind = PNG_SIGNATURE_BYTES, b""
    while start + 8 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise ValueError(describe(data))
        if kind not in PNG_ANIMATION:
            still += data[start:end]
        start = end
    return bytes(still)


def _check_tiles(header: TiffImageFile) -> None:
    """Raises ValueError for large tiles, which are decoded whole, and for many bytes per pixel."""
    tags = header.tag_v2
    width, height = (tags.get(name, size) for name, size in zip((TILEWIDTH, TILELENGTH), header.size, strict=True))
    bits = sum(tags.get(BITSPERSAMPLE, (1,)))
    if max(width * height, header.width * header.height) * max(bits, 32) > 32 * MAX_PIXELS:
        raise ValueError(f"tiles of {width} x {height} pixels of {bits} bits")


def _has_repeated_tags(data: bytes) -> bool:
    """Whether the first directory of a TIFF gives a tag twice (TIFF 6.0, section 2)."""
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    return len({struct.unpack_from(f"{order}H", data, start + 2 + 12 * n) for n in range(count)}) < count
