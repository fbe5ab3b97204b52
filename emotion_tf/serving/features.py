"""Writes the outputs of a tower, or of any layer, with the ids of their utterances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import files
from emotion_tf.arrays import Column, write_columns
from emotion_tf.cluster import compute
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.rows import Rows
from emotion_tf.models.activations import activation, check_name, layers_by_name
from emotion_tf.models.layers import UnfoldFrames
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.progress import track_batches
from emotion_tf.runs.place import Place
from emotion_tf.runs.run import Run
from emotion_tf.training.outputs import input_spec

BATCH = 64
FUSION = "fusion"
Function = Callable[[Mapping[str, Any]], Any]
Arrays = dict[str, np.ndarray]
IDS = ("dialogue_id", "utterance_id", "label")


def write_features(
    run: Run, dataset: Dataset, split: str, tower: str, layer: str, out: Path, scheduler: str = ""
) -> tuple[int, ...]:
    """Writes the features of a split as NumPy's .npz, and returns their shape.

    The file holds `features` float32 (N, ...), and `dialogue_id`, `utterance_id` and `label` of each row. A layer that
    reads single crops has one row per crop, numbered by `frame`; utterances without a crop have none. The features of
    a layer along tokens or crops are padded with zeros to the longest. One batch is in memory; the others wait in
    temporary files. With the address of a scheduler of Dask, its workers compute the shards (`cluster.compute`).

    Raises:
        UserError: no such tower or layer; a layer of several outputs without the name of one; the disk is full; or as
            `cluster.compute` does.
    """
    title, columns, rows = f"features of {split}", defaultdict[str, Column](Column), dataset.rows(split)
    batches: Iterator[Arrays]
    if scheduler:
        place, total = Place.of(run, dataset), len(dataset.splits[split].shards)
        parts = ((place, split, number, tower, layer) for number in range(total))
        batches = chain.from_iterable(compute(scheduler, features_of_shard, parts, total, title, "shard"))
    else:
        count = dataset.splits[split].records
        batches = _batches(run, rows, tower, layer, lambda data: track_batches(data, count, BATCH, title))
    with files.new_file(out, follow=True) as temporary:
        for batch in batches:
            for name, array in batch.items():
                columns[name].add(array)
        write_columns(temporary, {**columns, "labels": np.array(run.labels)})
    return columns["features"].shape


def features_of_shard(place: Place, split: str, number: int, tower: str, layer: str) -> list[Arrays]:
    """Returns the batches of features of a shard, with ids, on a worker. Raises UserError as `write_features` does."""
    return list(_batches(*place.open(split, number), tower, layer))


@lru_cache(maxsize=1)  # for all shards
def _trace(model: TwoTower, tower: str, layer: str) -> tuple[Function, bool]:
    """Returns the `layer_function`, traced once for all shapes of batches."""
    function, by_crop = layer_function(model, tower, layer)
    return tf.function(function, input_signature=[input_spec(model)], autograph=False), by_crop


def _batches(
    run: Run, rows: Rows, tower: str, layer: str, show: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> Iterator[Arrays]:
    """Yields for each batch the features (M, ...), and of each the ids and, of a layer that reads crops, the frame."""
    function, by_crop = _trace(run.model, tower, layer)
    batches = pipeline.eval_batches(rows, run.preprocessor(run.model), BATCH)
    all_ids = pipeline.read_rows(rows)
    for values, index, frame in _outputs(function, show(batches), by_crop):
        ids = list(islice(all_ids, BATCH))
        arrays = {name: np.array([row[name] for row in ids])[index] for name in IDS}
        yield {"features": values, **arrays, **({"frame": frame} if by_crop else {})}


def layer_function(model: TwoTower, tower: str, layer: str) -> tuple[Function, bool]:
    """Returns the function from a model's inputs to a layer's output, and whether that has one row per crop.

    Args:
        model: a run's model.
        tower: a modality, or fusion (the layers that join the towers).
        layer: name of a layer; LAYER/INNER for a layer of a nested network, or for one of a layer's several outputs
            (bert/pooled_output). Empty: the tower's embedding, or the logits.

    Raises:
        UserError: no such tower or layer; a layer of several outputs without the name of one.
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
    """Returns the names of the layers that read single crops: those between folding and unfolding."""
    names: set[str] = set()
    for trunk in trunks:
        layers = layers_by_name(trunk)
        unfolds = [isinstance(layer, UnfoldFrames) for layer in layers.values()]
        if any(unfolds):
            names |= set(list(layers)[: unfolds.index(True)])
    return names


def _outputs(
    function: Function, data: Iterable[tuple[Any, ...]], by_crop: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields for each batch the features (M, ...), the indices (M,) of their rows, and their frames (M,)."""
    for inputs, label, _ in data:
        values = np.asarray(function(inputs), np.float32)
        if by_crop:
            index, frame = np.nonzero(inputs["face_mask"].numpy())
            yield values[: len(index)], index, frame  # a batch without a crop has one row, of the padding
        else:
            yield values, np.arange(len(label)), np.zeros(len(label), int)
