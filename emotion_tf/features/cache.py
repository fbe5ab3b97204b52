"""Cache of the outputs of frozen trunks, on disk, under a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import files, locks
from emotion_tf.arrays import open_arrays
from emotion_tf.data import pipeline
from emotion_tf.data.cached_features import CachedFeatures, Column
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.rows import Rows
from emotion_tf.errors import UserError
from emotion_tf.features.boundary import FrozenPart
from emotion_tf.models.devices import run_on_devices
from emotion_tf.progress import track
from emotion_tf.remote import Store, StoreError
from emotion_tf.weights_table import cache_folder, shared_cache

Values = np.ndarray | tuple[np.ndarray, np.ndarray]
"""One value per utterance (N, ...); or the values of all steps (M, ...) and the number of steps per utterance (N,)."""
VERSION = 2
BATCH = 64
PLACE = "place"
"""Array of a file that has its folder and name: the features of other layers or of another shard are not read."""


class FeatureCache:
    """Reads and writes the columns of the cached parts of a model.

    A file holds the columns of one part for one shard. Its name is a hash of the part's layers and weights, of its
    preprocessing, and of the shard: a change in any of them leads to another file. With a cache in object storage
    (`shared_cache`), what another machine has computed is fetched from it, and what is computed here is stored in it.

    Args:
        parts: the cached part of each tower.
        preprocess: preprocessor of the whole model.
        say: receives a line of progress.
    """

    def __init__(self, parts: Sequence[FrozenPart], preprocess: Preprocessor, say: Callable[[str], None]) -> None:
        self.parts, self.preprocess, self.say = tuple(parts), preprocess, say
        self._preprocess = [preprocess.for_inputs(part.model.input) for part in parts]
        self._keys = [_key(*pair) for pair in zip(self.parts, self._preprocess, strict=True)]
        self.folder, self.store = cache_folder() / "features", shared_cache()

    @property
    def columns(self) -> set[str]:
        """Names of the columns of all parts."""
        return {name for part in self.parts for name in part.steps}

    def holds(self, shards: Mapping[str, str]) -> bool:
        """Whether the columns of all shards (path -> sha256) are on disk, or in the shared cache."""
        paths = [self._path(key, sha) for key in self._keys for sha in shards.values()]
        return all(path.is_file() or (self.store and self.store.has(_name(path))) for path in paths)

    def read(self, rows: Rows, shards: Mapping[str, str]) -> CachedFeatures:
        """Returns the columns of all records in the shards of `rows`; computes columns that are not on disk."""
        began, computed, size = time.monotonic(), 0, 0
        columns: dict[str, list[Column]] = {}
        for path in rows.paths:
            for part, preprocess, key in zip(self.parts, self._preprocess, self._keys, strict=True):
                file = self._path(key, shards[path])
                of_shard = _load(file, part.steps)
                if of_shard is None:
                    computed += _compute_once(part, preprocess, Rows((path,), stage=rows.stage), file, self.store)
                    of_shard = _load(file, part.steps)
                if of_shard is None:
                    raise UserError(f"{file} has changed while it was used. Run the command again.")
                size += file.stat().st_size
                for name, column in of_shard.items():
                    columns.setdefault(name, []).append(column)
        action = f"computed in {time.monotonic() - began:.0f} s, stored in" if computed else "read from"
        self.say(f"Features of frozen networks ({', '.join(columns)}) {action} {self.folder}, {size / 1e6:.1f} MB")
        return CachedFeatures(columns, *pipeline.read_metadata(Rows(rows.paths, stage=rows.stage), self.preprocess))

    def _path(self, key: str, sha256: str) -> Path:
        return self.folder / key[:32] / f"{sha256[:32]}.npz"


def _key(part: FrozenPart, preprocess: Preprocessor) -> str:
    about = {
        "version": VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "inputs": preprocess.cache_key,
        "steps": part.steps,
        "layers": json.loads(part.model.to_json()),
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for weight in part.model.weights:
        value = weight.numpy()
        if np.issubdtype(value.dtype, np.integer):
            continue  # seed and counter of dropout in a TF-Hub module, not used while it is frozen
        digest.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


def _compute_once(part: FrozenPart, preprocess: Preprocessor, rows: Rows, file: Path, store: Store | None) -> bool:
    """Computes and stores the columns of a shard, unless another process does so; returns whether it did."""
    try:
        with locks.writer(file, wait=True):
            if _load(file, part.steps) is None and store and store.has(_name(file)):
                with files.new_file(file) as temporary:
                    store.download(_name(file), temporary)
            if _load(file, part.steps) is not None:
                return False
            _save(file, _compute(part, preprocess, rows))
            if store:
                store.upload(file, _name(file))
            return True
    except StoreError:
        raise
    except files.WriteError as error:
        raise files.WriteError(
            f"{error} The features of other shards are kept. Or set EMOTION_TF_CACHE to another folder; "
            "--train.no-cache-features stores none."
        ) from None


def _compute(part: FrozenPart, preprocess: Preprocessor, rows: Rows) -> dict[str, Values]:
    """Runs a part over a shard in batches of similar length; returns the columns in record order."""
    spec = {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for name, x in part.model.input.items()}
    function = tf.function(lambda inputs: run_on_devices(part.model, inputs), input_signature=[spec], autograph=False)
    total = len(rows.index)
    order: list[int] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in part.steps}
    counts: dict[str, list[int]] = {name: [] for name in part.steps}
    batches = pipeline.sorted_batches(rows, preprocess, BATCH)
    for inputs, _, _, positions in track(
        batches, -(-total // BATCH), f"features of {Path(rows.paths[0]).name}", "batches"
    ):
        values = {name: _plain(value) for name, value in function(inputs).items()}
        order += positions.numpy().tolist()
        for name, axis in part.steps.items():
            lengths = _lengths(inputs[axis].numpy()) if axis else [None] * len(positions)
            columns[name] += [row[:length] for row, length in zip(values[name], lengths, strict=True)]
            counts[name] += [0 if length is None else length for length in lengths]
    ranks = np.argsort(order)
    return {name: _column([columns[name][i] for i in ranks], bool(part.steps[name])) for name in part.steps}


def _plain(value: tf.Tensor) -> np.ndarray:
    return (tf.cast(value, tf.float32) if value.dtype in (tf.bfloat16, tf.float16) else value).numpy()


def _lengths(steps: np.ndarray) -> list[int]:
    """Returns the number of steps of each row (B, T) up to its last real one."""
    is_real = steps != 0
    return np.where(is_real.any(axis=1), is_real.shape[1] - is_real[:, ::-1].argmax(axis=1), 0).tolist()


def _column(rows: Sequence[np.ndarray], in_steps: bool) -> Values:
    if not in_steps:
        return np.stack(rows)
    return np.concatenate(rows), np.array([len(row) for row in rows], np.int64)


def _save(path: Path, columns: Mapping[str, Values]) -> None:
    arrays: dict[str, Any] = {PLACE: np.array(_place(path))}
    for name, column in columns.items():
        arrays |= {name: column} if isinstance(column, np.ndarray) else {name: column[0], f"{name}/steps": column[1]}
    with files.new_file(path) as temporary:
        np.savez(temporary, **arrays)


def _load(path: Path, steps: Mapping[str, str]) -> dict[str, Column] | None:
    """Reads the columns of a file; returns None if it does not exist, has moved or is damaged (it has checksums)."""
    try:
        with open_arrays(path, "Remove it.") as arrays:
            if str(arrays[PLACE]) != _place(path):
                return None
            return {
                name: Column(arrays.find(name), arrays[f"{name}/steps"] if axis else None)
                for name, axis in steps.items()
            }
    except UserError:
        return None


def _name(path: Path) -> str:
    """Returns the name of a file in the shared cache."""
    return f"features/{_place(path)}"


def _place(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
