"""A run on a split: probabilities, metrics, calibration; and whether the data are such that it can read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.special import softmax

from emotion_tf.config import Config
from emotion_tf.data import pipeline, records
from emotion_tf.data.pipeline import Rows
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import PATTERNS, Outputs, Temperatures, calibration_error
from emotion_tf.evaluation.choice import Choice, choose, write_choice
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.significance import intervals
from emotion_tf.models.hub_handles import load_vocabulary
from emotion_tf.schema import DataSpec
from emotion_tf.training.outputs import inference, outputs
from emotion_tf.training.run_folder import RunFolder

BATCH = 64


class Evaluated(NamedTuple):
    """A run on a split.

    Attributes:
        probabilities: calibrated, float32 (N, C).
        rows: what identifies each utterance.
        numbers: metrics, as `metrics.json` keeps them.
        outputs: what the model itself said.
    """

    probabilities: np.ndarray
    rows: list[dict[str, Any]]
    numbers: dict[str, Any]
    outputs: Outputs


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
    read = {"labels": True, "tokenizer_sha256": run.config.uses_text, "face_size": run.config.uses_face}
    for name in (name for name, matters in read.items() if matters):
        if getattr(spec, name) != getattr(run.spec, name):
            raise UserError(
                f"{data} does not fit the run {run.path}: {name} is {getattr(spec, name)!r}. Expected "
                f"{getattr(run.spec, name)!r}. Prepare it as the run's data was."
            )
    check_context(run.config, data, spec.context)


def calibrate(
    folder: Path, model: keras.Model, preprocess: Preprocessor, dev: Rows, infer: Callable[[Any], Any] | None = None
) -> Choice:
    """Chooses temperatures and thresholds by validation utterances, and keeps them in the run's folder.

    Args:
        folder: of the run.
        model: inputs to logits.
        preprocess: that makes its inputs.
        dev: the utterances.
        infer: the same function as `model`, where it was traced already.
    """
    choice = choose(outputs(model, infer or inference(model), pipeline.eval_batches(dev, preprocess, BATCH)))
    write_choice(folder, choice)
    return choice


def evaluate(run: RunFolder, data: Path, info: dict[str, Any], split: str) -> Evaluated:
    """A run on a split, with the temperatures that it was given. Raises UserError when the data do not fit."""
    check_data(run, data, records.data_spec(info))
    rows = pipeline.split_rows(data, info, split)
    model = run.model
    found = outputs(model, inference(model), pipeline.eval_batches(rows, run.preprocessor(model), BATCH))
    probabilities = run.choice.temperatures.probabilities(found.logits, found.pattern)
    known = list(pipeline.read_rows(rows))
    numbers = metrics(found.label, probabilities, run.labels, run.majority, found.weight)
    group = np.array([row["dialogue_id"] for row in known])
    between = intervals(found.label, probabilities.argmax(axis=1), group, weight=found.weight)
    numbers["intervals"] = {k: [b if np.isfinite(b) else None for b in bounds] for k, bounds in between.items()}
    numbers["calibration"] = _calibration(run.choice.temperatures, found, probabilities)
    return Evaluated(probabilities, known, numbers, found)


def _calibration(temperatures: Temperatures, found: Outputs, probabilities: np.ndarray) -> dict[str, Any]:
    """The calibration error with the temperatures and without, and the cross-entropy without."""
    raw = softmax(found.logits, axis=1)
    chosen = np.log(np.maximum(raw[np.arange(len(raw)), found.label], np.finfo(np.float32).tiny))
    return {
        "temperatures": dict(zip(PATTERNS, temperatures.values.tolist(), strict=True)),
        "expected_calibration_error": calibration_error(found.label, probabilities, found.weight),
        "uncalibrated": {
            "expected_calibration_error": calibration_error(found.label, raw, found.weight),
            "log_loss": -float(np.average(chosen, weights=found.weight)),
        },
    }
