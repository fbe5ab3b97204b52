"""Predictions of a model when a modality is removed, or permuted among the utterances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.evaluation.modalities import Ablation
from emotion_tf.modalities import presence_bit
from emotion_tf.models.tower import fusion_inputs
from emotion_tf.models.two_tower import TwoTower

EXCHANGES = 10
BATCH = 256

Arrays = dict[str, np.ndarray]


def ablations(
    model: TwoTower, preprocess: Preprocessor, data: Iterable, pattern: np.ndarray, seed: int = 0
) -> dict[str, Ablation]:
    """Returns the predictions of a model without each of its modalities: modality -> its ablation.

    Each tower runs once over the data; the fusion then runs on combinations of their outputs. The text is the utterance
    with its context.

    Args:
        model: with several towers.
        preprocess: preprocessor of the model.
        data: batches of utterances, in order.
        pattern: int (N,), the modalities that each utterance has, see `presence_pattern`.
        seed: seed of the permutations.
    """
    outputs = _tower_outputs(model, (inputs for inputs, _, _ in data))
    absent = _tower_outputs(model, [preprocess({"utterance": tf.constant([""])})])
    rng = np.random.default_rng(seed)
    fuse = tf.function(lambda inputs: model.fusion(inputs, training=False), reduce_retracing=True, autograph=False)
    results = {}
    rows = np.arange(len(pattern))
    for modality in model.towers:
        present = rows[pattern & presence_bit(modality) > 0]
        removed = {**outputs, modality: {name: np.repeat(x, len(rows), 0) for name, x in absent[modality].items()}}
        exchanged = []
        for _ in range(EXCHANGES if len(present) > 1 else 0):
            order = rows.copy()
            order[present] = rng.permutation(present)
            exchanged.append(_predict(fuse, outputs, {modality: order}))
        results[modality] = Ablation(
            len(present), _predict(fuse, removed, {}), np.array(exchanged, int).reshape(-1, len(rows))
        )
    return results


def _tower_outputs(model: TwoTower, batches: Iterable[Mapping[str, tf.Tensor]]) -> dict[str, Arrays]:
    """Returns the inputs of the fusion from each tower, (N, ...); sequences are padded to the longest."""
    run = {
        modality: tf.function(
            lambda inputs, modality=modality, tower=tower: fusion_inputs(modality, tower(inputs, training=False)),
            reduce_retracing=True,
            autograph=False,
        )
        for modality, tower in model.towers.items()
    }
    parts: dict[str, list[Arrays]] = {modality: [] for modality in run}
    for inputs in batches:
        for modality, tower in model.towers.items():
            outputs = run[modality]({name: inputs[name] for name in tower.input})
            parts[modality].append({name: output.numpy() for name, output in outputs.items()})
    return {
        modality: {name: _concatenate([part[name] for part in of_tower]) for name in of_tower[0]}
        for modality, of_tower in parts.items()
    }


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    if parts[0].ndim < 2:
        return np.concatenate(parts)
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(p, [(0, 0), (0, longest - p.shape[1]), *[(0, 0)] * (p.ndim - 2)]) for p in parts])


def _predict(fuse: tf.Function, outputs: Mapping[str, Arrays], orders: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns predicted classes int (N,). The outputs of the towers in `orders` are permuted."""
    count = len(next(iter(next(iter(outputs.values())).values())))
    predicted = []
    for start in range(0, count, BATCH):
        rows = np.arange(start, min(count, start + BATCH))
        inputs = {
            name: tf.constant(x[orders[modality][rows] if modality in orders else rows])
            for modality, tower in outputs.items()
            for name, x in tower.items()
        }
        predicted.append(fuse(inputs).numpy().argmax(axis=1))
    return np.concatenate(predicted)
