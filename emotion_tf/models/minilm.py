"""Conversion of the published all-MiniLM-L6-v2 (PyTorch names, safetensors) to a TF-Hub SavedModel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file

from emotion_tf.errors import UserError
from emotion_tf.models.bert_module import BertConfig, BertModule, save_bert
from emotion_tf.models.graph_loader import load_module
from emotion_tf.models.hub_interface import INPUT_NAMES

_DENSE = {
    "attention/output": "attention.output.dense",
    "feed_forward/in": "intermediate.dense",
    "feed_forward/out": "output.dense",
}
_NORMS = {"attention/norm": "attention.output.LayerNorm", "feed_forward/norm": "output.LayerNorm"}


def rename_bert(published: dict[str, np.ndarray], config: BertConfig) -> dict[str, np.ndarray]:
    """Returns the weights of a PyTorch BERT as `BertModule` takes them.

    Kernels are transposed; those of query, key and value are concatenated.

    Raises:
        KeyError: `published` lacks a weight that `config` needs.
    """

    def norm(ours: str, theirs: str) -> dict[str, np.ndarray]:
        return {f"{ours}/gamma": published[f"{theirs}.weight"], f"{ours}/beta": published[f"{theirs}.bias"]}

    def dense(ours: str, *theirs: str) -> dict[str, np.ndarray]:
        kernel = np.concatenate([published[f"{name}.weight"].T for name in theirs], axis=1)
        return {
            f"{ours}/kernel": kernel,
            f"{ours}/bias": np.concatenate([published[f"{name}.bias"] for name in theirs]),
        }

    weights = {
        f"embeddings/{ours}": published[f"embeddings.{theirs}_embeddings.weight"]
        for ours, theirs in (("word", "word"), ("position", "position"), ("type", "token_type"))
    }
    weights |= norm("embeddings/norm", "embeddings.LayerNorm") | dense("pooler", "pooler.dense")
    for n in range(config.layers):
        ours, theirs = f"layer_{n}", f"encoder.layer.{n}"
        weights |= dense(f"{ours}/attention/qkv", *(f"{theirs}.attention.self.{p}" for p in ("query", "key", "value")))
        for part, name in _DENSE.items():
            weights |= dense(f"{ours}/{part}", f"{theirs}.{name}")
        for part, name in _NORMS.items():
            weights |= norm(f"{ours}/{part}", f"{theirs}.{name}")
    return weights


# Sentences and similarities of all-MiniLM-L6-v2 from https://sbert.net/docs/quickstart.html.
REFERENCE_SENTENCES = (
    "the weather is lovely today .",
    "it ' s so sunny outside !",
    "he drove to the stadium .",
)
REFERENCE_SIMILARITY = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])


def convert_minilm(raw: Path, out: Path) -> None:
    """Converts the published all-MiniLM-L6-v2 to a TF-Hub SavedModel and verifies it.

    Args:
        raw: folder with `config.json`, `model.safetensors` and `vocab.txt`.
        out: folder of the SavedModel.

    Raises:
        UserError: the sentence similarities of the SavedModel differ from the published ones by 1e-3 or more.
    """
    # no schema: `weights` has compared the SHA-256 of each downloaded file
    sizes = json.loads((raw / "config.json").read_text(encoding="utf-8"))
    config = BertConfig(
        vocab_size=sizes["vocab_size"],
        hidden=sizes["hidden_size"],
        layers=sizes["num_hidden_layers"],
        heads=sizes["num_attention_heads"],
        intermediate=sizes["intermediate_size"],
        positions=sizes["max_position_embeddings"],
        types=sizes["type_vocab_size"],
        dropout=sizes["hidden_dropout_prob"],
    )
    weights = rename_bert(load_file(raw / "model.safetensors"), config)
    save_bert(BertModule(config, raw / "vocab.txt", do_lower_case=True, weights=weights), out)
    similarity = reference_similarity(out, raw / "vocab.txt")
    error = float(np.abs(similarity - REFERENCE_SIMILARITY).max())
    if not error < 1e-3:
        raise UserError(
            "The converted MiniLM was not saved. Expected the published sentence similarities to 0.001. "
            f"Received: a difference of {error:.4f}."
        )


def reference_similarity(path: Path, vocab_file: Path) -> np.ndarray:
    """Returns the cosine similarities (3, 3) of `REFERENCE_SENTENCES`, mean-pooled, from the SavedModel at `path`.

    Each word of the sentences is a vocabulary entry, so no tokenizer is needed.
    """
    index = {piece: n for n, piece in enumerate(vocab_file.read_text(encoding="utf-8").splitlines())}
    rows = [[index[piece] for piece in f"[CLS] {text} [SEP]".split()] for text in REFERENCE_SENTENCES]
    ids = tf.ragged.constant(rows, dtype=tf.int32).to_tensor()
    mask = tf.cast(ids > 0, tf.int32)
    inputs = dict(zip(INPUT_NAMES, (ids, mask, tf.zeros_like(ids)), strict=True))
    sequence = load_module(path)(inputs, training=False)["sequence_output"]
    total = tf.reduce_sum(sequence * tf.cast(mask, tf.float32)[..., tf.newaxis], axis=1)
    unit = tf.linalg.l2_normalize(total, axis=-1)
    return tf.matmul(unit, unit, transpose_b=True).numpy()
