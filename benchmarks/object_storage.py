"""Epochs from object storage, beside those from local files: `python -m benchmarks.object_storage [DATASET]`.

Copies a local data set to an S3 server (moto), a process of this machine, and reads the training split in epochs, with
the pictures decoded: from local files, from the server with a cache that holds all shards, and with one of 45 percent.
The epochs are read in turn. Prints the first one, in which the shards are fetched, the median of three later ones, and
their speed as a share of that of local files. The server takes a part of the processors.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import Measure, make_parser, run_benchmark, show_measures
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow

URL = "s3://bucket/data"
SHARE = 0.45
EPOCHS = 3


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", nargs="?", type=Path, default=Path("tfrecords/demo"))
    return arguments


def main() -> None:
    """Measures the epochs and prints the table."""
    data = parser().parse_args().data
    start_tensorflow()
    from emotion_tf.data.dataset import Dataset

    local = Dataset.open(data)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["EMOTION_TF_CACHE"] = cache
            _store(data, port)
            _measure(local)
    finally:
        server.kill()
        server.wait()


def _store(data: Path, port: int) -> None:
    import fsspec

    from emotion_tf.data.dataset import INFO
    from emotion_tf.remote_folders import upload_data

    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            if time.monotonic() > end:
                raise UserError("The S3 server did not start. Install requirements-dev.txt.") from None
            time.sleep(0.1)
    fsspec.filesystem("s3").mkdir("bucket")
    upload_data(data, URL, INFO)


def _measure(local: Any) -> None:
    from emotion_tf.data.dataset import Dataset
    from emotion_tf.data.staging import VARIABLE

    size = sum(shard.bytes for shard in local.splits["train"].shards)
    epochs = {"local files": _epochs(local)}
    for name, share in {"object storage, all in the cache": 1.1, "object storage, a cache of 45 %": SHARE}.items():
        os.environ[VARIABLE] = str(share * size / 1e9)
        os.environ["EMOTION_TF_CACHE"] += f"/{share}"  # one of its own
        epochs[name] = _epochs(Dataset.open(Path(URL)))
    first = {name: run(0) for name, run in epochs.items()}
    later: dict[str, list[float]] = {name: [] for name in epochs}
    for epoch in range(1, EPOCHS + 1):
        for name, run in epochs.items():
            later[name].append(run(epoch))
    count, limit = local.splits["train"].records, statistics.median(later["local files"])
    show_measures(
        f"epochs of {count:,} utterances, {size / 1e6:.0f} MB: the first, and later ones",
        [
            Measure(f"{name}, {when}", f"{seconds:.2f} s", f"{limit / seconds:.2f}")
            for name in epochs
            for when, seconds in (("first", first[name]), ("later", statistics.median(later[name])))
        ],
    )


def _epochs(dataset: Any) -> Any:
    """Returns the function from the number of an epoch to its seconds; reads the places of the records first."""
    from emotion_tf.config import TextConfig
    from emotion_tf.data.pipeline import EpochOrder, train_batches
    from emotion_tf.data.preprocess import Preprocessor
    from emotion_tf.data.tokenizer import WordVocabulary

    inputs = ("input_word_ids", "input_mask", "word_ids", "faces", "face_mask")
    preprocess = Preprocessor(inputs, dataset.face_size, TextConfig(), words=WordVocabulary(["the"]))
    batches = train_batches(dataset.rows("train"), preprocess, 32, None)

    def run(epoch: int) -> float:
        began = time.monotonic()
        count = sum(len(label) for _, label, _ in batches(EpochOrder(0, epoch)))
        if count != dataset.splits["train"].records:
            raise UserError(f"Expected {dataset.splits['train'].records} utterances. Received: {count}.")
        return time.monotonic() - began

    return run


if __name__ == "__main__":
    run_benchmark(main)
