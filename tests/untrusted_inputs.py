"""Requests as a public server may receive them: texts of every kind, valid and invalid pictures."""

from __future__ import annotations

import cv2
import numpy as np

TEXTS = [
    "You did it!",
    "",
    "I can't believe it. " * 400,
    "😀😀 so happy 🎉‍",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "   \t\n ",
    "No.",
    "e\u0301te\u0301 \u202eabc\u202c",
    "日本語のテキスト",
    "a" * 5000,
    "\x00\x01 control",
    "'''...!!!???",
    "Don’t `you` dare",
    "😀" * 2000,
    "I did not expect that, and I am glad.",
] * 2
"""32 texts."""


def _draw(side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)


def _encode(kind: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(kind, pixels)[1].tobytes()


def _bomb_png() -> bytes:
    """Returns a small PNG whose header claims 40,000 x 40,000 pixels."""
    data = bytearray(_encode(".png", _draw(32, 5)))
    data[16:24] = (40_000).to_bytes(4, "big") * 2
    return bytes(data)


def _pictures(side: int) -> dict[str, bytes]:
    jpeg, png = _encode(".jpg", _draw(side, 1)), _encode(".png", _draw(side, 2))
    huge = _encode(".jpg", np.full((2600, 2600, 3), 90, np.uint8))  # complete, but above the limit
    return {
        "crop": jpeg,
        "truncated": jpeg[: len(jpeg) // 2],
        "garbage": b"this is no picture at all",
        "none": b"",
        "png": png,
        "huge": huge,
        "marker": b"\xff\xd8\xff",
        "large": _encode(".jpg", _draw(3 * side, 3)),
        "half png": png[: len(png) // 2],
        "bomb": _bomb_png(),
        "grey": _encode(".png", cv2.cvtColor(_draw(side, 4), cv2.COLOR_BGR2GRAY)),
        "bmp": _encode(".bmp", _draw(side, 4)),
        "other": _encode(".jpg", _draw(side, 6)),
    }


PICTURES = list(_pictures(32))


def requests(side: int, count: int = 32) -> dict[str, dict[str, np.ndarray]]:
    """Returns the inputs of each signature that takes raw inputs, for `count` utterances and crops of `side` pixels."""
    pictures = list(_pictures(side).values())
    texts = np.array([text.encode() for text in TEXTS[:count]], object)
    faces = np.array([pictures[i % len(pictures)] for i in range(count)], object)
    context = np.array([[TEXTS[i - 2].encode(), TEXTS[i - 1].encode(), b""] for i in range(count)], object)
    two_faces = np.array([[faces[i], faces[(i + 3) % count]] for i in range(count)], object)
    full = {"utterance": texts, "context": context, "face_jpeg": two_faces}
    return {
        "serving_default": {"utterance": texts, "face_jpeg": faces},
        "serve_bytes": {"utterance": texts, "face_jpeg_bytes": faces},
        "serve_full": full,
        "explain": full,
    }
