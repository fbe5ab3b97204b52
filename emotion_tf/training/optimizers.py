"""Optimizers with a learning rate per variable."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from emotion_tf.config import TrainConfig
from emotion_tf.config.train import OPTIMIZERS
from emotion_tf.training.schedules import WarmupSchedule


class ScaledRateMixin:
    """Scales the learning rate of variables, in the update and in the weight decay; does not reduce or clip gradients.

    Keras 3 has no learning rate per variable, and Adam's normalisation cancels a scaled gradient. Therefore the rate
    passed to `update_step` is scaled. Weight decay is part of the same step, where the rate of the variable is known.
    """

    # attributes of the Keras optimizer
    weight_decay: float | None
    _var_key: Callable[[Any], str]
    _use_weight_decay: Callable[[Any], bool]
    assign: Callable[[Any, Any], None]

    def scale_rate(self, variables: Iterable[Any], scale: float) -> None:
        """Sets the multiple of the learning rate of variables. Call it before the first step."""
        scales = self.__dict__.setdefault("_rate_scales", {})
        scales.update({self._var_key(v): scale for v in variables})

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decays and updates one variable at its own rate."""
        rate, kept = self.__dict__["_rates"][self.__dict__.get("_rate_scales", {}).get(self._var_key(variable), 1.0)]
        if self.weight_decay and self._use_weight_decay(variable):
            # one product that becomes the variable: to subtract reads and writes three times as many numbers
            self.assign(variable, variable * ops.cast(kept, variable.dtype))
        super().update_step(gradient, variable, ops.cast(rate, variable.dtype))  # type: ignore[misc]

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        """Computes each rate once, not once a variable: the graph of hundreds of variables is traced sooner."""
        scales = {1.0, *self.__dict__.get("_rate_scales", {}).values()}
        rates = {scale: learning_rate * scale for scale in scales}
        self.__dict__["_rates"] = {
            scale: (rate, 1 - rate * (self.weight_decay or 0.0)) for scale, rate in rates.items()
        }
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Does nothing: `update_step` decays."""

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """Returns the gradients as they are: `apply_update` has reduced them over the replicas."""
        return grads_and_vars


class FusedAdamMixin:
    """Makes the update of Adam in one operation, which reads and writes each number once; Keras needs eleven."""

    # attributes of the Keras optimizer
    beta_1: float
    beta_2: float
    epsilon: float
    iterations: Any
    _momentums: list[Any]
    _velocities: list[Any]
    _get_variable_index: Callable[[Any], int]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its moments."""
        index, dtype = self._get_variable_index(variable), variable.dtype
        shared = {name: tf.cast(value, dtype) for name, value in self.__dict__["_shared"].items()}
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            **shared,
        )

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        constants = {"beta1": self.beta_1, "beta2": self.beta_2, "epsilon": self.epsilon}
        shared = {name: tf.constant(value) for name, value in constants.items()}
        step = tf.cast(self.iterations.value + 1, tf.float32)
        powers = {f"{name}_power": shared[name] ** step for name in ("beta1", "beta2")}
        self.__dict__["_shared"] = shared | powers
        super()._backend_update_step(grads, trainable_variables, learning_rate)  # type: ignore[misc]


def scaled(name: str) -> type:
    """Returns the optimizer class of `keras.optimizers` with `scale_rate` and decoupled weight decay."""
    base = getattr(keras.optimizers, name)
    fused = (FusedAdamMixin,) if issubclass(base, keras.optimizers.Adam) else ()
    return type(f"Scaled{name}", (ScaledRateMixin, *fused, base), {})


def build_optimizer(
    train: TrainConfig, variables: list[Any], multiples: Iterable[tuple[Any, float]], schedule: WarmupSchedule
) -> Any:
    """Builds the optimizer of a configuration.

    Weight decay is decoupled: each step subtracts rate * weight_decay * variable, with the rate of the variable.
    Biases, norms and other vectors do not decay. `apply_update` clips.

    Args:
        train: training part of the configuration.
        variables: all variables that are trained.
        multiples: variables with a multiple of the rate, and the multiple.
        schedule: learning rate of each update.
    """
    row = OPTIMIZERS[train.optimizer]
    arguments = {name: getattr(train, option) for name, option in row.options.items()}
    optimizer = scaled(row.constructor)(learning_rate=schedule, **arguments)
    # the biases of a GRU and of the attention of some encoders have two axes
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2 or v.name.endswith("bias")])
    for variable, multiple in multiples:
        optimizer.scale_rate([variable], multiple)
    optimizer.build(variables)
    return optimizer
