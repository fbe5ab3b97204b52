"""Votes of several models: combination of their probabilities, fitting, and selection of the method."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from emotion_tf.errors import UserError
from emotion_tf.evaluation.metrics import weighted_f1

METHODS = {
    "soft": "mean of the members' probabilities; nothing is fitted",
    "weighted": "convex combination that minimises the log loss (linear opinion pool: Genest and Zidek 1986)",
    "stacking": "multinomial logistic regression on log-probabilities (Wolpert 1992; Ting and Witten 1999)",
}
"""In order of complexity."""

FLOOR = 1e-6
"""Lower bound of probabilities before a logarithm: predictions on disk may be 0."""
FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for the inverse strength of the L2 penalty of stacking (`C` in scikit-learn)."""


@dataclass(frozen=True)
class MemberPredictions:
    """Predictions of M members for N utterances, with their labels.

    Attributes:
        probabilities: float (M, N, C).
        label: int (N,), true classes.
        group: (N,), dialogue of each utterance; folds do not divide dialogues.
        weight: float (N,), weights of the utterances.
    """

    probabilities: np.ndarray
    label: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    def subset(self, rows: np.ndarray) -> MemberPredictions:
        """Returns the predictions of some utterances."""
        return MemberPredictions(self.probabilities[:, rows], self.label[rows], self.group[rows], self.weight[rows])

    def log_loss(self, probabilities: np.ndarray) -> float:
        """Returns the log loss of probabilities (N, C), which are at least `FLOOR`."""
        clipped = np.maximum(probabilities, FLOOR)
        clipped /= clipped.sum(axis=1, keepdims=True)
        return float(log_loss(self.label, clipped, labels=np.arange(clipped.shape[1]), sample_weight=self.weight))


@dataclass(frozen=True)
class Vote:
    """A function that combines the probabilities of M members for C classes.

    Attributes:
        method: one of `METHODS`.
        weights: float (M,), weights of a convex combination; None for stacking.
        coefficients: float (M, C, C), of stacking: maps each member's log-probabilities to logits.
        bias: float (C,), of stacking.
        strength: of stacking: the selected value of `STRENGTHS`.
    """

    method: str
    weights: np.ndarray | None = None
    coefficients: np.ndarray | None = None
    bias: np.ndarray | None = None
    strength: float | None = None

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """Combines the probabilities (M, N, C) of the members into (N, C)."""
        if self.weights is not None:
            return np.einsum("m,mnc->nc", self.weights, probabilities)
        logs = np.log(np.maximum(probabilities, FLOOR))
        return softmax(np.einsum("mnc,mck->nk", logs, np.asarray(self.coefficients)) + self.bias, axis=1)

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as JSON values, without those that are None."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vote:
        """Creates a vote from the result of `to_json`."""
        arrays = {name: np.array(values[name]) for name in ("weights", "coefficients", "bias") if name in values}
        return cls(values["method"], **arrays, strength=values.get("strength"))


@dataclass(frozen=True)
class FittedVote:
    """A fitted vote with its cross-validated results.

    Attributes:
        vote: the vote, fitted on all utterances.
        probabilities: float (N, C), out-of-fold probabilities: each by a vote that was fitted without its dialogue.
        weighted_f1, log_loss: metrics of these probabilities.
    """

    vote: Vote
    probabilities: np.ndarray
    weighted_f1: float
    log_loss: float


def fit_all(predictions: MemberPredictions) -> dict[str, FittedVote]:
    """Fits every method and scores it by cross-validation over dialogues.

    Raises:
        UserError: all utterances are of one dialogue.
    """
    # hundreds of fits of a few milliseconds: several threads would make them a hundred times slower
    with threadpool_limits(1):
        return {method: _fit_and_score(method, predictions) for method in METHODS}


def best_method(fitted: Mapping[str, FittedVote]) -> str:
    """Returns the method with the highest cross-validated weighted F1; the simplest among equals."""
    return max(METHODS, key=lambda method: fitted[method].weighted_f1)


def _fit_and_score(method: str, predictions: MemberPredictions) -> FittedVote:
    probabilities = np.empty(predictions.probabilities.shape[1:])
    for train, held_out in _folds(predictions):
        probabilities[held_out] = fit(method, predictions.subset(train)).combine(predictions.probabilities[:, held_out])
    score = weighted_f1(predictions.label, probabilities.argmax(axis=1), predictions.weight)
    return FittedVote(fit(method, predictions), probabilities, score, predictions.log_loss(probabilities))


def fit(method: str, predictions: MemberPredictions) -> Vote:
    """Fits one method.

    The weighted vote minimises the log loss, which is convex in the weights. Weighted F1 is not, and on a thousand
    utterances its maximum depends on single utterances.
    """
    members = len(predictions.probabilities)
    if method == "soft":
        return Vote(method, weights=np.full(members, 1 / members))
    return _fit_weights(predictions) if method == "weighted" else _fit_stacking(predictions)


def _fit_weights(predictions: MemberPredictions) -> Vote:
    of_label = np.maximum(predictions.probabilities[:, np.arange(len(predictions.label)), predictions.label], FLOOR)
    share = predictions.weight / predictions.weight.sum()
    members = len(of_label)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ of_label
        return -float(share @ np.log(mixed)), -(of_label / mixed) @ share

    result = minimize(
        loss,
        np.full(members, 1 / members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10},
    )
    weights = np.clip(result.x, 0, 1)
    return Vote("weighted", weights=weights / weights.sum())


def _fit_stacking(predictions: MemberPredictions) -> Vote:
    folds = list(_folds(predictions))

    def loss(strength: float) -> float:
        probabilities = np.empty(predictions.probabilities.shape[1:])
        for train, held_out in folds:
            probabilities[held_out] = _regress(predictions.subset(train), strength).combine(
                predictions.probabilities[:, held_out]
            )
        return predictions.log_loss(probabilities)

    return _regress(predictions, min(STRENGTHS, key=loss))


def _regress(predictions: MemberPredictions, strength: float) -> Vote:
    members, count, classes = predictions.probabilities.shape
    coefficients = np.zeros((members, classes, classes))
    bias = np.full(classes, np.log(FLOOR))  # for classes without an utterance
    present = np.unique(predictions.label)
    bias[present] = 0
    if len(present) > 1:
        logs = np.log(np.maximum(predictions.probabilities, FLOOR)).transpose(1, 0, 2).reshape(count, members * classes)
        # log-probabilities are far from unit scale: the default solver takes hundreds of steps, Newton's method 5
        model = LogisticRegression(C=strength, solver="newton-cholesky").fit(
            logs, predictions.label, predictions.weight
        )
        weights, intercept = model.coef_, model.intercept_
        if len(present) == 2:  # the logit of the second against the first
            weights, intercept = np.vstack([-weights / 2, weights / 2]), np.concatenate([-intercept / 2, intercept / 2])
        coefficients[..., present] = weights.T.reshape(members, classes, len(present))
        bias[present] = intercept
    return Vote("stacking", coefficients=coefficients, bias=bias, strength=strength)


def _folds(predictions: MemberPredictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the rows of each fold for fitting and for scoring; folds do not divide dialogues."""
    count = min(FOLDS, len(np.unique(predictions.group)), int(np.bincount(predictions.label).max()))
    if count < 2:
        raise UserError("Cross-validation needs two or more dialogues. Received: utterances of one dialogue.")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from folds.split(predictions.label, predictions.label, predictions.group)
