"""Evaluation of a run on a split: probabilities, metrics, calibration; checks that the data fit the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from emotion_tf.cluster import compute
from emotion_tf.config import SMOKE_ROWS, Config
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.rows import Rows
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
from emotion_tf.evaluation.reliability import calibration_error, class_calibration_errors, confidence_of
from emotion_tf.evaluation.significance import intervals
from emotion_tf.models.hub_handles import load_vocabulary
from emotion_tf.models.two_tower import TwoTower
from emotion_tf.progress import stage, track_batches
from emotion_tf.run_info import DataSpec
from emotion_tf.runs.place import Place
from emotion_tf.runs.run import Run
from emotion_tf.training.losses import logit_shift
from emotion_tf.training.outputs import Infer, collect_outputs, inference, join_outputs
from emotion_tf.wording import plural

BATCH = 64


class Evaluation(NamedTuple):
    """Results of a run on a split.

    Attributes:
        probabilities: calibrated probabilities, float32 (N, C).
        rows: the utterances.
        metrics: metrics, as in `metrics.json`.
        outputs: outputs of the model.
        dialogue: dialogue of each utterance, int64 (N,), see `pipeline.Labels`.
    """

    probabilities: np.ndarray
    rows: Rows
    metrics: dict[str, Any]
    outputs: Outputs
    dialogue: np.ndarray


def check_tokenizer(config: Config, spec: DataSpec, encoder: str | None) -> None:
    """Raises UserError if the word pieces of the data set are not those of the encoder."""
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
    """Raises UserError if the data set stores less context than the model reads."""
    for name in ("context", "future"):
        count = getattr(config.text, name)
        if config.uses_text and count > dataset.context:
            raise UserError(
                f"{dataset.path} stores {plural(dataset.context, 'utterance')} before and after each. Expected at "
                f"least the {count} of --text.{name}. Prepare it again with --context {count}."
            )


def check_data(run: Run, dataset: Dataset) -> None:
    """Raises UserError if a run cannot read the data set."""
    required = {"labels": True, "tokenizer_sha256": run.config.uses_text, "face_size": run.config.uses_face}
    for name in (name for name, is_required in required.items() if is_required):
        if getattr(dataset.spec, name) != getattr(run.spec, name):
            raise UserError(
                f"{dataset.path} does not fit the run {run.path}: {name} is {getattr(dataset.spec, name)!r}. Expected "
                f"{getattr(run.spec, name)!r}. Prepare it as the run's data was."
            )
    check_context(run.config, dataset)


def calibrate(
    run: Run, model: TwoTower, preprocess: Preprocessor, dev: Rows, infer: Infer | None = None
) -> Calibration:
    """Fits biases, temperatures and thresholds on validation utterances, and writes them into the run's folder.

    Args:
        run: the run, whose folder may have no model yet.
        model: its model.
        preprocess: preprocessor of the model.
        dev: validation utterances.
        infer: `inference(model)`, if it was traced before.
    """
    dialogue, train = pipeline.read_labels(dev).dialogue, run.config.train
    batches = pipeline.sorted_batches(dev, preprocess, BATCH)
    outputs = collect_outputs(
        infer or inference(model), track_batches(batches, len(dialogue), BATCH, "calibrating on dev")
    )
    shift = logit_shift(train, run.class_counts) if train.logit_adjustment else None
    with stage("fitting temperatures and thresholds"):
        calibration = fit_calibration(outputs, dialogue, shift, train.class_weights != "none")
    write_calibration(run.path, calibration)
    return calibration


def evaluate(run: Run, dataset: Dataset, split: str, smoke: bool = False, scheduler: str = "") -> Evaluation:
    """Evaluates a run on a split, with its temperatures.

    With `smoke` it evaluates `SMOKE_ROWS` rows of the split, and the metrics say so under "smoke". With the address of
    a scheduler of Dask, its workers compute the outputs of the shards (`cluster.compute`).

    Raises:
        UserError: the run cannot read the data; or as `cluster.compute` does.
    """
    check_data(run, dataset)
    split_rows = dataset.sample(split, SMOKE_ROWS) if smoke else dataset.rows(split)
    dialogue, title = pipeline.read_labels(split_rows).dialogue, f"evaluating {split}"
    if scheduler:
        place, total = Place.of(run, dataset), len(dataset.splits[split].shards)
        parts = ((place, split, number) for number in range(total))
        outputs = join_outputs(compute(scheduler, outputs_of_shard, parts, total, title, "shard"))
    else:
        with stage(f"opening {run.path}"):
            _ = run.model
        outputs = _outputs(run, split_rows, lambda batches: track_batches(batches, len(dialogue), BATCH, title))
    probabilities = run.calibration.temperatures.probabilities(outputs.logits, outputs.pattern)
    with stage("computing scores and intervals"):
        results = metrics(outputs.label, outputs.predicted, probabilities, run.labels, run.majority, outputs.weight)
        results["intervals"] = intervals(outputs.label, outputs.predicted, dialogue, outputs.weight)
        results["calibration"] = _calibration(run.calibration.temperatures, outputs)
    if smoke:
        results["smoke"] = f"{len(dialogue)} of {plural(dataset.splits[split].records, 'utterance')}"
    return Evaluation(probabilities, split_rows, results, outputs, dialogue)


def _outputs(run: Run, rows: Rows, show: Callable[[Iterable[Any]], Iterable[Any]] = iter) -> Outputs:
    batches = pipeline.sorted_batches(rows, run.preprocessor(run.model), BATCH)
    return collect_outputs(inference(run.model), show(batches))


def outputs_of_shard(place: Place, split: str, number: int) -> Outputs:
    """Returns the outputs of a run on a shard of a split, on a worker. Raises UserError as `Place.open` does."""
    return _outputs(*place.open(split, number))


def _calibration(temperatures: Temperatures, outputs: Outputs) -> dict[str, Any]:
    """Returns biases and temperatures, and the calibration errors and the cross-entropy without them."""
    raw = softmax(outputs.logits, axis=1)
    of_label = np.log(np.maximum(confidence_of(raw, outputs.label), np.finfo(np.float32).tiny))
    correct, confidence = outputs.predicted == outputs.label, confidence_of(raw, outputs.predicted)
    return {
        "temperatures": dict(zip(PATTERNS, temperatures.values.tolist(), strict=True)),
        "biases": list(temperatures.biases),
        "uncalibrated": {
            "expected_calibration_error": calibration_error(correct, confidence, outputs.weight),
            "classwise_calibration_error": float(class_calibration_errors(outputs.label, raw, outputs.weight).mean()),
            "log_loss": -float(np.average(of_label, weights=outputs.weight)),
        },
    }
