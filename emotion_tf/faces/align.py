"""Face alignment: a similarity transform maps five landmarks to a template, which gives an upright square crop."""

from __future__ import annotations

import cv2
import numpy as np

CROP_SIZE = 112
TEMPLATE = np.array([[0.33, 0.38], [0.67, 0.38], [0.50, 0.58], [0.36, 0.75], [0.64, 0.75]])
"""Landmarks of a frontal face in the unit square, which covers the face from brow to chin and a margin."""


def fit_similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fits the least-squares similarity transform (rotation, scale, translation; no reflection) of points to targets.

    Points are complex numbers and the transform is `a * z + b`, fitted by linear regression. In the plane this equals
    Umeyama (1991, "Least-squares estimation of transformation parameters between two point patterns").

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
    """Returns the aligned crop of one face.

    Args:
        pixels: image uint8 (H, W, C).
        landmarks: float (5, 2) in pixels of the image, in the order of `detect.Face`.
        size: side of the crop in pixels.

    Returns:
        uint8 (size, size, C). The border is repeated beyond the edge of the image.
    """
    landmarks = np.asarray(landmarks, float)
    matrix = _to_template(landmarks, size)
    shrink = float(np.hypot(*matrix[:, 0]))
    if shrink < 0.5:
        # warpAffine interpolates between four pixels, which aliases when it shrinks: average a large face down first
        factor = int(np.ceil(0.5 / shrink))
        pixels, matrix = downscale(pixels, factor), _to_template((landmarks + 0.5) / factor - 0.5, size)
    return cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def downscale(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Shrinks an image uint8 (H, W, C) by an integer factor, by averaging. Integer factors are many times faster.

    Drops the remainder of rows and columns. A side is at least 1.
    """
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    whole = pixels[: height * factor, : width * factor]
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)


def _to_template(landmarks: np.ndarray, size: int) -> np.ndarray:
    # The centre of the first pixel is at 0.5, so the template scales with the side of the crop.
    return fit_similarity(landmarks, TEMPLATE * size - 0.5)


def sharpness(crop: np.ndarray) -> float:
    """Returns the variance of the Laplacian of a crop uint8 (H, W, 3); low is blurred (Pech-Pacheco 2000)."""
    return float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())
