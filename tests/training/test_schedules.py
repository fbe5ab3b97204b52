"""The learning rate from update to update, by hand."""

import numpy as np

from emotion_tf.config import CHOICES
from emotion_tf.training.schedules import SHAPES, WarmupSchedule


def test_tables_agree():
    assert set(SHAPES) == set(CHOICES["train.schedule"])


def test_warmup_rises_then_falls_to_the_end():
    rate = [float(WarmupSchedule("linear", 1.0, 4, 10)(i)) for i in range(11)]
    np.testing.assert_allclose(rate[:4], [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(np.diff(rate[3:10]), -1 / 7, rtol=1e-5)
    assert rate[9] > 0
    assert rate[10] == 0


def test_cosine_and_constant():
    rate = [float(WarmupSchedule("cosine", 2.0, 2, 10)(i)) for i in range(11)]
    np.testing.assert_allclose(rate[:2], [1.0, 2.0])
    np.testing.assert_allclose(rate[2:], 1 + np.cos(np.pi * np.arange(1, 10) / 9), atol=1e-6)
    assert [float(WarmupSchedule("constant", 2.0, 2, 10)(i)) for i in range(11)] == [1.0] + [2.0] * 10
