"""Overlays of maps on face crops, as PNG."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 192
"""Side of the pictures in pixels, at least."""
STRENGTH = 0.75
FOR, AGAINST = np.array([(20, 20, 215), (200, 90, 20)], np.float32)  # red and blue, in OpenCV's BGR


def overlay(crop: np.ndarray, values: np.ndarray, signed: bool, peak: float) -> bytes:
    """A map on a crop: PNG bytes.

    Args:
        crop: uint8 (H, W, 3) RGB.
        values: float (H, W).
        signed: red for what speaks for the class, blue for what speaks against it; else from dark to bright.
        peak: the value that is drawn strongest.
    """
    side = max(SIDE, crop.shape[0])
    base = _large(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), side).astype(np.float32)
    if signed:  # single pixels cannot be told apart by eye
        values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), crop.shape[0] / 48)
    strength = np.clip(_large(values.astype(np.float32), side) / max(peak, 1e-12), -1, 1)
    if signed:
        base = np.repeat(base.mean(axis=-1, keepdims=True), 3, axis=-1)
        colour = np.where(strength[..., None] > 0, FOR, AGAINST)
    else:
        colour = cv2.applyColorMap((strength * 255).clip(0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    weight = STRENGTH * np.abs(strength)[..., None]
    return png(base * (1 - weight) + colour * weight)


def peak_of(values: np.ndarray, signed: bool) -> float:
    """What is drawn strongest: the largest, or where single pixels stand out the 99th percentile of magnitudes."""
    return float(np.quantile(np.abs(values), 0.99) if signed else values.max(initial=0.0))


def picture(crop: np.ndarray) -> bytes:
    """A crop, uint8 (H, W, 3) RGB, as PNG of the overlays' size."""
    return png(_large(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), max(SIDE, crop.shape[0])))


def png(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) BGR as a PNG file."""
    return cv2.imencode(".png", np.clip(np.round(pixels), 0, 255).astype(np.uint8))[1].tobytes()


def _large(pixels: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)
