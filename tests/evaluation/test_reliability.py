"""Reliability bins and the expected calibration error, by hand and in a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from emotion_tf.evaluation.reliability import calibration_error, reliability


def test_calibration_error_by_hand():
    """Bins of a quarter: two predictions from 0.5 to 0.75 (0.6 correct, 0.7 wrong), two above (0.9 and 0.8 correct)."""
    probabilities = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8]])
    label = np.array([0, 1, 1, 1])
    low, high = reliability(label, probabilities, bins=4)
    assert low == pytest.approx((0.5, 0.75, 2, 0.65, 0.5)) and high == pytest.approx((0.75, 1, 2, 0.85, 1))
    assert calibration_error(label, probabilities, bins=4) == pytest.approx((2 * 0.15 + 2 * 0.15) / 4)
    weight = np.array([1.0, 1, 6, 2])
    assert calibration_error(label, probabilities, weight, bins=4) == pytest.approx((2 * 0.15 + 8 * 0.125) / 10)


def test_bins_at_their_edges():
    certain = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert [(b.low, b.high) for b in reliability(np.array([0, 0]), certain, bins=2)] == [(0, 0.5), (0.5, 1)]
    assert calibration_error(np.array([0]), certain[:1]) == 0 and calibration_error(np.array([1]), certain[:1]) == 1


def test_a_calibrated_simulation_has_almost_no_error_and_a_sharpened_one_does():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 5))
    label = (rng.random((40_000, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=4)
    assert calibration_error(label, softmax(logits, axis=1)) < 0.01
    assert calibration_error(label, softmax(3 * logits, axis=1)) > 0.1
