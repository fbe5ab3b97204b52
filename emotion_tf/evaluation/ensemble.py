"""Ensembles: reads the members' predictions, applies votes, and returns results as those of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from emotion_tf.errors import UserError
from emotion_tf.evaluation.compare import KEYS, RunResults, check_same_utterances, row_weights
from emotion_tf.evaluation.csv_tables import read_csv
from emotion_tf.evaluation.metrics import metrics
from emotion_tf.evaluation.report import with_predictions
from emotion_tf.evaluation.votes import FittedVote, MemberPredictions

FORBIDDEN = ("predictions_train.csv", "predictions_test.csv")


def read_out_of_fold(path: Path) -> pd.DataFrame:
    """Reads out-of-fold predictions: a CSV with the columns of predictions_dev.csv.

    Raises:
        UserError: the file is not readable, a column is missing, or it has the predictions on train or test.
    """
    if path.name in FORBIDDEN:
        raise UserError(
            f"{path}: A vote cannot be fitted on the predictions on test, which is for reporting, or on train, which "
            "the member was trained on. Expected out-of-fold predictions, as `crossval` writes them (oof.csv)."
        )
    try:
        table = read_csv(path)
        _ = table[[*KEYS, "predicted"]]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"Cannot read the predictions {path}: {' '.join(str(error).split())}. Expected a CSV with the columns "
            f"{', '.join(KEYS)}, predicted and p_LABEL for each label."
        ) from None
    return table


def stack_predictions(tables: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> MemberPredictions:
    """Returns the predictions of the members (name -> table) as arrays.

    Raises:
        UserError: the utterances of the tables differ, a label is not in `labels`, or probabilities or weights are
            invalid.
    """
    check_same_utterances(tables)
    first = next(iter(tables.values()))
    unknown = sorted(
        {*first["emotion"], *(name for table in tables.values() for name in table["predicted"])} - {*labels}
    )
    if unknown or not len(first):
        raise UserError(
            f"{next(iter(tables))}: Expected utterances of the labels {', '.join(labels)}. "
            f"Received: {', '.join(unknown) or 'none at all'}."
        )
    order = {label: i for i, label in enumerate(labels)}
    return MemberPredictions(
        np.stack([_probabilities(name, table, labels) for name, table in tables.items()]),
        first["emotion"].map(order).to_numpy(),
        first["dialogue_id"].to_numpy(),
        row_weights(next(iter(tables)), first),
    )


def _probabilities(name: str, table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    columns = [f"p_{label}" for label in labels]
    received = [column for column in table if column.startswith("p_")]
    if sorted(received) != sorted(columns):
        raise UserError(
            f"{name}: Expected the columns {', '.join(columns)}. Received: {', '.join(received) or 'none'}."
        )
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    invalid = np.flatnonzero(~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3)))
    if len(invalid):
        raise UserError(
            f"{name}: Invalid probabilities in row {invalid[0] + 1}. Expected numbers of at least 0 that sum to 1. "
            f"Received: {', '.join(table[columns].iloc[invalid[0]])}."
        )
    return values


def apply_votes(
    fitted: Mapping[str, FittedVote],
    members: Sequence[RunResults],
    labels: Sequence[str],
    name: str,
    cross_validated: bool,
) -> dict[str, RunResults]:
    """Returns the results of each method on a split, as those of a run `NAME: METHOD`.

    Args:
        fitted: method -> fitted vote.
        members: results of the members on the split.
        labels: C class names.
        name: name of the ensemble.
        cross_validated: whether the methods were fitted on this split. The results are then those of cross-validation:
            each utterance is predicted by a vote that was fitted without its dialogue.
    """
    predictions = stack_predictions({run.name: run.table for run in members}, labels)
    results = {}
    for method, of_method in fitted.items():
        probabilities = (
            of_method.probabilities if cross_validated else of_method.vote.combine(predictions.probabilities)
        )
        results[method] = _as_run(f"{name}: {method}", members, labels, predictions, probabilities)
    return results


def _as_run(
    name: str,
    members: Sequence[RunResults],
    labels: Sequence[str],
    predictions: MemberPredictions,
    probabilities: np.ndarray,
) -> RunResults:
    table = members[0].table
    predicted = probabilities.argmax(axis=1)
    columns = [column for column in table if column != "predicted" and not column.startswith("p_")]
    majority = labels.index(members[0].metrics["majority_floor"]["label"])
    sizes = [run.parameters for run in members]
    return RunResults(
        name,
        {},
        metrics(predictions.label, predicted, probabilities, labels, majority, predictions.weight),
        with_predictions(table[columns], labels, predicted, probabilities),
        None,
        None if None in sizes else sum(size for size in sizes if size is not None),
    )


def member_scores(
    predictions: MemberPredictions, tables: Iterable[pd.DataFrame], labels: Sequence[str]
) -> list[tuple[float, float, float]]:
    """Returns weighted F1, log loss and calibration error of each member, from its own predictions."""
    order = {label: i for i, label in enumerate(labels)}
    return [
        predictions.scores(probabilities, table["predicted"].map(order).to_numpy())
        for probabilities, table in zip(predictions.probabilities, tables, strict=True)
    ]


METHOD_COLUMNS = (
    "member or method",
    "weighted F1",
    "log loss",
    "calibration error",
    "weights of the members and temperature (T), or strength (C)",
)


def method_rows(
    fitted: Mapping[str, FittedVote], members: Mapping[str, tuple[float, float, float]], chosen: str
) -> list[list[str]]:
    """Returns a row for each member (name -> scores) and each method; * marks the selected one."""
    rows = [[name, *(f"{score:.4f}" for score in scores), ""] for name, scores in members.items()]
    for method, of_method in fitted.items():
        vote = of_method.vote
        detail = f"C = {vote.strength:g}" if vote.weights is None else f"T = {vote.temperature:.3f}"
        weights = [
            f"{name} {w:.3f}" for name, w in zip(members, () if vote.weights is None else vote.weights, strict=False)
        ]
        scores = of_method.weighted_f1, of_method.log_loss, of_method.calibration_error
        mark = " *" if method == chosen else ""
        rows.append([method + mark, *(f"{score:.4f}" for score in scores), ", ".join([*weights, detail])])
    return rows
