"""Risk and coverage by hand, thresholds, abstentions."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_tf.evaluation.selective import fit_thresholds, risk_coverage, score_threshold, with_abstentions

# confidences 0.9 right, 0.8 wrong, 0.7 right, 0.7 wrong, 0.6 right
CONFIDENCE = np.array([0.7, 0.9, 0.6, 0.8, 0.7])
CORRECT = np.array([True, True, True, False, False])


def test_a_table_by_hand():
    """Risks after 1, 2, 4, 5 utterances: 0, 1/2, 2/4, 2/5; inside the tie of two, one of them wrong, 1.5/3."""
    curve = risk_coverage(CORRECT, CONFIDENCE)
    assert curve.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.8, 1.0])
    assert curve.risk.tolist() == pytest.approx([0, 1 / 2, 2 / 4, 2 / 5])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1.5 / 3 + 2 / 4 + 2 / 5) / 5)


def test_the_area_is_the_mean_over_the_orders_of_a_tie():
    areas = []
    for nudge in (1e-9, -1e-9):
        moved = CONFIDENCE + nudge * np.array([1, 0, 0, 0, 0])
        areas.append(risk_coverage(CORRECT, moved).area)
    assert areas[0] < areas[1]
    assert risk_coverage(CORRECT, CONFIDENCE).area == pytest.approx(np.mean(areas))


def test_a_perfect_order_and_no_order():
    correct = np.repeat([True, False], [60, 40])
    good = risk_coverage(correct, np.linspace(0.99, 0.51, 100))
    assert good.area == pytest.approx(sum((k - 60) / k for k in range(61, 101)) / 100)
    none = risk_coverage(correct, np.full(100, 0.7))
    assert none.area == pytest.approx(0.4) and none.coverage.tolist() == [1]


def test_a_threshold_answers_as_many_utterances_as_possible():
    """100 utterances of falling confidence; every fourth of the second half is wrong."""
    confidence = np.linspace(0.99, 0.5, 100)
    correct = np.ones(100, bool)
    correct[50::4] = False
    wrong = np.cumsum(~correct)
    (fitted,) = fit_thresholds(correct, confidence, [0.95])
    last = max(k for k in range(1, 101) if wrong[k - 1] <= 0.05 * k)
    assert fitted == pytest.approx((0.95, confidence[last - 1], last / 100, 1 - wrong[last - 1] / last))
    scores = score_threshold(correct, confidence, fitted.threshold)
    assert scores == pytest.approx((last, fitted.coverage, fitted.precision))


def test_no_threshold_if_none_is_needed_or_none_suffices():
    correct = np.ones(100, bool)
    certain = np.full(100, 0.8)
    assert fit_thresholds(correct, certain, [0.9]) == []  # all together reach the target
    assert fit_thresholds(~correct, certain, [0.9]) == []  # none reaches it
    correct[10:] = False  # ten correct predictions are too few for a threshold
    assert fit_thresholds(correct, np.linspace(0.99, 0.5, 100), [0.95]) == []
    scores = score_threshold(correct, certain, 0.9)
    assert np.isnan(scores.precision) and scores.utterances == 0


def test_abstaining():
    predicted = np.array([0, 1, 0, 0, 1])
    assert with_abstentions(("no", "yes"), predicted, CONFIDENCE, 0.7) == ["no", "yes", "abstained", "no", "yes"]
    assert with_abstentions(("no", "yes"), predicted, CONFIDENCE, 0.0) == ["no", "yes", "no", "no", "yes"]
    assert with_abstentions(("no", "yes"), np.zeros(0, int), np.zeros(0), 0.5) == []
