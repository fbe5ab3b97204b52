"""A model on a split: its logits, probabilities and metrics; and whether the data are such that it can read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.config import Config
from emotion_tf.data import pipeline, records
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.models.hub_handles import load_vocabulary
from emotion_tf.schema import DataSpec
from emotion_tf.training.run_folder import RunFolder


def inference(model: keras.Model) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """Inputs to logits, traced once for batches of every length."""
    spec = {name: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for name, x in model.input.items()}
    return tf.function(lambda inputs: model(inputs, training=False), input_signature=[spec])


def collect(
    infer: Callable[[dict[str, tf.Tensor]], tf.Tensor], data: tf.data.Dataset
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (N, C), labels (N,) and weights (N,) of a data set, in its order."""
    batches = [(infer(inputs).numpy(), label.numpy(), weight.numpy()) for inputs, label, weight in data]
    logits, label, weight = (np.concatenate(column) for column in zip(*batches, strict=True))
    return logits, label, weight


def check_tokenizer(config: Config, spec: DataSpec, encoder: str | None) -> None:
    """Refuses word pieces that the encoder does not know. Raises UserError."""
    if not config.uses_bert or encoder is None:
        return
    vocabulary, lower_case = load_vocabulary(encoder)
    if WordPieceTokenizer(vocabulary, lower_case).sha256 != spec.tokenizer_sha256:
        raise UserError(
            f"{config.data} was prepared with another tokenizer ({spec.tokenizer}) than the encoder "
            f"{config.text.encoder} has. "
            f"Prepare it again with --tokenizer {config.text.encoder}, or choose the encoder that fits."
        )


def check_context(config: Config, data: Path, kept: int) -> None:
    """Refuses data that keep fewer utterances around each than the model reads. Raises UserError."""
    for name in ("context", "future"):
        wanted = getattr(config.text, name)
        if config.uses_text and wanted > kept:
            raise UserError(
                f"{data} keeps {kept} utterances before and after each. Expected the {wanted} of --text.{name}: "
                f"prepare it again with --context {wanted}."
            )


def check_data(run: RunFolder, data: Path, spec: DataSpec) -> None:
    """Refuses data that a run cannot read. Raises UserError."""
    for name in ("labels", "tokenizer_sha256", "face_size"):
        if getattr(spec, name) != getattr(run.spec, name):
            raise UserError(
                f"{data} does not fit the run {run.path}: {name} is {getattr(spec, name)!r}. Expected "
                f"{getattr(run.spec, name)!r}. Prepare it as the run's data was."
            )
    check_context(run.config, data, spec.context)


def evaluate(
    run: RunFolder, data: Path, info: dict[str, Any], split: str
) -> tuple[np.ndarray, list[dict[str, Any]], dict[str, Any]]:
    """Probabilities (N, C), rows and metrics of a run on a split. Raises UserError when the data do not fit."""
    check_data(run, data, records.data_spec(info))
    rows = pipeline.split_rows(data, info, split)
    model = run.model
    logits, label, weight = collect(inference(model), pipeline.eval_batches(rows, run.preprocessor(model), 64))
    probabilities = np.asarray(tf.nn.softmax(logits))
    numbers = metrics(label, probabilities, run.labels, run.majority, weight)
    return probabilities, list(pipeline.read_rows(rows)), numbers
