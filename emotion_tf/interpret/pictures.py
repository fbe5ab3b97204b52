"""Overlays of maps on face crops, as PNG."""

from __future__ import annotations

import cv2
import numpy as np

from emotion_tf.evaluation.colours import AGAINST, FOR

SIDE = 192
"""Minimum side of the pictures in pixels."""
MAX_OPACITY = 0.75
SUPPORT, OPPOSITION = (np.array(rgb[::-1], np.float32) for rgb in (FOR, AGAINST))  # OpenCV has BGR


def overlay(crop: np.ndarray, values: np.ndarray, signed: bool, peak: float) -> bytes:
    """Draws a map on a crop, and returns a PNG.

    Args:
        crop: uint8 (H, W, 3) RGB.
        values: float (H, W).
        signed: whether to draw support in red and opposition in blue; otherwise from dark to bright.
        peak: value of full strength.
    """
    side = max(SIDE, crop.shape[0])
    base = _enlarge(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), side).astype(np.float32)
    if signed:  # single pixels are too fine for the eye
        values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), crop.shape[0] / 48)
    strength = np.clip(_enlarge(values.astype(np.float32), side) / max(peak, 1e-12), -1, 1)
    if signed:
        base = np.repeat(base.mean(axis=-1, keepdims=True), 3, axis=-1)
        colour = np.where(strength[..., None] > 0, SUPPORT, OPPOSITION)
    else:
        colour = cv2.applyColorMap((strength * 255).clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = MAX_OPACITY * np.abs(strength)[..., None]
    return png(base * (1 - weight) + colour * weight)


def peak_value(values: np.ndarray, signed: bool) -> float:
    """Returns the value of full strength: the maximum, or for noisy signed maps the 99th percentile of magnitudes."""
    return float(np.quantile(np.abs(values), 0.99) if signed else values.max(initial=0.0))


def crop_png(crop: np.ndarray) -> bytes:
    """Returns a crop, uint8 (H, W, 3) RGB, as a PNG of the size of the overlays."""
    return png(_enlarge(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), max(SIDE, crop.shape[0])))


def png(pixels: np.ndarray) -> bytes:
    """Encodes pixels (H, W, 3) BGR as PNG."""
    return cv2.imencode(".png", np.clip(np.round(pixels), 0, 255).astype(np.uint8))[1].tobytes()


def _enlarge(pixels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
