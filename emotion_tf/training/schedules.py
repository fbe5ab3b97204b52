"""The learning rate from update to update: a warm-up, then one of several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + tf.cos(math.pi * done)),
    "constant": tf.ones_like,
}
"""Name -> multiple of the peak rate, from the share (0 to 1) of the way after the warm-up."""


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to `peak` in `warmup` updates, then after a shape: linear and cosine reach 0 just after the last update.

    The linear one is that of Devlin 2019 (appendix A.2), the cosine that of Loshchilov and Hutter 2017 ("SGDR",
    equation 5) without restarts.

    Args:
        shape: a name of `SHAPES`.
        peak: highest rate.
        warmup: updates of the rise.
        steps: all updates.
    """

    def __init__(self, shape: str, peak: float, warmup: int, steps: int) -> None:
        self.shape, self.peak, self.warmup, self.steps = shape, peak, warmup, steps

    def __call__(self, step: Any) -> Any:
        """The rate of an update (0 is the first, which already moves)."""
        step = tf.cast(step, tf.float32) + 1.0
        rise = step / max(1, self.warmup)
        done = tf.clip_by_value((step - self.warmup) / max(1, self.steps + 1 - self.warmup), 0.0, 1.0)
        return self.peak * tf.minimum(tf.minimum(rise, 1.0), SHAPES[self.shape](done))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"shape": self.shape, "peak": self.peak, "warmup": self.warmup, "steps": self.steps}
