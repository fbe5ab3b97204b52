"""A face to an upright square crop: the similarity transform that takes five landmarks to one template."""

from __future__ import annotations

import cv2
import numpy as np

CROP_SIZE = 112
TEMPLATE = np.array([[0.33, 0.38], [0.67, 0.38], [0.50, 0.58], [0.36, 0.75], [0.64, 0.75]])
"""Where the landmarks of a frontal face lie in the unit square: from brow to chin with a margin around the face."""


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least-squares similarity transform (turn, scale, shift; no mirror) from points to targets.

    A point is a complex number and the transform is `a * z + b`: linear regression, whose solution is that of
    Umeyama (1991, "Least-squares estimation of transformation parameters between two point patterns") in the plane.

    Args:
        points: float (N, 2).
        targets: float (N, 2).

    Returns:
        float (2, 3), as `cv2.warpAffine` takes it.
    """
    z, w = (np.asarray(p, float) @ np.array([1, 1j]) for p in (points, targets))
    centred = z - z.mean()
    a = np.vdot(centred, w - w.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def align(pixels: np.ndarray, landmarks: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """The aligned crop of one face.

    Args:
        pixels: picture uint8 (H, W, C).
        landmarks: float (5, 2) in the picture's pixels, as `detect.Face` has them.
        size: side of the crop in pixels.

    Returns:
        uint8 (size, size, C); beyond the picture's edge its border is repeated.
    """
    landmarks = np.asarray(landmarks, float)
    matrix = _to_template(landmarks, size)
    shrink = float(np.hypot(*matrix[:, 0]))
    if shrink < 0.5:
        # warpAffine looks at four pixels only: a large face is averaged down first, or it would show moire
        factor = int(np.ceil(0.5 / shrink))
        pixels, matrix = shrunk(pixels, factor), _to_template((landmarks + 0.5) / factor - 0.5, size)
    return cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def shrunk(pixels: np.ndarray, factor: int) -> np.ndarray:
    """A picture uint8 (H, W, C) at 1/factor of its size, averaged; a whole factor is many times faster than another.

    A last incomplete row or column is left out; no side becomes less than 1.
    """
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    whole = pixels[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def _to_template(landmarks: np.ndarray, size: int) -> np.ndarray:
    # a pixel's centre is at a half: the template scales with the crop's side, not with its last index
    return similarity(landmarks, TEMPLATE * size - 0.5)


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a crop uint8 (H, W, 3) (Pech-Pacheco 2000): low is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())
