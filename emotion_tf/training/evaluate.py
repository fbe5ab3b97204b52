"""Evaluation of a run on a split: probabilities, metrics, calibration; checks that the data fit the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from emotion_tf.config import Config
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset, Rows
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import (
    PATTERNS,
    Calibration,
    Outputs,
    Temperatures,
    fit_calibration,
    write_calibration,
)
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.reliability import calibration_error
from emotion_tf.evaluation.significance import intervals
from emotion_tf.models.hub_handles import load_vocabulary
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.runs.run import Run
from emotion_tf.schema import DataSpec
from emotion_tf.training.outputs import Infer, collect_outputs, inference

BATCH = 64


class Evaluated(NamedTuple):
    """The results of a run on a split.

    Attributes:
        probabilities: calibrated, float32 (N, C).
        rows: what identifies each utterance.
        numbers: metrics, as in `metrics.json`.
        outputs: of the model.
    """

    probabilities: np.ndarray
    rows: list[dict[str, Any]]
    numbers: dict[str, Any]
    outputs: Outputs


def check_tokenizer(config: Config, spec: DataSpec, encoder: str | None) -> None:
    """Raises UserError if the data set's word pieces are not the encoder's."""
    if not config.uses_bert or encoder is None:
        return
    vocabulary, lower_case = load_vocabulary(encoder)
    if WordPieceTokenizer(vocabulary, lower_case).sha256 != spec.tokenizer_sha256:
        raise UserError(
            f"{config.data} was prepared with another tokenizer ({spec.tokenizer}) than the encoder "
            f"{config.text.encoder} has. "
            f"Prepare it again with --tokenizer {config.text.encoder}, or choose the encoder that fits."
        )


def check_context(config: Config, dataset: Dataset) -> None:
    """Raises UserError if the data set keeps fewer utterances around each than the model reads."""
    for name in ("context", "future"):
        wanted = getattr(config.text, name)
        if config.uses_text and wanted > dataset.context:
            raise UserError(
                f"{dataset.path} keeps {dataset.context} utterances before and after each. Expected the {wanted} of "
                f"--text.{name}: prepare it again with --context {wanted}."
            )


def check_data(run: Run, dataset: Dataset) -> None:
    """Raises UserError if a run cannot read the data set."""
    read = {"labels": True, "tokenizer_sha256": run.config.uses_text, "face_size": run.config.uses_face}
    for name in (name for name, matters in read.items() if matters):
        if getattr(dataset.spec, name) != getattr(run.spec, name):
            raise UserError(
                f"{dataset.path} does not fit the run {run.path}: {name} is {getattr(dataset.spec, name)!r}. Expected "
                f"{getattr(run.spec, name)!r}. Prepare it as the run's data was."
            )
    check_context(run.config, dataset)


def calibrate(
    folder: Path, model: TwoTower, preprocess: Preprocessor, dev: Rows, infer: Infer | None = None
) -> Calibration:
    """Fits temperatures and thresholds on validation utterances, and writes them into the run's folder.

    Args:
        folder: of the run.
        model: its model.
        preprocess: makes its inputs.
        dev: the utterances.
        infer: `inference(model)`, where it was traced before.
    """
    batches = pipeline.eval_batches(dev, preprocess, BATCH)
    calibration = fit_calibration(collect_outputs(infer or inference(model), batches))
    write_calibration(folder, calibration)
    return calibration


def evaluate(run: Run, dataset: Dataset, split: str) -> Evaluated:
    """Evaluates a run on a split, with its temperatures. Raises UserError if the data do not fit."""
    check_data(run, dataset)
    of_split = dataset.rows(split)
    model = run.model
    outputs = collect_outputs(inference(model), pipeline.eval_batches(of_split, run.preprocessor(model), BATCH))
    probabilities = run.calibration.temperatures.probabilities(outputs.logits, outputs.pattern)
    rows = list(pipeline.read_rows(of_split))
    numbers = metrics(outputs.label, probabilities, run.labels, run.majority, outputs.weight)
    group = np.array([row["dialogue_id"] for row in rows])
    bounds = intervals(outputs.label, probabilities.argmax(axis=1), group, weight=outputs.weight)
    numbers["intervals"] = {name: [b if np.isfinite(b) else None for b in pair] for name, pair in bounds.items()}
    numbers["calibration"] = _calibration(run.calibration.temperatures, outputs, probabilities)
    return Evaluated(probabilities, rows, numbers, outputs)


def _calibration(temperatures: Temperatures, outputs: Outputs, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns the calibration error with the temperatures and without, and the cross-entropy without."""
    raw = softmax(outputs.logits, axis=1)
    of_label = np.log(np.maximum(raw[np.arange(len(raw)), outputs.label], np.finfo(np.float32).tiny))
    return {
        "temperatures": dict(zip(PATTERNS, temperatures.values.tolist(), strict=True)),
        "expected_calibration_error": calibration_error(outputs.label, probabilities, outputs.weight),
        "uncalibrated": {
            "expected_calibration_error": calibration_error(outputs.label, raw, outputs.weight),
            "log_loss": -float(np.average(of_label, weights=outputs.weight)),
        },
    }
