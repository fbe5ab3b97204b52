"""The vote of an ensemble, and the document `ensemble.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.special import softmax
from typing_extensions import TypedDict

from emotion_tf import documents
from emotion_tf.config import rules
from emotion_tf.documents import Amount, Command, Count, Finite, Labels, Name, Pathname, Sha256, Share, Text
from emotion_tf.errors import UserError
from emotion_tf.evaluation.temperature import Temperature
from emotion_tf.folders import ENSEMBLE
from emotion_tf.wording import plural

METHODS = {
    "soft": "mean of the members' probabilities, with a temperature",
    "weighted": "convex combination that minimises the log loss (linear opinion pool: Genest and Zidek 1986), with a "
    "temperature",
    "stacking": "multinomial logistic regression on log-probabilities (Wolpert 1992; Ting and Witten 1999)",
}
"""In order of complexity."""

FLOOR = 1e-6
"""Lower bound of probabilities before a logarithm: predictions on disk may be 0."""


@dataclass(frozen=True)
class Vote:
    """A function that combines the probabilities of M members for C classes.

    Attributes:
        method: one of `METHODS`.
        weights: of the M members in a convex combination; None for stacking.
        temperature: of a convex combination: the divisor of its logarithm.
        coefficients: (M, C, C), of stacking: maps each member's log-probabilities to logits.
        bias: (C,), of stacking.
        strength: of stacking: the selected strength of the penalty.
    """

    method: str
    weights: tuple[Share, ...] | None = None
    temperature: Temperature = 1.0
    coefficients: tuple[tuple[tuple[Finite, ...], ...], ...] | None = None
    bias: tuple[Finite, ...] | None = None
    strength: Amount | None = None

    def __post_init__(self) -> None:
        """Raises UserError for an unknown method, arrays that it does not have, or weights that do not sum to 1."""
        arrays = ("coefficients", "bias") if self.method == "stacking" else ("weights",)
        rules.one_of("method", self.method, METHODS)
        for name in ("weights", "coefficients", "bias"):
            if (getattr(self, name) is not None) != (name in arrays):
                raise UserError(f"Invalid `{name}`. A {self.method} vote has {' and '.join(arrays)} alone.")
        if self.weights is not None and abs(sum(self.weights) - 1) > 1e-6:
            raise UserError(f"Invalid `weights`. Expected a sum of 1. Received: {sum(self.weights):g}.")

    def logits(self, probabilities: Any, ops: Any = np) -> Any:
        """Combines the probabilities (M, N, C) of the members into logits (N, C).

        Takes tensors with `ops=keras.ops`, so that the served graph and the evaluation share one rule.
        """

        def array(values: Any) -> Any:
            return ops.array(values, dtype=probabilities.dtype.name)

        if self.weights is not None:
            pool = ops.einsum("m,mnc->nc", array(self.weights), probabilities)
            return ops.log(ops.maximum(pool, FLOOR)) / self.temperature
        logs = ops.log(ops.maximum(probabilities, FLOOR))
        return ops.einsum("mnc,mck->nk", logs, array(self.coefficients)) + array(self.bias)

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """Combines the probabilities (M, N, C) of the members into (N, C)."""
        return softmax(self.logits(probabilities), axis=1)

    def check_shape(self, members: int, classes: int) -> None:
        """Raises UserError if the vote is not one of so many members and classes."""
        expected = {"coefficients": (members, classes, classes), "bias": (classes,), "weights": (members,)}
        for name, shape in expected.items():
            values = getattr(self, name)
            if values is not None and (received := _shape(values)) != shape:
                raise UserError(
                    f"Invalid `{name}`. Expected the shape {shape}, for {plural(members, 'member')} and "
                    f"{plural(classes, 'label')}. Received: {received or 'lists of different lengths'}."
                )


def to_tuples(array: np.ndarray) -> Any:
    """Returns an array as nested tuples of numbers."""
    return tuple(map(to_tuples, array)) if array.ndim else array.item()


def _shape(values: Any) -> tuple[int, ...]:
    """Returns the shape of nested tuples; empty if they have different lengths."""
    try:
        return np.shape(values)
    except ValueError:
        return ()


@dataclass(frozen=True)
class Member:
    """A member of an ensemble: its name, its folder from that of the ensemble, the hash of its files, and its seed."""

    name: Name
    path: Pathname
    sha256: Sha256
    seed: Count


class FittedOn(TypedDict):
    """What a vote was fitted on: dev or the files of out-of-fold predictions, and the number of utterances."""

    predictions: Text
    utterances: Count


@dataclass(frozen=True, kw_only=True)
class EnsembleInfo:
    """The document `ensemble.json`.

    Attributes:
        vote: how the members' probabilities are combined.
        members: the members, in the order of the vote.
        labels: class names, in the order of the probabilities.
        parameters: number of parameters of all members; None if unknown.
        data: folder of the data set.
        command: the command line.
        fitted_on: what the vote was fitted on.
        selected_by: how the method was selected.
        cross_validated: method -> metric -> score.
    """

    vote: Vote
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=1000)]
    labels: Labels
    parameters: Count | None
    data: Text
    command: Command
    fitted_on: FittedOn
    selected_by: Text
    cross_validated: dict[str, dict[str, Finite]]

    def __post_init__(self) -> None:
        """Raises UserError if the vote is one of another number of members or labels."""
        self.vote.check_shape(len(self.members), len(self.labels))


def read_ensemble_info(folder: Path) -> EnsembleInfo:
    """Reads `ensemble.json`. Raises UserError if it is missing or invalid."""
    return documents.read(
        folder / ENSEMBLE,
        EnsembleInfo,
        "Expected the file that `ensemble` wrote; make the ensemble again.",
    )
