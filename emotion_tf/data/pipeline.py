"""tf.data from shards to batches. The order is a function of (seed, epoch); rows are parsed and cut in whole pools."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.augment import augment_faces
from emotion_tf.data.context import line_of, lines, nearest
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.errors import UserError

SHUFFLE_BUFFER = 20_000
POOL_BATCHES = 16
LETTERS_A_PIECE = 4
# No function here has Python control flow on tensors; AutoGraph would only make the first epoch start 2 s later.
as_graph = tf.autograph.experimental.do_not_convert
IDS = ("dialogue_id", "utterance_id", "speaker", "utterance", "label", "weight")


@dataclass(frozen=True)
class Order:
    """How a training epoch is drawn: everything random in it follows from these two."""

    seed: int
    epoch: int


def split_files(data: Path, info: dict[str, Any], split: str) -> list[str]:
    """Shard paths of a split. Raises UserError when the data set has no such split."""
    if split not in info["splits"]:
        raise UserError(
            f"No split {split!r} in {data}. Expected one of: {', '.join(info['splits'])}. Add such rows to "
            "the manifest and prepare it again."
        )
    return [str(data / shard["file"]) for shard in info["splits"][split]["shards"]]


def train_batches(
    paths: list[str], preprocess: Preprocessor, batch_size: int, order: Order, augment: bool
) -> tf.data.Dataset:
    """One epoch in the order of (seed, epoch): shuffled still encoded, batches of similar length, decoded, augmented.

    Returns:
        Data set of (inputs, label int64 (B,), weight float32 (B,)).
    """
    seed = _mix(order)
    pool = batch_size * POOL_BATCHES
    dataset = (
        tf.data.TFRecordDataset(paths)
        .shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False)
        .batch(pool)
        .enumerate()
        .flat_map(as_graph(lambda i, records: _by_length(records, preprocess, batch_size, tf.stack([seed, i]))))
        .enumerate()
        .map(
            as_graph(lambda i, features: _examples(features, preprocess, tf.stack([seed + 1, i]) if augment else None)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def eval_batches(paths: list[str], preprocess: Preprocessor, batch_size: int) -> tf.data.Dataset:
    """A split in the order of its records: data set of (inputs, label (B,), weight (B,))."""
    dataset = tf.data.TFRecordDataset(paths).batch(batch_size)
    return dataset.map(
        as_graph(lambda records: _examples(_parse(records, preprocess), preprocess, None)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).prefetch(tf.data.AUTOTUNE)


def read_rows(paths: list[str]) -> Iterator[dict[str, Any]]:
    """What identifies each utterance of a split, in the order of `eval_batches`; strings are decoded."""
    dataset = tf.data.TFRecordDataset(paths).batch(1024).map(lambda r: schema.parse_examples(r, [*IDS, "face_mask"]))
    for batch in dataset:
        faces = batch.pop("face_mask").row_lengths().numpy()
        columns = {name: values.numpy() for name, values in batch.items()}
        for i in range(len(faces)):
            row = {
                name: values[i].decode() if isinstance(values[i], bytes) else values[i]
                for name, values in columns.items()
            }
            yield {**row, "faces": int(faces[i])}


def _mix(order: Order) -> int:
    # one well-spread 31-bit seed for each (seed, epoch); neighbouring seeds share no epoch's order
    return int.from_bytes(hashlib.sha256(f"{order.seed}/{order.epoch}".encode()).digest()[:4], "big") >> 2


def _parse(records: tf.Tensor, preprocess: Preprocessor) -> dict[str, tf.Tensor]:
    around = [name for one in preprocess.around for name in (one, f"{one}_speaker")]
    names = ("utterance", "speaker", "tokens", "face_jpeg", "label", "weight", *around)
    features = schema.parse_examples(records, names)
    if preprocess.text.speaker:
        features["utterance"] = line_of(features["utterance"], features["speaker"])
    for name in preprocess.around:
        features[name] = lines(features[name], features.pop(f"{name}_speaker"))
    return features


def _by_length(records: tf.Tensor, preprocess: Preprocessor, batch_size: int, seed: tf.Tensor) -> tf.data.Dataset:
    """Sorts a pool by length and cuts it into batches, which come in random order."""
    features = _parse(records, preprocess)
    by_length = tf.argsort(_length(features, preprocess), stable=True)
    count = tf.shape(by_length)[0]
    batches = -(-count // batch_size)
    shuffled = tf.argsort(tf.random.stateless_uniform([batches], seed))

    def cut(n: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = by_length[n * batch_size : tf.minimum(count, (n + 1) * batch_size)]
        return {name: tf.gather(values, rows) for name, values in features.items()}

    return tf.data.Dataset.from_tensor_slices(shuffled).map(cut)


def _length(features: dict[str, tf.Tensor], preprocess: Preprocessor) -> tf.Tensor:
    """Word pieces that the model will read of each, int64 (B,); those of the context are only guessed."""
    length = features["tokens"].row_lengths()
    for name in preprocess.around:
        said = nearest(features[name], getattr(preprocess.text, name), past=name == "context")
        letters = tf.reduce_sum(tf.strings.length(said), axis=1)
        length += tf.cast(tf.minimum(letters // LETTERS_A_PIECE, preprocess.text.context_tokens), tf.int64)
    return length


def _examples(
    features: dict[str, tf.Tensor], preprocess: Preprocessor, seed: tf.Tensor | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    face_jpeg = features["face_jpeg"].to_tensor("")
    # a batch without any face still has one (absent) frame: no network sees an empty axis
    face_jpeg = tf.pad(face_jpeg, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(face_jpeg)[1])]], constant_values="")
    tokens = None if preprocess.text.speaker else features["tokens"]  # which a record has without the speaker
    inputs = preprocess(features["utterance"], face_jpeg, tokens, features.get("context"), features.get("future"))
    if seed is not None and "faces" in inputs:
        inputs["faces"] = augment_faces(inputs["faces"], seed)
    return inputs, features["label"], features["weight"]
