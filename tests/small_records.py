"""Records as plain values, for tests that look into them."""

from __future__ import annotations

import json
import shutil

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data import records
from emotion_tf.data.tokenizer import SPECIAL_TOKENS

NAMES = [feature.name for feature in schema.RECORD]
PIECES = [*SPECIAL_TOKENS, "hello", "there", "."]


def read(paths) -> list[dict]:
    """The records of shards as plain values."""
    batch = schema.parse_examples(tf.constant(list(tf.data.TFRecordDataset(paths).as_numpy_iterator())), NAMES)
    columns = {n: v.to_list() if isinstance(v, tf.RaggedTensor) else v.numpy().tolist() for n, v in batch.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def with_dev_as_test(data, out) -> dict:
    """The same data set but for its test split, in a new folder; returns its info."""
    shutil.copytree(data, out)
    info = records.read_info(out)
    (dev,), (test,) = (info["splits"][split]["shards"] for split in ("dev", "test"))
    shutil.copy(out / dev["file"], out / test["file"])
    info["splits"]["test"] = {**info["splits"]["dev"], "shards": [{**dev, "file": test["file"]}]}
    (out / records.INFO).write_text(json.dumps(info))
    return info


def shards(data, split) -> list[str]:
    return [str(data / shard["file"]) for shard in records.read_info(data)["splits"][split]["shards"]]


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
