"""Pictures whose headers declare more than they hold, made byte by byte."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

LARGE, SMALL = 12_000, 16
"""Sides: above and below the limit of 64 megapixels. A decoder accepts both."""
TIFF_LONG = (256, 257, 273, 278, 279, 322, 323, 324, 325)


def png(*headers: int, before: bytes = b"") -> bytes:
    """Returns a PNG with a header chunk for each side, and the pixels of the last one up to 16 rows."""
    data = _png_chunk(b"IDAT", zlib.compress(b"\0" * 17 * 16))
    chunks = [_png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) for side in headers]
    return b"\x89PNG\r\n\x1a\n" + before + b"".join(chunks) + data + _png_chunk(b"IEND", b"")


def complete_png(side: int) -> bytes:
    """Returns a PNG of black pixels."""
    packer, row = zlib.compressobj(1), b"\0" * (side + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")


def hidden_png(side: int) -> bytes:
    """Returns a PNG with an unknown chunk before the header, in whose place a small size stands."""
    unknown = _png_chunk(b"abCd", struct.pack(">II", SMALL, SMALL) + b"\0" * 5)
    signature, rest = complete_png(side)[:8], complete_png(side)[8:]
    return signature + unknown + rest


def animated_png() -> bytes:
    """Returns a PNG of 16 x 16 black pixels with an animation of two frames, which begins with white ones."""
    control = _png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, SMALL, SMALL, 0, 0, 1, 10, 0, 0))
    white = zlib.compress((b"\0" + b"\xff" * SMALL) * SMALL)
    frame = control + _png_chunk(b"fdAT", struct.pack(">I", 1) + white)
    animation, end = _png_chunk(b"acTL", struct.pack(">II", 2, 0)), _png_chunk(b"IEND", b"")
    head = complete_png(SMALL).removesuffix(end)
    return head[:33] + animation + head[33:] + frame + control + end


def jpeg(*headers: int, scans: int = 1) -> bytes:
    """Returns a JPEG of 16 x 16 pixels with a frame header for each side."""
    data = cv2.imencode(".jpg", np.zeros((SMALL, SMALL, 3), np.uint8))[1].tobytes()
    start, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    frames = [data[start : start + 5] + struct.pack(">HH", s, s) + data[start + 9 : start + 19] for s in headers]
    return data[:start] + b"".join(frames) + data[start + 19 : scan] + data[scan:-2] * scans + data[-2:]


def gif(canvas: int, frame: int = 1, frames: int = 1) -> bytes:
    """Returns a GIF with the sides of its canvas and of its frames."""
    picture = b"," + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\x00"
    return (
        b"GIF89a" + struct.pack("<HHBBB", canvas, canvas, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + picture * frames + b";"
    )


def webp(side: int) -> bytes:
    """Returns an animated WebP with a canvas of any side and one frame of 16 x 16 pixels."""
    still = cv2.imencode(".webp", np.zeros((SMALL, SMALL, 3), np.uint8), [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    canvas, frame = (struct.pack("<I", s - 1)[:3] * 2 for s in (side, SMALL))
    body = _riff_chunk(b"VP8X", b"\x02\0\0\0" + canvas) + _riff_chunk(b"ANIM", b"\0" * 6)
    body += _riff_chunk(b"ANMF", b"\0" * 6 + frame + b"\x64\0\0\0" + still[12:])
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def bmp(side: int) -> bytes:
    """Returns a BMP that is compressed by run length and ends in its first row."""
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1080, 0, 0, 1078) + header + b"\0" * 1024 + b"\0\1"


def tiff(side: int, tile: int = 0, changes: dict[int, int] | None = None, before: tuple[int, ...] = ()) -> bytes:
    """Returns a grey TIFF, in one strip or in one tile; `before` has sides that stand before the true ones."""
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 277: 1}
    tags |= {322: tile, 323: tile, 324: 0, 325: 256} if tile else {273: 0, 278: side, 279: side * side}
    entries = [(tag, s) for s in before for tag in (256, 257)] + list((tags | (changes or {})).items())
    entries.sort(key=lambda entry: entry[0])
    start = 8 + 2 + 12 * len(entries) + 4
    offsets = {273: start, 324: start}
    body = b"".join(
        struct.pack("<HHII", tag, 4 if tag in TIFF_LONG else 3, 1, offsets.get(tag, value)) for tag, value in entries
    )
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + b"\0" * 4 + b"\0" * 400


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


BOMBS = {
    "png": png(LARGE),
    "png with two headers": png(SMALL, LARGE),
    "png with a hidden header": hidden_png(64),
    "png with a chunk that claims 2 GB": complete_png(SMALL)[:33] + struct.pack(">I", 0x7FFFFFFF) + b"IDAT",
    "jpeg": jpeg(LARGE),
    "jpeg with two headers": jpeg(SMALL, LARGE),
    "jpeg with many scans": jpeg(4096, scans=100),
    "gif": gif(LARGE),
    "webp": webp(16_383),
    "bmp": bmp(LARGE),
    "tiff": tiff(LARGE),
    "tiff with two sizes": tiff(SMALL, before=(LARGE,)),
    "tiff with a large tile": tiff(SMALL, tile=16_000),
    "tiff with large samples": tiff(8000, changes={258: 64}),
    "tiff with many samples": tiff(SMALL, changes={277: 278}),
}
