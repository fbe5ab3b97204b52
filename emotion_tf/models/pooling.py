"""Pooling of a sequence to one vector: the word pieces of BERT, or the crops of an utterance.

The length of the padding has no influence. For a row of padding alone the vector is finite; the tower replaces it by
its learned vector for an absent modality.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

TRAINED_POOLINGS = ("attention", "gru")


def pool(sequence: keras.KerasTensor, mask: keras.KerasTensor, kind: str, name: str) -> keras.KerasTensor:
    """Pools a sequence (B, T, D) with mask (B, T) to (B, D).

    Args:
        sequence: steps, some of them padding.
        mask: nonzero at real steps.
        kind: mean, max, first, attention (the layer NAME_attention returns its weights (B, T)), or gru.
        name: prefix of the layers' names.
    """
    if kind == "first":
        return FirstStep(name=f"{name}_first")(sequence)
    if kind == "gru":
        return Recurrent(sequence.shape[-1] // 2 or 1, name=f"{name}_gru")([sequence, mask])
    if kind == "attention":
        weights = AttentionWeights(name=f"{name}_attention")([sequence, mask])
        return WeightedSum(name=f"{name}_attended")([sequence, weights])
    layer = MaskedMax(name=f"{name}_max") if kind == "max" else MaskedMean(name=f"{name}_mean")
    return layer([sequence, mask])


@keras.saving.register_keras_serializable("emotion_tf")
class MaskedMean(keras.layers.Layer):
    """Mean over the real steps: ((B, T, D), mask (B, T)) -> (B, D); zeros if no step is real."""

    def call(self, inputs: list[Any]) -> Any:
        values, mask = inputs
        mask = ops.cast(ops.expand_dims(mask, -1), values.dtype)
        return ops.sum(values * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)


@keras.saving.register_keras_serializable("emotion_tf")
class MaskedMax(keras.layers.Layer):
    """Maximum over the real steps: ((B, T, D), mask (B, T)) -> (B, D); zeros if no step is real."""

    def call(self, inputs: list[Any]) -> Any:
        values, mask = inputs
        real = ops.cast(ops.expand_dims(mask, -1), "bool")
        smallest = ops.min(values, axis=1, keepdims=True)  # finite: the gradient multiplies it by zero
        largest = ops.max(ops.where(real, values, smallest), axis=1)
        return ops.where(ops.any(real, axis=1), largest, ops.zeros_like(largest))


@keras.saving.register_keras_serializable("emotion_tf")
class FirstStep(keras.layers.Layer):
    """The first step, [CLS] of BERT: (B, T, D) -> (B, D) (Devlin 2019, section 3)."""

    def call(self, sequence: Any) -> Any:
        return sequence[:, 0]


@keras.saving.register_keras_serializable("emotion_tf")
class AttentionWeights(keras.layers.Layer):
    """Learned weight of each step: ((B, T, D), mask (B, T)) -> (B, T), which sums to 1, exactly 0 at padding.

    softmax over time of v . tanh(W x + b) (Yang 2016, "Hierarchical Attention Networks", equations 5 and 6). Without a
    mask all steps are real.
    """

    def build(self, input_shape: Any) -> None:
        width = min(input_shape[0][-1], 128)
        self.hidden = layers.Dense(width, activation="tanh", name="hidden", dtype=self.dtype_policy)
        self.score = layers.Dense(1, use_bias=False, name="score", dtype=self.dtype_policy)
        self.hidden.build(input_shape[0])
        self.score.build((*input_shape[0][:-1], width))

    def call(self, inputs: list[Any]) -> Any:
        sequence, *masks = inputs
        scores = ops.squeeze(self.score(self.hidden(sequence)), -1)
        real = ops.cast(masks[0], "bool") if masks else ops.ones_like(scores, "bool")
        # the maximum over the real steps: a larger score at padding would make theirs vanish
        lowest = ops.min(scores, axis=1, keepdims=True)
        largest = ops.stop_gradient(ops.max(ops.where(real, scores, lowest), axis=1, keepdims=True))
        # padding is masked before `exp`: infinity times zero is NaN, and so is its gradient
        exponents = ops.exp(ops.where(real, scores - largest, 0.0)) * ops.cast(real, scores.dtype)
        return exponents / ops.maximum(ops.sum(exponents, axis=1, keepdims=True), 1e-7)


@keras.saving.register_keras_serializable("emotion_tf")
class WeightedSum(keras.layers.Layer):
    """Sum of the steps by their weights: ((B, T, D), (B, T)) -> (B, D)."""

    def call(self, inputs: list[Any]) -> Any:
        sequence, weights = inputs
        return ops.sum(sequence * ops.expand_dims(weights, -1), axis=1)


@keras.saving.register_keras_serializable("emotion_tf")
class Recurrent(keras.layers.Layer):
    """Last states of a bidirectional GRU over the real steps: ((B, T, D), mask (B, T)) -> (B, 2 units) (Cho 2014).

    It does not use cuDNN, which refuses a row of padding alone (an utterance without a face) and padding before a real
    step (a picture that cannot be decoded), and whose op has no CPU version, which an export needs.
    """

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units

    def build(self, input_shape: Any) -> None:
        gru = layers.GRU(self.units, use_cudnn=False, dtype=self.dtype_policy)
        self.both = layers.Bidirectional(gru, name="both", dtype=self.dtype_policy)
        self.both.build(input_shape[0])

    def call(self, inputs: list[Any]) -> Any:
        sequence, mask = inputs
        return self.both(sequence, mask=ops.cast(mask, "bool"))

    def compute_output_spec(self, inputs: list[keras.KerasTensor]) -> keras.KerasTensor:
        # without it, Keras traces both loops each time that a model is built or opened
        return keras.KerasTensor((inputs[0].shape[0], 2 * self.units), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
