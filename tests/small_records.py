"""Records as plain values, for tests that compare them."""

from __future__ import annotations

import dataclasses
import json
import shutil

import tensorflow as tf

from emotion_tf import files, schema
from emotion_tf.data.dataset import INFO, Dataset
from emotion_tf.data.tokenizer import SPECIAL_TOKENS

NAMES = [feature.name for feature in schema.RECORD]
PIECES = [*SPECIAL_TOKENS, "hello", "there", "."]


def read(paths) -> list[dict]:
    """Reads the records of shards as plain values."""
    batch = schema.parse_examples(tf.constant(list(tf.data.TFRecordDataset(paths).as_numpy_iterator())), NAMES)
    columns = {n: v.to_list() if isinstance(v, tf.RaggedTensor) else v.numpy().tolist() for n, v in batch.items()}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def with_dev_as_test(data, out) -> Dataset:
    """Copies a data set; the split test of the copy has the utterances of dev."""
    shutil.copytree(data, out)
    values = json.loads((out / INFO).read_text())
    (dev,), (test,) = (values["splits"][split]["shards"] for split in ("dev", "test"))
    shutil.copy(out / dev["file"], out / test["file"])
    values["splits"]["test"] = {**values["splits"]["dev"], "shards": [{**dev, "file": test["file"]}]}
    (out / INFO).write_text(json.dumps(values))
    return Dataset.open(out)


def replace_record(data, split, position, **changes) -> None:
    """Changes a record of the first shard of a split, and the sums of `dataset_info.json` with it."""
    info = json.loads((data / INFO).read_text())
    shard = info["splits"][split]["shards"][0]
    path = data / shard["file"]
    records = read([str(path)])
    records[position] |= changes
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(schema.to_example(record))
    shard |= {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
    (data / INFO).write_text(json.dumps(info))


def with_other_hash(dataset, split) -> Dataset:
    """Returns the data set with another hash of the first shard of a split."""
    of_split = dataset.splits[split]
    first, *others = of_split.shards
    shards = (dataclasses.replace(first, sha256="0" * 64), *others)
    return dataclasses.replace(dataset, splits={**dataset.splits, split: dataclasses.replace(of_split, shards=shards)})


def shards(data, split) -> list[str]:
    return list(Dataset.open(data).rows(split).paths)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
