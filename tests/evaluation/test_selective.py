"""Risk and coverage by hand, thresholds, abstentions."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_tf.evaluation.selective import fit_thresholds, risk_coverage, score_threshold, with_abstentions

# confidences 0.9 right, 0.8 wrong, 0.7 right, 0.7 wrong, 0.6 right
CONFIDENCE = np.array([0.7, 0.9, 0.6, 0.8, 0.7])
PROBABILITIES = np.stack([CONFIDENCE, 1 - CONFIDENCE], axis=1)
LABEL = np.array([0, 0, 0, 1, 1])


def test_a_table_by_hand():
    """Risks after 1, 2, 4, 5 utterances: 0, 1/2, 2/4, 2/5; inside the tie of two, one of them wrong, 1.5/3."""
    curve = risk_coverage(LABEL, PROBABILITIES)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 2 / 4, 2 / 5])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1.5 / 3 + 2 / 4 + 2 / 5) / 5)


def test_the_area_is_the_mean_over_the_orders_of_a_tie():
    areas = []
    for nudge in (1e-9, -1e-9):
        moved = CONFIDENCE + nudge * np.array([1, 0, 0, 0, 0])
        areas.append(risk_coverage(LABEL, np.stack([moved, 1 - moved], axis=1)).area)
    assert areas[0] < areas[1]
    assert risk_coverage(LABEL, PROBABILITIES).area == pytest.approx(np.mean(areas))


def test_a_perfect_order_and_no_order():
    label = np.repeat([0, 1], [60, 40])
    ordered = np.linspace(0.99, 0.51, 100)
    good = risk_coverage(label, np.stack([ordered, 1 - ordered], axis=1))
    assert good.area == pytest.approx(sum((k - 60) / k for k in range(61, 101)) / 100)
    none = risk_coverage(label, np.tile([0.7, 0.3], (100, 1)))
    assert none.area == pytest.approx(0.4) and none.coverage.tolist() == [1]


def test_a_threshold_answers_as_many_utterances_as_possible():
    """100 utterances of falling confidence; every fourth of the second half is wrong."""
    confidence = np.linspace(0.99, 0.5, 100)
    label = np.zeros(100, int)
    label[50::4] = 1
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    wrong = np.cumsum(label)
    (fitted,) = fit_thresholds(label, probabilities, [0.95])
    last = max(k for k in range(1, 101) if wrong[k - 1] <= 0.05 * k)
    assert fitted == pytest.approx((0.95, confidence[last - 1], last / 100, 1 - wrong[last - 1] / last))
    scores = score_threshold(label, probabilities, fitted.threshold)
    assert scores == pytest.approx((last, fitted.coverage, fitted.precision))


def test_no_threshold_if_none_is_needed_or_none_suffices():
    label = np.zeros(100, int)
    certain = np.tile([0.8, 0.2], (100, 1))
    assert fit_thresholds(label, certain, [0.9]) == []  # all together reach the target
    assert fit_thresholds(1 - label, certain, [0.9]) == []  # none reaches it
    few = np.linspace(0.99, 0.5, 100)
    label[10:] = 1  # ten correct predictions are too few for a threshold
    assert fit_thresholds(label, np.stack([few, 1 - few], axis=1), [0.95]) == []
    assert (
        np.isnan(score_threshold(label, certain, 0.9).precision)
        and score_threshold(label, certain, 0.9).utterances == 0
    )


def test_abstaining():
    assert with_abstentions(("no", "yes"), PROBABILITIES, 0.7) == ["no", "no", "abstained", "no", "no"]
    assert with_abstentions(("no", "yes"), PROBABILITIES, 0.0) == ["no"] * 5
    assert with_abstentions(("no", "yes"), np.zeros((0, 2)), 0.5) == []
