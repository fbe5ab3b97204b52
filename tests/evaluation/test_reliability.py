"""Reliability bins and the expected calibration error, by hand and in a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from emotion_tf.evaluation.reliability import calibration_error, class_calibration_errors, rank, reliability


def test_calibration_error_by_hand():
    """Bins of a quarter: two predictions from 0.5 to 0.75 (0.6 correct, 0.7 wrong), two above (0.9 and 0.8 correct)."""
    confidence, correct = np.array([0.6, 0.7, 0.9, 0.8]), np.array([True, False, True, True])
    low, high = reliability(correct, confidence, bins=4)
    assert low == pytest.approx((0.5, 0.75, 2, 0.65, 0.5)) and high == pytest.approx((0.75, 1, 2, 0.85, 1))
    assert calibration_error(correct, confidence, bins=4) == pytest.approx((2 * 0.15 + 2 * 0.15) / 4)
    weight = np.array([1.0, 1, 6, 2])
    assert calibration_error(correct, confidence, weight, bins=4) == pytest.approx((2 * 0.15 + 8 * 0.125) / 10)


def test_bins_at_their_edges():
    certain, right, wrong = np.array([1.0, 0.5]), np.array([True, True]), np.array([False])
    assert [(b.low, b.high) for b in reliability(right, certain, bins=2)] == [(0, 0.5), (0.5, 1)]
    assert calibration_error(right[:1], certain[:1]) == 0 and calibration_error(wrong, certain[:1]) == 1


def test_a_calibrated_simulation_has_almost_no_error_and_a_sharpened_one_does():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 5))
    label = (rng.random((40_000, 1)) > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=4)
    correct = logits.argmax(axis=1) == label
    calibrated, sharpened = softmax(logits, axis=1), softmax(3 * logits, axis=1)
    assert calibration_error(correct, calibrated.max(axis=1)) < 0.01
    assert calibration_error(correct, sharpened.max(axis=1)) > 0.1
    assert (
        class_calibration_errors(label, calibrated).max()
        < 0.01
        < 0.05
        < class_calibration_errors(label, sharpened).min()
    )


def test_a_class_may_be_miscalibrated_where_the_predictions_are_not():
    """The predicted class, 0, is right as often as its probability says; the other two have each other's share."""
    label = np.repeat([0, 1, 2], [60, 30, 10])
    probabilities = np.tile([0.6, 0.1, 0.3], (100, 1))
    assert calibration_error(label == 0, probabilities[:, 0]) == pytest.approx(0)
    np.testing.assert_allclose(class_calibration_errors(label, probabilities), [0, 0.2, 0.2], atol=1e-12)
    weight = np.repeat([1.0, 1.0, 9.0], [60, 30, 10])  # shares of 1/3, 1/6 and 1/2
    np.testing.assert_allclose(class_calibration_errors(label, probabilities, weight), [4 / 15, 1 / 15, 0.2])


def test_the_prediction_ranks_first():
    assert rank(("a", "b", "c"), np.array([0.2, 0.3, 0.5]), "b") == [("b", 0.3), ("c", 0.5), ("a", 0.2)]
    assert [name for name, _ in rank(("a", "b", "c"), np.array([0.2, 0.3, 0.5]), "c")] == ["c", "b", "a"]
