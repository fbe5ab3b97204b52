"""Speed and padding of the input pipeline: `python -m benchmarks.pipeline [DATASET]`.

Prints utterances per second of the input pipeline alone, and the share of token positions that are padding: for batches
by length, as training reads them, for shuffled batches, and for batches by length of records that are read in the order
of the files and shuffled in a window of 20,000. The last row is the limit: a loop that only decodes the same JPEGs,
which lie in memory, with `tf.io.decode_jpeg` and the same threads. All are measured in one run, in turn; each number is
the median of three epochs. Of a small data set, the start of an epoch takes most of the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import Measure, make_parser, note_measures, run_benchmark
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

if TYPE_CHECKING:
    from emotion_tf.data.rows import Rows

BARE = "decoding alone"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", nargs="?", type=Path, default=Path("tfrecords/demo"))
    return arguments


def main() -> None:
    """Measures both orders and prints the table."""
    data = parser().parse_args().data
    start_tensorflow()
    import tensorflow as tf
    from rich.console import Console
    from rich.table import Table

    from emotion_tf.config import TextConfig
    from emotion_tf.data import pipeline
    from emotion_tf.data.batches import Batches
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.data.preprocess import Preprocessor
    from emotion_tf.data.tokenizer import WordVocabulary

    dataset = Dataset.open(data)
    rows = dataset.rows("train")
    inputs = ("input_word_ids", "input_mask", "word_ids", "faces", "face_mask")
    preprocess = Preprocessor(inputs, dataset.face_size, TextConfig(), words=WordVocabulary(["the"]))
    examples = pipeline.Examples(preprocess)
    count = dataset.splits["train"].records

    def shuffled(epoch: int) -> tf.data.Dataset:
        positions = pipeline.EpochOrder(0, epoch).shuffle(examples.positions(rows))
        records = tf.data.Dataset.from_tensor_slices(positions).batch(32).map(examples.reader(rows)).prefetch(1)
        return records.map(lambda i, record: examples(examples.parse(i, record), None), tf.data.AUTOTUNE)

    def window(epoch: int) -> tf.data.Dataset:
        pools = examples.elements(rows).shuffle(20_000, seed=epoch).batch(32 * pipeline.pool_batches(32, count))
        batches = pools.flat_map(lambda *pool: pipeline.by_length(examples, pool, 32, tf.constant([0, epoch])))
        return batches.map(examples, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    epoch_batches = pipeline.train_batches(rows, preprocess, 32, None)

    def by_length(epoch: int) -> Batches:
        return epoch_batches(pipeline.EpochOrder(0, epoch))

    jpegs = [jpeg for row in _read_jpegs(rows) for jpeg in row]
    if not jpegs:
        raise UserError(f"{data} has no face. Expected a data set with faces.")
    # of one size, as `prepare` writes them
    pictures = tf.data.Dataset.from_tensor_slices(jpegs)
    bare = pictures.map(tf.io.decode_jpeg, tf.data.AUTOTUNE).batch(32).prefetch(tf.data.AUTOTUNE)

    orders = {"shuffled": shuffled, "by length": by_length, "by length, in a window": window, BARE: lambda _: bare}
    epochs = [{name: _measure(batches(epoch), count) for name, batches in orders.items()} for epoch in range(4)]
    medians = {name: np.median([measured[name] for measured in epochs[1:]], axis=0) for name in orders}
    table = Table("batches", "utterances/s", "per processor second", "padding, share of token positions")
    table.title = f"{data}, batch 32, 3 epochs"
    for name, (rate, of_processor, padding) in medians.items():
        table.add_row(name, f"{rate:.0f}", f"{of_processor:.0f}", "" if name == BARE else f"{padding:.1%}")
    Console().print(table)
    names, shares = ("second", "processor second"), medians["by length"][:2] / medians[BARE][:2]
    note_measures(
        [
            Measure(f"records to batches, utterances per {name}", f"{rate:.0f}", f"{share:.2f}")
            for name, rate, share in zip(names, medians["by length"], shares, strict=False)
        ]
    )


def _read_jpegs(rows: Rows) -> Iterator[list[bytes]]:
    from emotion_tf import schema

    for _, records in rows.enumerate_records().batch(256):
        yield from schema.parse_examples(records, ["face_jpeg"])["face_jpeg"].to_list()


def _measure(dataset: Iterable[Any], count: int) -> tuple[float, float, float]:
    """Returns utterances per second and per processor second, and the share of padding, of one epoch."""
    start, processor, tokens, positions = time.perf_counter(), time.process_time(), 0, 1
    for batch in dataset:
        if isinstance(batch, tuple):  # no pictures alone
            mask = batch[0]["input_mask"].numpy()
            tokens, positions = tokens + int(mask.sum()), positions + mask.size
    seconds, of_processor = time.perf_counter() - start, time.process_time() - processor
    return count / seconds, count / of_processor, 1 - tokens / positions


if __name__ == "__main__":
    run_benchmark(main)
