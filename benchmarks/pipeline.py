"""Speed and padding of the input pipeline: `python -m benchmarks.pipeline [DATASET]`.

Prints utterances per second of the input pipeline alone and the share of token positions that are padding: for batches
by length, as training reads them, for shuffled batches, and for batches by length of records that are read in the order
of the files and shuffled in a window of 20,000. All are measured in one run, in turn; each number is the median of
three epochs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import make_parser, run_benchmark
from emotion_tf.quiet import start_tensorflow


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

    def shuffled(epoch: int) -> tf.data.Dataset:
        positions = pipeline.EpochOrder(0, epoch).shuffle(examples.positions(rows))
        records = tf.data.Dataset.from_tensor_slices(positions).batch(32).map(examples.reader(rows)).prefetch(1)
        return records.map(lambda i, record: examples(examples.parse(i, record), None), tf.data.AUTOTUNE)

    def window(epoch: int) -> tf.data.Dataset:
        pools = examples.elements(rows).shuffle(20_000, seed=epoch).batch(32 * pipeline.POOL_BATCHES)
        batches = pools.flat_map(lambda *pool: pipeline._by_length(examples, pool, 32, tf.constant([0, epoch])))
        return batches.map(examples, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    epoch_batches = pipeline.train_batches(rows, preprocess, 32, None)

    def by_length(epoch: int) -> Batches:
        return epoch_batches(pipeline.EpochOrder(0, epoch))

    table = Table("batches", "utterances/s", "padding, share of token positions", title=f"{data}, batch 32, 3 epochs")
    orders = {"shuffled": shuffled, "by length": by_length, "by length, in a window": window}
    epochs = [{name: _measure(batches(epoch)) for name, batches in orders.items()} for epoch in range(4)]
    for name in orders:
        rates, padding = zip(*(measured[name] for measured in epochs), strict=True)
        table.add_row(name, f"{sorted(rates[1:])[1]:.0f}", f"{sorted(padding[1:])[1]:.1%}")
    Console().print(table)


def _measure(dataset) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Returns utterances per second and the share of padding of one epoch."""
    start, utterances, tokens, positions = time.perf_counter(), 0, 0, 0
    for inputs, label, _ in dataset:
        mask = inputs["input_mask"].numpy()
        utterances, tokens, positions = utterances + len(label), tokens + int(mask.sum()), positions + mask.size
    return utterances / (time.perf_counter() - start), 1 - tokens / positions


if __name__ == "__main__":
    run_benchmark(main)
