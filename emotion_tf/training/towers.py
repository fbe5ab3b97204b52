"""What a run predicts when a modality is taken away or exchanged among utterances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.evaluation.modalities import Ablation

SHUFFLES = 10
BATCH = 256
MODALITIES = {"text": "text", "faces": "face"}


class Jointed(NamedTuple):
    """A model in parts: its towers, and the head that joins their outputs to logits."""

    towers: dict[str, keras.Model]
    head: keras.Model


def jointed(model: keras.Model) -> Jointed:
    """Takes a model of two towers apart. The parts share its weights."""
    towers = {tower: model.get_layer(f"{tower}_tower") for tower in MODALITIES.values()}
    # where the towers are called in this model, of whose outputs `tower.output` knows nothing
    calls = {call.operation.name: call for depth in model._nodes_by_depth.values() for call in depth}
    joints = [tensor for tower in towers.values() for tensor in calls[tower.name].output_tensors]
    return Jointed(towers, keras.Model(joints, model.output))


def ablations(
    model: keras.Model, preprocess: Preprocessor, data: tf.data.Dataset, pattern: np.ndarray, seed: int = 0
) -> dict[str, Ablation]:
    """The predictions of a model of two towers without each modality.

    Each tower runs once over the data; what changes is only which of its outputs meet. The text is the utterance with
    its context.

    Args:
        model: of a run with both towers.
        preprocess: that makes its inputs.
        data: batches of utterances, in order.
        pattern: int (N,), which modalities each utterance has, as `calibration.PATTERNS`.
        seed: of the exchanges.

    Returns:
        Of "text" and "faces".
    """
    parts = jointed(model)
    outputs = _tower_outputs(parts, data)
    nothing = _outputs_of_nothing(parts, preprocess)
    rng = np.random.default_rng(seed)
    head = tf.function(lambda joints: parts.head(joints, training=False), reduce_retracing=True)
    found = {}
    for bit, (name, tower) in enumerate(MODALITIES.items()):
        rows = np.arange(len(pattern))
        has = rows[pattern & (1 << bit) > 0]
        removed = _predicted(head, {**outputs, tower: nothing[tower]}, {tower: np.zeros_like(rows)}, len(rows))
        shuffled = []
        for _ in range(SHUFFLES if len(has) > 1 else 0):
            order = rows.copy()
            order[has] = rng.permutation(has)
            shuffled.append(_predicted(head, outputs, {tower: order}, len(rows)))
        found[name] = Ablation(len(has), removed, np.array(shuffled, int).reshape(-1, len(rows)))
    return found


def _tower_outputs(model: Jointed, data: tf.data.Dataset) -> dict[str, list[np.ndarray]]:
    """Of each tower its outputs, each (N, ...), sequences padded to the longest."""
    calls = {
        name: tf.function(
            lambda inputs, tower=tower: keras.tree.flatten(tower(inputs, training=False)), reduce_retracing=True
        )
        for name, tower in model.towers.items()
    }
    batches: dict[str, list[list[np.ndarray]]] = {name: [] for name in calls}
    for inputs, _, _ in data:
        for name, call in calls.items():
            own = {key: inputs[key] for key in model.towers[name].input}
            batches[name].append([output.numpy() for output in call(own)])
    return {name: [_joined(parts) for parts in zip(*found, strict=True)] for name, found in batches.items()}


def _outputs_of_nothing(model: Jointed, preprocess: Preprocessor) -> dict[str, list[np.ndarray]]:
    inputs = preprocess(tf.constant([""]), tf.constant([[""]]))
    return {
        name: [o.numpy() for o in keras.tree.flatten(tower({k: inputs[k] for k in tower.input}, training=False))]
        for name, tower in model.towers.items()
    }


def _joined(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    if parts[0].ndim < 2:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(p, [(0, 0), (0, longest - p.shape[1]), *[(0, 0)] * (p.ndim - 2)]) for p in parts])


def _predicted(
    head: keras.Model, outputs: dict[str, list[np.ndarray]], orders: dict[str, np.ndarray], count: int
) -> np.ndarray:
    """Predicted classes int (N,), each tower's outputs taken in an order of their own."""

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, count, BATCH):
            rows = np.arange(start, min(count, start + BATCH))
            joints = [part[orders[t][rows] if t in orders else rows] for t, parts in outputs.items() for part in parts]
            yield head([tf.constant(joint) for joint in joints]).numpy().argmax(axis=1)

    return np.concatenate(list(batches()))
