"""Mean and interval over runs with different seeds."""

import pytest

from emotion_tf.evaluation.seeds import spread


def test_spread_by_hand():
    found = spread([0.5, 0.7, 0.6])
    assert found.mean == pytest.approx(0.6) and found.deviation == pytest.approx(0.1)
    # Student's t for two degrees of freedom is 4.303
    assert (found.low, found.high) == pytest.approx((0.6 - 4.303 * 0.1 / 3**0.5, 0.6 + 4.303 * 0.1 / 3**0.5), abs=1e-4)
