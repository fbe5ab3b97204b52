"""The features of any layer of a run, with the ids of their utterances, for use elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import files
from emotion_tf.data import pipeline
from emotion_tf.models.reach import layer_model
from emotion_tf.training.run_folder import RunFolder

BATCH = 64
IDS = ("dialogue_id", "utterance_id", "label")


def write_features(
    run: RunFolder, data: Path, info: dict[str, Any], split: str, tower: str, layer: str, out: Path
) -> tuple[int, ...]:
    """Writes the features of a split as NumPy's .npz; returns their shape.

    The file holds `features` float32 (N, ...) and, of each, `dialogue_id`, `utterance_id` and `label`. A layer that
    looks at single crops gives one row a crop, numbered by `frame`; utterances without a crop have none. A layer along
    the tokens or crops is padded with zeros to the longest.

    Raises:
        UserError: as `layer_model`, or no room.
    """
    part = layer_model(run.model, tower, layer)
    of_split = pipeline.split_rows(data, info, split)
    names = {one.name for one in part.layers}
    single = "fold_frames" in names and "unfold_frames" not in names
    batches = pipeline.eval_batches(of_split, run.preprocessor(run.model), BATCH)
    found = list(_batches(part, batches, single))
    longest = [max(sizes) for sizes in zip(*(values.shape[1:] for values, _, _ in found), strict=True)]
    features = np.concatenate([_padded(values, longest) for values, _, _ in found])
    rows = list(pipeline.read_rows(of_split))
    chosen = np.concatenate([index + BATCH * i for i, (_, index, _) in enumerate(found)])
    columns = {name: np.array([row[name] for row in rows])[chosen] for name in IDS}
    if single:
        columns["frame"] = np.concatenate([frame for _, _, frame in found])
    with files.new_file(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, features=features, labels=np.array(run.labels), **columns)
    return features.shape


def _batches(
    part: keras.Model, data: tf.data.Dataset, single: bool
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Features (M, ...) of each batch, the rows (M,) that they are of, and the frames (M,)."""
    function = tf.function(lambda inputs: part(inputs, training=False), reduce_retracing=True)
    for inputs, label, _ in data:
        values = np.asarray(function({name: inputs[name] for name in part.input}), np.float32)
        if single:
            index, frame = np.nonzero(inputs["face_mask"].numpy())
            yield values[: len(index)], index, frame  # without any real crop one of padding went through the network
        else:
            yield values, np.arange(len(label)), np.zeros(len(label), int)


def _padded(values: np.ndarray, longest: list[int]) -> np.ndarray:
    missing = [(0, most - size) for most, size in zip(longest, values.shape[1:], strict=True)]
    return np.pad(values, [(0, 0), *missing])
