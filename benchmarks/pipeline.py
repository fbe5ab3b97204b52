"""How much padding does batching by length save, and how fast are batches made?

Command: `python -m benchmarks.pipeline [DATASET]`. Prints utterances a second of the input pipeline alone, and
the share of token positions that are padding, for batches by length and in shuffled order, in one run.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import reporting
from emotion_tf.quiet import start_tensorflow


def main() -> None:
    """Measures both orders, three epochs each, and prints the table."""
    start_tensorflow()
    import tensorflow as tf
    from rich.console import Console
    from rich.table import Table

    from emotion_tf.config import TextConfig
    from emotion_tf.data import pipeline, records
    from emotion_tf.data.preprocess import Preprocessor
    from emotion_tf.data.tokenizer import WordVocabulary

    data = Path(sys.argv[1] if len(sys.argv) > 1 else "tfrecords/demo")
    info = records.read_info(data)
    rows = pipeline.split_rows(data, info, "train")
    inputs = ("input_word_ids", "input_mask", "word_ids", "faces", "face_mask")
    preprocess = Preprocessor(inputs, info["face_size"], TextConfig(), words=WordVocabulary(["the"]))
    make = pipeline.Examples(preprocess)

    def shuffled(epoch: int) -> tf.data.Dataset:
        elements = make.elements(rows).shuffle(20_000, seed=epoch).batch(32)
        return elements.map(lambda i, record: make(make.parse(i, record), None), tf.data.AUTOTUNE)

    def by_length(epoch: int) -> tf.data.Dataset:
        return pipeline.train_batches(rows, preprocess, 32, pipeline.Order(0, epoch), None)

    table = Table("batches", "utterances/s", "padding of token positions", title=f"{data}, batch 32, 3 epochs")
    for name, batches in (("shuffled", shuffled), ("by length", by_length)):
        rates, padding = zip(*(_measure(batches(epoch)) for epoch in range(4)), strict=True)
        table.add_row(name, f"{sorted(rates[1:])[1]:.0f}", f"{sorted(padding[1:])[1]:.1%}")
    Console().print(table)


def _measure(dataset) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    began, count, real, positions = time.perf_counter(), 0, 0, 0
    for inputs, label, _ in dataset:
        mask = inputs["input_mask"].numpy()
        count, real, positions = count + len(label), real + int(mask.sum()), positions + mask.size
    return count / (time.perf_counter() - began), 1 - real / positions


if __name__ == "__main__":
    reporting(main)
