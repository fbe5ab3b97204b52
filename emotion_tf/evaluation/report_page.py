"""The report of a run as one self-contained HTML page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax

from emotion_tf.evaluation import charts, pages
from emotion_tf.evaluation.before_use import BEFORE_USE, TITLE
from emotion_tf.evaluation.calibration import NONE, PATTERNS, Calibration, Outputs
from emotion_tf.evaluation.mistakes import Explanation, worst
from emotion_tf.evaluation.modalities import Help
from emotion_tf.evaluation.reliability import calibration_error, reliability
from emotion_tf.evaluation.selective import Kept, Threshold, kept, risk_coverage
from emotion_tf.evaluation.significance import class_intervals, interval
from emotion_tf.evaluation.slices import Slice, slices

SHADE = 0.85


@dataclass(frozen=True)
class Evidence:
    """All that the report is made of.

    Attributes:
        run: the run's name.
        split: what was evaluated.
        labels: C class names.
        majority: class most frequent in training.
        numbers: metrics of the split, as `evaluate` writes them.
        outputs: of the model on the split, N utterances.
        calibration: temperatures and thresholds, as fitted on the validation split.
        table: the N utterances, as `data.utterances.read_utterances` gives them.
        facts: name -> value: data, hashes, seed, commands.
        seen: what the model or its calibration has had from these very utterances; empty: nothing.
        home: the run's own data set, where this is another one.
        history: one line an epoch; None: not known.
        helps: what each modality is worth.
        helps_missing: why there is nothing, or less, in `helps`.
        ceiling: best accuracy that there can be, by modality, where the data set knows it.
        crops: row -> JPEG of its face.
        explanations: row -> why it was predicted so.
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
    seen: str = ""
    home: str = ""
    history: pd.DataFrame | None = None
    helps: Sequence[Help] = ()
    helps_missing: str = ""
    ceiling: Mapping[str, float] = field(default_factory=dict)
    crops: Mapping[int, bytes] = field(default_factory=dict)
    explanations: Mapping[int, Explanation] = field(default_factory=dict)

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated, (N, C)."""
        return self.calibration.temperatures.probabilities(self.outputs.logits, self.outputs.pattern)

    @property
    def group(self) -> np.ndarray:
        """Dialogue of each utterance (N,)."""
        return self.table["dialogue_id"].to_numpy()


class ClassRow(NamedTuple):
    """A class in the table of classes."""

    name: str
    precision: float
    recall: float
    f1: float
    f1_interval: tuple[float, float]
    support: float


class Cell(NamedTuple):
    """A cell of the confusion matrix: count, share of its true class, background and colour of its text."""

    utterances: int
    share: float
    background: str
    colour: str


class PatternRow(NamedTuple):
    """Calibration of the utterances with the same modalities."""

    name: str
    utterances: int
    temperature: float
    source: str
    before: float
    after: float


class ThresholdRow(NamedTuple):
    """A threshold, and what it leaves of this split."""

    chosen: Threshold
    here: Kept
    precision_interval: tuple[float, float]


class Mistake(NamedTuple):
    """A wrong prediction as it is shown."""

    name: str
    speaker: str
    utterance: str
    before: list[str]
    label: str
    predicted: str
    probabilities: list[tuple[str, float]]
    crop: bytes | None
    explanation: Explanation | None


def write_report(path: Path, evidence: Evidence) -> None:
    """Writes the page."""
    outputs, probabilities = evidence.outputs, evidence.probabilities
    predicted = probabilities.argmax(axis=1)
    raw = softmax(outputs.logits, axis=1)
    bins = [reliability(outputs.label, p, outputs.weight) for p in (raw, probabilities)]
    curve = risk_coverage(outputs.label, probabilities)
    pages.write(
        path,
        "report.html",
        evidence=evidence,
        before_use_title=TITLE,
        before_use=BEFORE_USE,
        dialogues=len(np.unique(evidence.group)),
        classes=_classes(evidence, predicted),
        confusion=_confusion(evidence.numbers["confusion"]),
        charts={
            "precision_recall": charts.precision_recall(outputs.label, probabilities, evidence.labels),
            "reliability": charts.reliability_diagram(*bins),
            "risk": charts.risk_coverage_curve(curve, float(np.mean(predicted != outputs.label))),
        },
        learning=_learning(evidence.history),
        patterns=_patterns(evidence, raw),
        slices=_slices(evidence, predicted),
        curve=curve,
        thresholds=_thresholds(evidence),
        mistakes=[_mistake(evidence, row) for row in worst(outputs.label, probabilities)],
    )


def _classes(evidence: Evidence, predicted: np.ndarray) -> list[ClassRow]:
    outputs, count = evidence.outputs, len(evidence.labels)
    between = class_intervals(outputs.label, predicted, evidence.group, count, weight=outputs.weight)
    return [
        ClassRow(name, row["precision"], row["recall"], row["f1"], bounds, row["support"])
        for (name, row), bounds in zip(evidence.numbers["per_class"].items(), between, strict=True)
    ]


def _confusion(confusion: Sequence[Sequence[int]]) -> list[list[Cell]]:
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [
        [
            Cell(int(n), float(share), f"rgba(43,108,163,{SHADE * share:.2f})", "#fff" if share > 0.6 else "#222")
            for n, share in zip(row, part, strict=True)
        ]
        for row, part in zip(counts, shares, strict=True)
    ]


def _learning(history: pd.DataFrame | None) -> dict[str, Any] | None:
    if history is None or history.empty:
        return None
    best = history.loc[history["dev_weighted_f1"].idxmax()]
    chart = charts.learning_curves(history, int(best["epoch"]))
    return {"chart": chart, "epoch": int(best["epoch"]), "epochs": len(history), "f1": float(best["dev_weighted_f1"])}


def _patterns(evidence: Evidence, raw: np.ndarray) -> list[PatternRow]:
    outputs, temperatures, rows = evidence.outputs, evidence.calibration.temperatures, []
    for i, name in enumerate(PATTERNS):
        of = outputs.pattern == i
        if of.any():
            count, wrong = temperatures.fitted_on.get(name, (0, 0))
            source = f"its own {count} ({wrong} wrong)"
            if name not in temperatures.own:
                source = (
                    "none" if temperatures.pooled == 1 else f"all together, with {count} ({wrong} wrong) of its own"
                )
            errors = [
                calibration_error(outputs.label[of], p[of], outputs.weight[of]) for p in (raw, evidence.probabilities)
            ]
            if temperatures == NONE:
                source = "nothing: the run is not calibrated"
            rows.append(PatternRow(name, int(of.sum()), float(temperatures.values[i]), source, *errors))
    return rows


def _slices(evidence: Evidence, predicted: np.ndarray) -> list[tuple[str, list[Slice]]]:
    outputs = evidence.outputs
    found = slices(evidence.table, outputs.label, predicted, evidence.majority, outputs.weight)
    return [(kind, list(group)) for kind, group in itertools.groupby(found, key=lambda one: one.kind)]


def _thresholds(evidence: Evidence) -> list[ThresholdRow]:
    label, probabilities = evidence.outputs.label, evidence.probabilities
    right = probabilities.argmax(axis=1) == label
    rows = []
    for one in evidence.calibration.thresholds:
        sure = probabilities.max(axis=1) >= one.threshold
        sums = np.stack([right & sure, sure], axis=1).astype(float)
        between = interval(sums, evidence.group, _ratio)
        rows.append(ThresholdRow(one, kept(label, probabilities, one.threshold), between))
    return rows


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def _mistake(evidence: Evidence, row: int) -> Mistake:
    facts, probabilities = evidence.table.iloc[row], evidence.probabilities[row]
    ranked = sorted(zip(evidence.labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    return Mistake(
        f"{facts['dialogue_id']} {facts['utterance_id']}",
        facts["speaker"],
        facts["utterance"],
        facts["before"],
        evidence.labels[evidence.outputs.label[row]],
        ranked[0][0],
        ranked[:3],
        evidence.crops.get(row),
        evidence.explanations.get(row),
    )
