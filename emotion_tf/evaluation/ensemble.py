"""Files of predictions to what votes are fitted on and applied to, and an ensemble's results as a run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from emotion_tf.errors import UserError
from emotion_tf.evaluation.compare import SAME, Compared, check_same, row_weights
from emotion_tf.evaluation.metrics import metrics, weighted_f1
from emotion_tf.evaluation.report import with_predictions
from emotion_tf.evaluation.votes import Ballots, Fitted

SEEN = ("predictions_train.csv", "predictions_test.csv")


def read_table(path: Path) -> pd.DataFrame:
    """Reads out-of-fold predictions: a CSV with the columns of predictions_dev.csv.

    Raises:
        UserError: not readable, a column is missing, or the file of a split that nothing may be fitted on.
    """
    if path.name in SEEN:
        raise UserError(
            f"{path}: Nothing may be fitted on these: test is only ever reported, and train its member has "
            "learned by heart. Expected out-of-fold predictions, as `crossval` writes them (oof.csv)."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        _ = table[list(SAME)]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"Cannot read the predictions {path}: {' '.join(str(error).split())}. Expected a CSV with the columns "
            f"{', '.join(SAME)} and p_LABEL of each label."
        ) from None
    return table


def to_ballots(tables: Mapping[str, pd.DataFrame], labels: Sequence[str]) -> Ballots:
    """The predictions of each member (name -> table) as arrays.

    Raises:
        UserError: the tables are of other utterances, a label is not of `labels`, a row holds no probabilities, or
            weights are none.
    """
    check_same(tables)
    first = next(iter(tables.values()))
    unknown = sorted(set(first["emotion"]) - set(labels))
    if unknown or not len(first):
        raise UserError(
            f"{next(iter(tables))}: Expected utterances of the labels {', '.join(labels)}. "
            f"Received: {', '.join(unknown) or 'none at all'}."
        )
    order = {label: i for i, label in enumerate(labels)}
    return Ballots(
        np.stack([_probabilities(name, table, labels) for name, table in tables.items()]),
        first["emotion"].map(order).to_numpy(),
        first["dialogue_id"].to_numpy(),
        row_weights(next(iter(tables)), first),
    )


def _probabilities(name: str, table: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    columns = [f"p_{label}" for label in labels]
    found = [column for column in table if column.startswith("p_")]
    if sorted(found) != sorted(columns):
        raise UserError(f"{name}: Expected the columns {', '.join(columns)}. Received: {', '.join(found) or 'none'}.")
    values = table[columns].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~((values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3)))
    if len(bad):
        raise UserError(
            f"{name}: row {bad[0] + 1} holds no probabilities. Expected numbers of at least 0 that sum to 1. "
            f"Received: {', '.join(table[columns].iloc[bad[0]])}."
        )
    return values


def apply(
    fitted: Mapping[str, Fitted], members: Sequence[Compared], labels: Sequence[str], name: str, cross_validated: bool
) -> dict[str, Compared]:
    """The results of each method on a split, as those of a run `NAME: METHOD`.

    Args:
        fitted: method -> what was fitted.
        members: the members' results on the split.
        labels: C class names.
        name: of the ensemble.
        cross_validated: the methods were fitted on this very split: each utterance is then answered by a vote that was
            fitted without its dialogue.
    """
    ballots = to_ballots({run.name: run.table for run in members}, labels)
    found = {}
    for method, one in fitted.items():
        probabilities = one.probabilities if cross_validated else one.vote.combine(ballots.probabilities)
        found[method] = _as_run(f"{name}: {method}", members, labels, ballots, probabilities)
    return found


def _as_run(
    name: str, members: Sequence[Compared], labels: Sequence[str], ballots: Ballots, probabilities: np.ndarray
) -> Compared:
    table = members[0].table
    own = [column for column in table if column != "predicted" and not column.startswith("p_")]
    majority = labels.index(members[0].metrics["majority_floor"]["label"])
    sizes = [run.parameters for run in members]
    return Compared(
        name,
        {},
        metrics(ballots.label, probabilities, labels, majority, ballots.weight),
        with_predictions(table[own], labels, probabilities),
        None,
        None if None in sizes else sum(size for size in sizes if size is not None),
    )


def member_scores(ballots: Ballots, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Weighted F1 and log loss of each member."""
    found = [
        (weighted_f1(ballots.label, p.argmax(axis=1), ballots.weight), ballots.log_loss(p))
        for p in ballots.probabilities
    ]
    return dict(zip(names, found, strict=True))


METHOD_COLUMNS = ("member or method", "weighted F1", "log loss", "weights of the members, or strength")


def method_rows(
    fitted: Mapping[str, Fitted], members: Mapping[str, tuple[float, float]], chosen: str
) -> list[list[str]]:
    """One row a member (name -> weighted F1 and log loss), then one a method, the chosen one marked."""
    found = [[name, f"{f1:.4f}", f"{loss:.4f}", ""] for name, (f1, loss) in members.items()]
    for method, one in fitted.items():
        weights = () if one.vote.weights is None else one.vote.weights
        detail = ", ".join(f"{name} {w:.3f}" for name, w in zip(members, weights, strict=False))
        mark = " *" if method == chosen else ""
        found.append(
            [method + mark, f"{one.weighted_f1:.4f}", f"{one.log_loss:.4f}", detail or f"C = {one.vote.strength:g}"]
        )
    return found
