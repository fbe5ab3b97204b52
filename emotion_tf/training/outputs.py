"""A model's logits on a data set, with what it was given of each utterance; and its probabilities in the graph."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.evaluation.calibration import Outputs, Temperatures

Inputs = dict[str, tf.Tensor]


def inference(model: keras.Model) -> Callable[[Inputs], tf.Tensor]:
    """Inputs to logits, traced once for batches of every length."""
    spec = {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for name, x in model.input.items()}
    return tf.function(lambda inputs: model(inputs, training=False), input_signature=[spec])


def pattern_of(model: keras.Model) -> Callable[[Inputs], tf.Tensor]:
    """Inputs to the place int32 (B,) of each utterance in `calibration.PATTERNS`, as the towers themselves see it."""
    parts = []
    for value, modality in ((1, "text"), (2, "face")):
        if f"{modality}_tower" in [layer.name for layer in model.layers]:
            tower = model.get_layer(f"{modality}_tower")
            present = keras.Model(tower.input, tower.get_layer(f"has_{modality}").output)
            parts.append((value, tuple(tower.input), present))

    def pattern(inputs: Inputs) -> tf.Tensor:
        found = [value * tf.cast(has({n: inputs[n] for n in names}), tf.int32) for value, names, has in parts]
        return tf.add_n(found)

    return pattern


def probabilities_of(model: keras.Model, temperatures: Temperatures) -> Callable[[Inputs], tf.Tensor]:
    """Inputs to calibrated probabilities float32 (B, C), in the graph."""
    values, pattern = tf.constant(temperatures.values), pattern_of(model)

    def probabilities(inputs: Inputs) -> tf.Tensor:
        temperature = tf.gather(values, pattern(inputs))
        return tf.nn.softmax(model(inputs, training=False) / temperature[:, tf.newaxis])

    return probabilities


def collect(infer: Callable[[Inputs], tf.Tensor], data: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, C), labels (N,) and weights (N,) of a data set, in its order."""
    batches = [(infer(inputs).numpy(), label.numpy(), weight.numpy()) for inputs, label, weight in data]
    logits, label, weight = (np.concatenate(column) for column in zip(*batches, strict=True))
    return logits, label, weight


def outputs(model: keras.Model, infer: Callable[[Inputs], tf.Tensor], data: tf.data.Dataset) -> Outputs:
    """The same with the pattern of each utterance."""
    pattern, found = pattern_of(model), []

    def noted(inputs: Inputs) -> tf.Tensor:
        found.append(pattern(inputs).numpy())
        return infer(inputs)

    return Outputs(*collect(noted, data), np.concatenate(found))
