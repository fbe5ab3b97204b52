"""Epochs of MiniLM on the texts of a data set: `python -m benchmarks.epoch DATA --peer PYTHON`.

DATA was prepared with MiniLM's word pieces. PYTHON is an interpreter with benchmarks/peer/requirements.txt, which
trains the same network in PyTorch with the same options on the same word pieces: in random batches that are padded to
their longest, and in batches grouped by length, as Hugging Face's Trainer can make them. The programs take turns.
Prints utterances per second of the last epoch (the median over the seeds) and of the first, which compiles, and the
weighted F1 on dev after the last epoch (mean and standard deviation over the seeds).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks import make_parser, measure_program, processor, run_benchmark
from benchmarks.train_step import check_peer, run_json
from emotion_tf.errors import UserError
from emotion_tf.quiet import start_tensorflow
from emotion_tf.wording import plural

PEER = Path(__file__).parent / "peer" / "train_epoch.py"
ORDERS = {"random": "random batches", "length": "grouped by length"}
MAX_TOKENS = 64
OPTIONS = (
    "--towers", "text", "--text.branches", "bert", "--text.encoder", "minilm", "--text.max-tokens", MAX_TOKENS,
    "--text.dropout", 0.1, "--fusion.dense-units", "--fusion.dropout", 0.0, "--train.batch-size", 32,
    "--train.learning-rate", 5e-5, "--train.pretrained-rate", 1.0, "--train.patience", 1000,
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("data", type=Path, metavar="DATA")
    arguments.add_argument("--peer", required=True, metavar="PYTHON")
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--seeds", type=int, default=1)
    return arguments


def main() -> None:
    """Trains with each program in turn and prints the table."""
    arguments = parser().parse_args()
    if arguments.epochs < 1 or arguments.seeds < 1:
        received = f"--epochs {arguments.epochs} --seeds {arguments.seeds}"
        raise UserError(f"Expected `--epochs` and `--seeds` of at least 1. Received: {received}.")
    check_peer(arguments.peer)
    start_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        splits = {split: read_texts(arguments.data, split) for split in ("train", "dev")}
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(splits), encoding="utf-8")
        results: dict[str, list[dict[str, Any]]] = {}
        for seed in range(arguments.seeds):
            own = _train(arguments.data.resolve(), arguments.epochs, seed, Path(folder))
            results.setdefault(own["version"], []).append(own)
            for order, words in ORDERS.items():
                peer = run_json([arguments.peer, PEER, texts, arguments.epochs, seed, order])
                peer["weighted_f1"] = _weighted_f1(splits["dev"]["label"], peer["predicted"])
                results.setdefault(f"{peer['version']}, {words}", []).append(peer)
    title = f"{processor()}; {plural(len(splits['train']['label']), 'utterance')}, {plural(arguments.epochs, 'epoch')}"
    table = Table("program", "utterances/s", "ratio", "first epoch", "weighted F1 on dev", "memory, MB", title=title)
    rates = {name: median(result["rates"][-1] for result in rows) for name, rows in results.items()}
    for name, rows in results.items():
        scores = [result["weighted_f1"] for result in rows]
        spread = f" ± {stdev(scores):.4f}" if len(scores) > 1 else ""
        table.add_row(
            name,
            f"{rates[name]:.1f}",
            f"{rates[name] / list(rates.values())[-1]:.2f}",
            f"{median(result['rates'][0] for result in rows):.1f}",
            f"{mean(scores):.4f}{spread}",
            f"{max(result['memory'] for result in rows):.0f}",
        )
    Console(width=120).print(table)


def read_texts(data: Path, split: str) -> dict[str, list[Any]]:
    """Returns the word pieces of each utterance, as the model reads them, and its label."""
    from emotion_tf import schema
    from emotion_tf.data.dataset import Dataset

    texts: dict[str, list[Any]] = {"ids": [], "label": []}
    for _, records in Dataset.open(data).rows(split).enumerate_records().batch(1024):
        batch = schema.parse_examples(records, ("tokens", "label"))
        ids = batch["tokens"].to_list()
        texts["ids"] += [row if len(row) <= MAX_TOKENS else [*row[: MAX_TOKENS - 1], row[-1]] for row in ids]
        texts["label"] += batch["label"].numpy().tolist()
    return texts


def _train(data: Path, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    words = ("train", "--data", data, "--name", f"seed{seed}", "--train.epochs", epochs, "--train.seed", seed, *OPTIONS)
    usage = measure_program(*words, cwd=folder)
    history = pd.read_csv(folder / "saved_models" / f"seed{seed}" / "history.csv")
    return {
        "version": f"TensorFlow {tf.__version__}",
        "rates": history["utterances_per_second"].tolist(),
        "weighted_f1": float(history["dev_weighted_f1"].iloc[-1]),
        "memory": usage.memory,
    }


def _weighted_f1(label: list[int], predicted: list[int]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(label, predicted, average="weighted"))


if __name__ == "__main__":
    run_benchmark(main)
