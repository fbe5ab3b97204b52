"""Learning rate schedules: a linear warm-up, then one of several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + tf.cos(math.pi * progress)),
    "constant": tf.ones_like,
}
"""Name -> function from the share (0 to 1) of the updates after the warm-up to the multiple of the peak rate."""


class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises from 0 to `peak` in `warmup` updates, then follows a shape; linear and cosine end at 0.

    The linear one is that of Devlin 2019 (appendix A.2), the cosine that of Loshchilov and Hutter 2017 ("SGDR",
    equation 5) without restarts.

    Args:
        shape: a name of `SHAPES`.
        peak: maximum rate.
        warmup: number of updates of the warm-up.
        steps: total number of updates.
    """

    def __init__(self, shape: str, peak: float, warmup: int, steps: int) -> None:
        self.shape, self.peak, self.warmup, self.steps = shape, peak, warmup, steps

    def __call__(self, step: Any) -> Any:
        """Returns the rate of update `step`, from 0; the rate of the first one is not zero."""
        step = tf.cast(step, tf.float32) + 1.0
        rise = step / max(1, self.warmup)
        progress = tf.clip_by_value((step - self.warmup) / max(1, self.steps + 1 - self.warmup), 0.0, 1.0)
        return self.peak * tf.minimum(tf.minimum(rise, 1.0), SHAPES[self.shape](progress))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"shape": self.shape, "peak": self.peak, "warmup": self.warmup, "steps": self.steps}
