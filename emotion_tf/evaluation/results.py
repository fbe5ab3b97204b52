"""The document `metrics.json`: the results of a run on each split, or of a cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from emotion_tf import documents
from emotion_tf.documents import Amount, Command, Count, Score, Text

REPAIR = "Remove it and evaluate again."


class Floor(TypedDict):
    """Scores of always predicting the most frequent class of the training."""

    label: Text
    accuracy: Score
    weighted_f1: Score


class ClassScores(TypedDict):
    """Scores of a class."""

    precision: Score
    recall: Score
    f1: Score
    support: Amount


class Metrics(TypedDict):
    """Metrics of a split (`metrics.metrics`), as far as they are read again.

    `smoke` says how many utterances a smoke run was evaluated on: the numbers say nothing about the model.
    """

    utterances: Count
    accuracy: Score
    weighted_f1: Score
    macro_f1: Score
    majority_floor: Floor
    per_class: dict[str, ClassScores]
    intervals: NotRequired[dict[str, tuple[float, float] | None]]
    command: NotRequired[Text]
    data: NotRequired[Text]
    smoke: NotRequired[Text]


class CrossValidationResults(TypedDict):
    """Results of a cross-validation, as far as they are read again: the metrics of each repeat."""

    pooled: Annotated[list[Metrics], Field(min_length=1, max_length=10_000)]
    command: Command
    data: Text
    smoke: NotRequired[Text]


def read_metrics(folder: Path) -> dict[str, Metrics]:
    """Returns the metrics of each split. Raises UserError if `metrics.json` is missing or invalid."""
    return documents.read(folder / "metrics.json", dict[str, Metrics], REPAIR, extra="allow")


def read_cross_validation(folder: Path) -> CrossValidationResults:
    """Returns the results of a cross-validation. Raises UserError if `metrics.json` is missing or invalid."""
    return documents.read(folder / "metrics.json", CrossValidationResults, "Rerun its `crossval`.", extra="allow")


def read_splits(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the splits of a `metrics.json`, whose metrics are not checked. Raises UserError if it is invalid."""
    return {} if documents.is_missing(path) else documents.read(path, dict[str, dict[str, Any]], REPAIR, extra="allow")
