"""AdamW with a rate per variable, and its schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf
from keras import ops


class ScaledRateMixin:
    """Gives chosen variables a multiple of the learning rate, in the update and in the weight decay.

    Keras 3 has no rate per variable, and a scaled gradient is cancelled by Adam's normalisation: so the rate that
    reaches `update_step` is scaled. Weight decay is moved into the same step, where the variable's rate is known.
    """

    # of the Keras optimizer that this is mixed into
    weight_decay: float | None
    _var_key: Callable[[Any], str]
    _use_weight_decay: Callable[[Any], bool]
    assign_sub: Callable[[Any, Any], None]

    def scale_rate(self, variables: Iterable[Any], scale: float) -> None:
        """Lets these variables learn at `scale` times the rate. To be called before the first step."""
        scales = self.__dict__.setdefault("_rate_scales", {})
        scales.update({self._var_key(v): scale for v in variables})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay and update of one variable at its own rate."""
        rate = ops.cast(learning_rate, variable.dtype) * self.__dict__.get("_rate_scales", {}).get(
            self._var_key(variable), 1.0
        )
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * rate * self.weight_decay)
        super().update_step(gradient, variable, rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Done in `update_step`."""


class ScaledAdamW(ScaledRateMixin, keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019) with `scale_rate`."""


class WarmupLinear(keras.optimizers.schedules.LearningRateSchedule):
    """From 0 to `peak` in `warmup` steps, then linearly to 0 at `steps` (Devlin 2019, appendix A.2).

    Args:
        peak: highest rate.
        warmup: steps of the rise.
        steps: all steps.
    """

    def __init__(self, peak: float, warmup: int, steps: int) -> None:
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def __call__(self, step: Any) -> Any:
        """The rate of a step (0 is the first, which already moves)."""
        step = tf.cast(step, tf.float32) + 1.0
        rise = step / max(1, self.warmup)
        fall = (self.steps + 1 - step) / max(1, self.steps + 1 - self.warmup)
        return self.peak * tf.clip_by_value(tf.minimum(rise, fall), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"peak": self.peak, "warmup": self.warmup, "steps": self.steps}


def build_optimizer(
    model: keras.Model,
    slower: Iterable[tuple[keras.Variable, float]],
    schedule: WarmupLinear,
    weight_decay: float,
    clip_norm: float,
) -> ScaledAdamW:
    """AdamW of all trainable variables; those of `slower` learn at their share of the rate.

    Biases, norms and other vectors do not decay.
    """
    optimizer = ScaledAdamW(schedule, weight_decay=weight_decay, global_clipnorm=clip_norm)
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])
    for variable, share in slower:
        optimizer.scale_rate([variable], share)
    optimizer.build(model.trainable_variables)
    return optimizer
