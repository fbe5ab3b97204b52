"""Input pipeline: tf.data from shards to batches, whose order is a function of (seed, epoch)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.batches import Batches
from emotion_tf.data.cached_features import CachedFeatures
from emotion_tf.data.context import format_lines, format_ragged_lines, nearest_lines
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.rows import Rows, as_graph
from emotion_tf.data.share import WHOLE, Share
from emotion_tf.modalities import MODALITIES

POOL_BATCHES = 50
"""Batches that are parsed together and cut from a pool sorted by length, at most."""
POOL_ROWS = 4096
"""Utterances of a pool, at most, since three pools are in memory at a time."""
LEAST_POOLS = 4
"""Pools of a training epoch: else a small data set would be sorted whole, and similar utterances meet in each epoch."""
CHARACTERS_PER_PIECE = 4
IDS = ("dialogue_id", "utterance_id", "speaker", "utterance", "label", "weight")


@dataclass(frozen=True)
class EpochOrder:
    """Seed and number of a training epoch, which determine everything random in it."""

    seed: int
    epoch: int

    def shuffle(self, positions: np.ndarray) -> np.ndarray:
        """Returns positions of records int64 (N,) in the order of the epoch, a pseudorandom permutation.

        It sorts by random keys. NumPy may change the stream of `Generator.permutation`, but not that of a bit generator
        (NEP 19). It is the same on each of several hosts, which divide it (`Share`).
        """
        keys = np.random.PCG64([self.seed, self.epoch]).random_raw(len(positions))
        return positions[np.argsort(keys, kind="stable")]

    @property
    def mixed(self) -> int:
        """Seed and epoch as one number, hashed, so that neighbouring seeds do not share the order of an epoch."""
        return int.from_bytes(hashlib.sha256(f"{self.seed}/{self.epoch}".encode()).digest()[:4], "big") >> 2


def pool_batches(batch_size: int, rows: int | None = None) -> int:
    """Returns the number of batches that are cut from a pool, as Hugging Face's `group_by_length` does.

    `rows`: number of utterances of a training epoch; without it, the pool may have all of them.
    """
    most = POOL_BATCHES if rows is None else min(POOL_BATCHES, rows // (LEAST_POOLS * batch_size))
    return max(1, min(most, POOL_ROWS // batch_size))


def train_batches(
    rows: Rows,
    preprocess: Preprocessor,
    batch_size: int,
    augment: Callable[..., tf.Tensor] | None,
    cached: CachedFeatures | None = None,
    share: Share = WHOLE,
) -> Callable[[EpochOrder], Batches]:
    """Returns the function from an epoch to its batches, traced once for all epochs.

    An epoch shuffles records, batches similar lengths, decodes, augments. The order is a permutation of all records,
    which are read from the shards in this order. A pool of `pool_batches` is cut into batches while the next one is
    read. Drawing the order takes 24 bytes a record.

    Args:
        rows: the utterances.
        preprocess: computes the inputs that are read from the records.
        batch_size: utterances per batch.
        augment: augments faces uint8 (B, T, H, W, 3), with a seed (2,).
        cached: cached features of the shards as further inputs; they do not change the batches.
        share: the share of each batch that this host reads. On all hosts the lengths of a batch are similar.

    Returns:
        Function to batches of (inputs, label int64 (B,), weight float32 (B,)).
    """
    make = Examples(preprocess, cached)
    positions, size = make.positions(rows), share.size(batch_size)
    pool = pool_batches(batch_size, len(positions))

    def shuffle(order: EpochOrder) -> np.ndarray:
        return rows.shuffle(positions, order.shuffle) if make.reads_records else order.shuffle(positions)

    def build(order: tf.Tensor, seed: tf.Tensor) -> tf.data.Dataset:
        return (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(size * pool)
            .map(make.reader(rows))  # one at a time: threads that read would wait for Python's lock
            .prefetch(1)
            .enumerate()
            .flat_map(as_graph(lambda i, elements: by_length(make, elements, size, tf.stack([seed, i]))))
            .enumerate()
            .map(
                as_graph(
                    lambda i, features: make(
                        features, augment and partial(augment, seed=tf.stack([seed + 1 + share.host, i]))
                    )
                ),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .prefetch(tf.data.AUTOTUNE)
        )

    signature = (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64))
    # the concrete function runs as a graph even if functions run eagerly
    graph = tf.function(build, input_signature=signature, autograph=False).get_concrete_function()
    return lambda order: Batches(
        graph(tf.constant(share.of_batches(shuffle(order), batch_size)), tf.constant(order.mixed, tf.int64)),
        rows.local_paths,
    )


def eval_batches(
    rows: Rows, preprocess: Preprocessor, batch_size: int, cached: CachedFeatures | None = None
) -> Batches:
    """Returns the utterances in the order of the records: batches of (inputs, label (B,), weight (B,))."""
    make = Examples(preprocess, cached)
    dataset = (
        make.elements(rows)
        .batch(batch_size)
        .map(
            as_graph(lambda positions, records: make(make.parse(positions, records))),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )
    return Batches(dataset, rows.local_paths)


def sorted_batches(
    rows: Rows, preprocess: Preprocessor, batch_size: int, cached: CachedFeatures | None = None
) -> Batches:
    """Returns all utterances in batches of similar length: (inputs, label (B,), weight (B,), position int64 (B,))."""
    make = Examples(preprocess, cached)

    def batch(features: dict[str, tf.Tensor]) -> tuple[Any, ...]:
        return (*make(features), features["position"])

    dataset = (
        make.elements(rows)
        .batch(batch_size * pool_batches(batch_size))
        .flat_map(as_graph(lambda *elements: by_length(make, elements, batch_size, tf.constant([0, 0], tf.int64))))
        .map(as_graph(batch), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return Batches(dataset, rows.local_paths)


def read_metadata(rows: Rows, preprocess: Preprocessor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns label int64, weight float32 and length int64, each (N,), in the order of `eval_batches`."""
    names = ("label", "weight", "length")
    make = Examples(preprocess)
    elements = Batches(make.elements(rows).batch(1024), rows.local_paths)
    batches = [[features[name].numpy() for name in names] for features in (make.parse(*pair) for pair in elements)]
    label, weight, length = (np.concatenate(column) for column in zip(*batches, strict=True))
    return label, weight, length


class Labels(NamedTuple):
    """What is known of N utterances without their texts and faces: 20 bytes of each.

    Attributes:
        label: class of each, int64 (N,).
        weight: weight of each, float32 (N,).
        dialogue: dialogue of each, as its place in the order of the ids of all, int64 (N,).
    """

    label: np.ndarray
    weight: np.ndarray
    dialogue: np.ndarray


def read_labels(rows: Rows) -> Labels:
    """Returns the labels, weights and dialogues of utterances, in the order of `eval_batches`."""
    codes: dict[bytes, int] = {}
    columns: tuple[array[Any], ...] = array("q"), array("f"), array("q")
    for _, records in Batches(rows.enumerate_records().batch(1024), rows.local_paths):
        batch = schema.parse_examples(records, ["label", "weight", "dialogue_id"])
        dialogue = [codes.setdefault(name, len(codes)) for name in batch["dialogue_id"].numpy()]
        for column, values in zip(columns, (batch["label"].numpy(), batch["weight"].numpy(), dialogue), strict=True):
            column.extend(values)
    place = np.empty(len(codes), np.int64)
    place[[codes[name] for name in sorted(codes)]] = np.arange(len(codes))
    label, weight, code = (np.array(column) for column in columns)
    return Labels(label, weight, place[code])


def read_rows(rows: Rows) -> Iterator[dict[str, Any]]:
    """Yields ids, label, weight, and numbers of faces and of lines around it of each utterance, as `eval_batches` does.

    The lines are those of `context` and `future` that are not empty.
    """
    names = [*IDS, "face_mask", "context", "future"]
    # parsed here: tracing a function for `map` takes longer than to read a few thousand records
    for _, records in Batches(rows.enumerate_records().batch(1024), rows.local_paths):
        batch = schema.parse_examples(records, names)
        faces = batch.pop("face_mask").row_lengths().numpy()
        for name in ("context", "future"):
            batch[name] = tf.reduce_sum(tf.cast(batch[name] != "", tf.int32), axis=1)
        columns = {name: values.numpy() for name, values in batch.items()}
        for i in range(len(faces)):
            row = {
                name: values[i].decode() if isinstance(values[i], bytes) else values[i]
                for name, values in columns.items()
            }
            yield {**row, "faces": int(faces[i])}


def by_length(
    make: Examples, elements: tuple[tf.Tensor, tf.Tensor], batch_size: int, seed: tf.Tensor
) -> tf.data.Dataset:
    """Sorts a pool by length and cuts it into batches, in random order."""
    features = make.parse(*elements)
    by_length = tf.argsort(features["length"], stable=True)
    count = tf.shape(by_length)[0]
    batches = -(-count // batch_size)
    shuffled = tf.argsort(tf.random.stateless_uniform([batches], seed))

    def cut(n: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = by_length[n * batch_size : tf.minimum(count, (n + 1) * batch_size)]
        return {name: tf.gather(values, rows) for name, values in features.items()}

    return tf.data.Dataset.from_tensor_slices(shuffled).map(cut)


class Examples:
    """Makes examples of records and cached features."""

    def __init__(self, preprocess: Preprocessor, cached: CachedFeatures | None = None) -> None:
        self.preprocess, self.cached = preprocess, cached
        self.reads_records = cached is None or bool(preprocess.inputs)

    def positions(self, rows: Rows) -> np.ndarray:
        """Returns the positions of utterances in the joined shards, int64 (N,)."""
        if rows.positions is not None:
            return np.array(rows.positions, np.int64)
        return np.arange(len(rows.index) if self.cached is None else self.cached.count)

    def reader(self, rows: Rows) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
        """Returns the function from positions (B,) to positions and records (empty if all inputs are cached)."""

        def read(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if not self.reads_records:
                return positions, tf.fill(tf.shape(positions), "")
            records = tf.numpy_function(rows.index.read, [positions], tf.string, stateful=False)
            return positions, tf.ensure_shape(records, [None])

        return as_graph(read)

    def elements(self, rows: Rows) -> tf.data.Dataset:
        """Returns a data set of (position, record), in order. Records are empty if all inputs are cached."""
        if self.reads_records:
            return rows.enumerate_records()
        return tf.data.Dataset.from_tensor_slices(self.positions(rows)).map(as_graph(lambda i: (i, "")))

    def parse(self, positions: tf.Tensor, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of a batch of elements, including the `length` for batching."""
        features = _parse(records, self.preprocess) if self.reads_records else {}
        if self.cached is None:
            return {**features, "position": positions, "length": _length(features, self.preprocess)}
        return {**features, "position": positions, **self.cached.metadata(positions)}

    def __call__(self, features: dict[str, tf.Tensor], augment: Callable[[tf.Tensor], tf.Tensor] | None = None) -> Any:
        """Converts parsed features to (inputs, label, weight)."""
        inputs = _inputs(features, self.preprocess) if self.reads_records else {}
        if augment is not None and "faces" in inputs:
            inputs["faces"] = augment(inputs["faces"])
        if self.cached is not None:
            inputs |= self.cached.inputs(features["position"])
        return inputs, features["label"], features["weight"]


def _parse(records: tf.Tensor, preprocess: Preprocessor) -> dict[str, tf.Tensor]:
    context = [name for field in preprocess.context_fields for name in (field, f"{field}_speaker")]
    of_modalities = [name for row in MODALITIES.values() for name in row.features]
    names = ("label", "weight", *of_modalities, *context)
    features = schema.parse_examples(records, names)
    if preprocess.text.speaker:
        features["utterance"] = format_lines(features["utterance"], features["speaker"])
    for name in preprocess.context_fields:
        features[name] = format_ragged_lines(features[name], features.pop(f"{name}_speaker"))
    return features


def _length(features: dict[str, tf.Tensor], preprocess: Preprocessor) -> tf.Tensor:
    """Returns the number of word pieces that the model reads, int64 (B,), estimated for the context."""
    length = features["tokens"].row_lengths()
    for name in preprocess.context_fields:
        lines = nearest_lines(features[name], getattr(preprocess.text, name), past=name == "context")
        characters = tf.reduce_sum(tf.strings.length(lines), axis=1)
        length += tf.cast(tf.minimum(characters // CHARACTERS_PER_PIECE, preprocess.text.context_tokens), tf.int64)
    return length


def _inputs(features: dict[str, tf.Tensor], preprocess: Preprocessor) -> dict[str, tf.Tensor]:
    # the tokens of a record are those of the utterance without the speaker
    unused = {"tokens"} if preprocess.text.speaker else set()
    return preprocess({name: values for name, values in features.items() if name not in unused})
