"""The features of any layer of a run, with the ids of their utterances, for use elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import files
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.models.activations import activation, check_name, layers_by_name
from emotion_tf.models.layers import UnfoldFrames
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.runs.run import Run

BATCH = 64
FUSION = "fusion"
Function = Callable[[Mapping[str, Any]], Any]
IDS = ("dialogue_id", "utterance_id", "label")


def write_features(run: Run, dataset: Dataset, split: str, tower: str, layer: str, out: Path) -> tuple[int, ...]:
    """Writes the features of a split as NumPy's .npz; returns their shape.

    The file holds `features` float32 (N, ...) and, of each, `dialogue_id`, `utterance_id` and `label`. A layer that
    looks at single crops gives one row a crop, numbered by `frame`; utterances without a crop have none. A layer along
    the tokens or crops is padded with zeros to the longest.

    Raises:
        UserError: no such tower or layer, a layer of several outputs without the name of one, or no room.
    """
    function, by_crop = layer_function(run.model, tower, layer)
    of_split = dataset.rows(split)
    batches = pipeline.eval_batches(of_split, run.preprocessor(run.model), BATCH)
    parts = list(_batches(function, batches, by_crop))
    longest = [max(sizes) for sizes in zip(*(values.shape[1:] for values, _, _ in parts), strict=True)]
    features = np.concatenate([_padded(values, longest) for values, _, _ in parts])
    rows = list(pipeline.read_rows(of_split))
    chosen = np.concatenate([index + BATCH * i for i, (_, index, _) in enumerate(parts)])
    columns = {name: np.array([row[name] for row in rows])[chosen] for name in IDS}
    if by_crop:
        columns["frame"] = np.concatenate([frame for _, _, frame in parts])
    with files.new_file(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, features=features, labels=np.array(run.labels), **columns)
    return features.shape


def layer_function(model: TwoTower, tower: str, layer: str) -> tuple[Function, bool]:
    """Returns the function from a model's inputs to a layer's output, and whether that has one row a crop.

    Args:
        model: a run's model.
        tower: a modality, or fusion (the layers that join the towers).
        layer: a layer of it; LAYER/INNER for one inside a network that is a layer itself, or for one of a layer's
            several outputs (bert/pooled_output). Empty: the tower's embedding, or the logits.

    Raises:
        UserError: no such tower or layer, or a layer of several outputs without the name of one.
    """
    check_name(tower, [*model.towers, FUSION], "tower")
    if not layer:
        key = "logits" if tower == FUSION else f"{tower}/embedding"
        return (lambda inputs: model(inputs, training=False)[key]), False
    if tower == FUSION:
        return activation(model, layers_by_name(model.fusion), layer), False
    part = model.towers[tower]
    return activation(model, part.layers_by_name, layer), layer.split("/")[0] in _layers_by_crop(part.trunks.values())


def _layers_by_crop(trunks: Iterable[keras.Model]) -> set[str]:
    """Returns the names of the layers that see single crops: those between folding and unfolding."""
    names: set[str] = set()
    for trunk in trunks:
        of_trunk = layers_by_name(trunk)
        after = [isinstance(layer, UnfoldFrames) for layer in of_trunk.values()]
        if any(after):
            names |= set(list(of_trunk)[: after.index(True)])
    return names


def _batches(
    function: Function, data: tf.data.Dataset, by_crop: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the features (M, ...) of each batch, the rows (M,) that they are of, and the frames (M,)."""
    traced = tf.function(function, reduce_retracing=True)
    for inputs, label, _ in data:
        values = np.asarray(traced(inputs), np.float32)
        if by_crop:
            index, frame = np.nonzero(inputs["face_mask"].numpy())
            yield values[: len(index)], index, frame  # a batch without any crop has the row of its stand-in
        else:
            yield values, np.arange(len(label)), np.zeros(len(label), int)


def _padded(values: np.ndarray, longest: list[int]) -> np.ndarray:
    missing = [(0, most - size) for most, size in zip(longest, values.shape[1:], strict=True)]
    return np.pad(values, [(0, 0), *missing])
