"""The report of a run on a split, as one self-contained HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from emotion_tf.evaluation import charts, pages
from emotion_tf.evaluation.axis import Axis, zoomed_axis
from emotion_tf.evaluation.before_use import TITLE, before_use
from emotion_tf.evaluation.calibration import NONE, PATTERNS, Calibration, Outputs, Temperatures
from emotion_tf.evaluation.colours import MAX_OPACITY
from emotion_tf.evaluation.mistakes import Explanation, worst_mistakes
from emotion_tf.evaluation.modalities import Contribution
from emotion_tf.evaluation.reliability import calibration_error, confidence_of, rank, reliability
from emotion_tf.evaluation.selective import (
    PROMISE,
    SelectiveScores,
    Threshold,
    format_threshold,
    risk_coverage,
    score_threshold,
)
from emotion_tf.evaluation.significance import Bounds, accuracy_interval, class_intervals, format_bounds
from emotion_tf.evaluation.slices import Slice, slices
from emotion_tf.run_info import Corpus


@dataclass(frozen=True)
class ReportData:
    """The contents of the report.

    Attributes:
        run: the run's name.
        split: the evaluated split.
        labels: C class names.
        majority: most frequent class in training.
        numbers: metrics of the split, as `evaluate` writes them.
        outputs: outputs of the model on the N utterances of the split.
        calibration: temperatures and thresholds, as fitted on the validation split.
        table: the N utterances, as `data.utterances.read_utterances` returns them.
        facts: name -> value: data, hashes, seed, commands.
        optimistic_because: why the results are optimistic on this split; empty if they are not.
        corpus: corpus that the run was trained on: meld or demo; empty: the user's own.
        training_data: the run's own data set, if this is another one.
        history: one row per epoch; None if unknown.
        contributions: what each modality contributes.
        contributions_note: why `contributions` is empty or incomplete.
        best_accuracy: modality -> best possible accuracy, if the data set states it.
        texts: row -> its ids, speaker, text and context, as `data.utterances.read_texts` returns them.
        crops: row -> JPEG of its face.
        explanations: row -> explanation of the prediction.
    """

    run: str
    split: str
    labels: tuple[str, ...]
    majority: int
    numbers: Mapping[str, Any]
    outputs: Outputs
    calibration: Calibration
    table: pd.DataFrame
    facts: Mapping[str, str]
    optimistic_because: str = ""
    corpus: Corpus = ""
    training_data: str = ""
    history: pd.DataFrame | None = None
    contributions: Sequence[Contribution] = ()
    contributions_note: str = ""
    best_accuracy: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    crops: Mapping[int, bytes] = field(default_factory=dict)
    explanations: Mapping[int, Explanation] = field(default_factory=dict)

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities, (N, C)."""
        return self.calibration.temperatures.probabilities(self.outputs.logits, self.outputs.pattern)

    @property
    def group(self) -> np.ndarray:
        """Dialogue of each utterance (N,)."""
        return self.table["dialogue_id"].to_numpy()


class ClassRow(NamedTuple):
    """A row of the table of classes."""

    name: str
    precision: float
    recall: float
    f1: float
    f1_interval: Bounds
    support: float
    share: float
    mean_probability: float
    calibration_error: float


class Cell(NamedTuple):
    """A cell of the confusion matrix: count, share of the true class, opacity of its background."""

    utterances: int
    share: float
    opacity: float


class PatternRow(NamedTuple):
    """Calibration of the utterances with the same modalities."""

    name: str
    utterances: int
    temperature: float
    source: str
    before: float
    after: float


class ThresholdRow(NamedTuple):
    """A threshold, as fitted on dev and as printed, and its results on this split."""

    threshold: Threshold
    printed: str
    scores: SelectiveScores
    precision_interval: Bounds


class Mistake(NamedTuple):
    """A wrong prediction, as the page shows it: the probability of the predicted class comes first."""

    name: str
    speaker: str
    utterance: str
    before: list[str]
    label: str
    predicted: str
    probabilities: list[tuple[str, float]]
    crop: bytes | None
    explanation: Explanation | None


def write_report(path: Path, report: ReportData) -> None:
    """Writes the report."""
    outputs, probabilities = report.outputs, report.probabilities
    predicted = outputs.predicted
    correct, confidence = predicted == outputs.label, confidence_of(probabilities, predicted)
    before = confidence_of(softmax(outputs.logits, axis=1), predicted)
    bins = [reliability(correct, p, outputs.weight) for p in (before, confidence)]
    counts = outputs.weight > 0
    curve = risk_coverage(correct[counts], confidence[counts])
    classes, of_slices = _classes(report, predicted), _slices(report, predicted)
    pages.write(
        path,
        "report.html",
        report=report,
        before_use_title=TITLE,
        before_use=before_use(report.corpus),
        dialogues=len(np.unique(report.group)),
        classes=classes,
        class_axis=_axis((row.f1, row.f1_interval) for row in classes),
        confusion=_confusion(report.numbers["confusion"]),
        format_bounds=format_bounds,
        charts={
            "precision_recall": charts.precision_recall(outputs.label, probabilities, report.labels, outputs.weight),
            "reliability": charts.reliability_diagram(*bins),
            "risk": charts.risk_coverage_curve(curve, float(curve.risk[-1])),
        },
        learning=_learning(report.history),
        patterns=_patterns(report, correct, before, confidence),
        slices=of_slices,
        slice_axis=_axis((row.accuracy, row.accuracy_interval) for _, group in of_slices for row in group),
        curve=curve,
        thresholds=_thresholds(report, correct, confidence),
        promise=PROMISE,
        unpromised=report.calibration.unpromised,
        mistakes=[_mistake(report, row) for row in worst_mistakes(correct, confidence, outputs.weight)],
    )


def _axis(rows: Iterable[tuple[float, Bounds]]) -> Axis:
    """Returns an axis that holds these values and their intervals."""
    return zoomed_axis(x for value, bounds in rows for x in (value, *(bounds or ())))


def _classes(report: ReportData, predicted: np.ndarray) -> list[ClassRow]:
    outputs, count, total = report.outputs, len(report.labels), float(report.outputs.weight.sum())
    bounds = class_intervals(outputs.label, predicted, report.group, count, weight=outputs.weight)
    return [
        ClassRow(
            name,
            row["precision"],
            row["recall"],
            row["f1"],
            f1_interval,
            row["support"],
            row["support"] / total,
            row["mean_probability"],
            row["calibration_error"],
        )
        for (name, row), f1_interval in zip(report.numbers["per_class"].items(), bounds, strict=True)
    ]


def _confusion(confusion: Sequence[Sequence[int]]) -> list[list[Cell]]:
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        [Cell(int(n), float(share), float(MAX_OPACITY * share)) for n, share in zip(row, part, strict=True)]
        for row, part in zip(counts, shares, strict=True)
    ]


def _learning(history: pd.DataFrame | None) -> dict[str, Any] | None:
    if history is None or history.empty:
        return None
    best = history.loc[history["dev_weighted_f1"].idxmax()]
    epoch = int(best["epoch"])
    curves = {"loss": charts.loss_curves(history, epoch), "f1_curve": charts.f1_curve(history, epoch)}
    return {**curves, "epoch": epoch, "epochs": len(history), "f1": float(best["dev_weighted_f1"])}


def _patterns(report: ReportData, correct: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[PatternRow]:
    """Returns a row for each pattern; `before` and `after` are the confidences (N,) without and with temperatures."""
    outputs, temperatures, rows = report.outputs, report.calibration.temperatures, []
    for i, name in enumerate(PATTERNS):
        selected = (outputs.pattern == i) & (outputs.weight > 0)
        if selected.any():
            errors = [
                calibration_error(correct[selected], confidence[selected], outputs.weight[selected])
                for confidence in (before, after)
            ]
            temperature = float(temperatures.values[i])
            rows.append(PatternRow(name, int(selected.sum()), temperature, _fitted_on(temperatures, name), *errors))
    return rows


def _fitted_on(temperatures: Temperatures, pattern: str) -> str:
    """Returns the utterances that the temperature of a pattern was fitted on, in words."""
    if temperatures == NONE:
        return "none: the run is not calibrated"
    count, wrong = temperatures.fitted_on.get(pattern, (0, 0))
    if pattern in temperatures.own:
        return f"{count} with these modalities ({wrong} wrong)"
    if temperatures.pooled == 1:
        return "none: too few utterances"
    return f"all utterances, since only {count} ({wrong} wrong) have these modalities"


def _slices(report: ReportData, predicted: np.ndarray) -> list[tuple[str, list[Slice]]]:
    outputs = report.outputs
    rows = slices(report.table, outputs.label, predicted, report.majority, outputs.weight)
    return [(kind, list(group)) for kind, group in itertools.groupby(rows, key=lambda row: row.kind)]


def _thresholds(report: ReportData, correct: np.ndarray, confidence: np.ndarray) -> list[ThresholdRow]:
    rows, weight = [], report.outputs.weight
    for threshold in report.calibration.thresholds:
        if threshold.threshold is None:
            continue
        answered = (confidence >= threshold.threshold) & (weight > 0)
        scores = score_threshold(correct, confidence, threshold.threshold, weight)
        bounds = accuracy_interval(correct[answered], report.group[answered], weight[answered])
        rows.append(ThresholdRow(threshold, format_threshold(threshold.threshold), scores, bounds))
    return rows


def _mistake(report: ReportData, row: int) -> Mistake:
    facts, probabilities = report.texts[row], report.probabilities[row]
    predicted = report.labels[report.outputs.predicted[row]]
    ranked = rank(report.labels, probabilities, predicted)
    return Mistake(
        f"{facts['dialogue_id']} {facts['utterance_id']}",
        facts["speaker"],
        facts["utterance"],
        facts["before"],
        report.labels[report.outputs.label[row]],
        predicted,
        ranked[:3],
        report.crops.get(row),
        report.explanations.get(row),
    )
