"""Votes of several models: combination of their probabilities, fitting, and selection of the method.

A mean of calibrated probabilities is under-confident (Ranjan and Gneiting 2010, "Combining probability forecasts",
theorem 1), above all if its members depend little on each other. So a convex combination has a temperature. Stacking
has none: the regression sets the scale of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from emotion_tf.evaluation.calibration import is_sufficient
from emotion_tf.evaluation.folds import dialogue_folds
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.reliability import calibration_error, confidence_of
from emotion_tf.evaluation.temperature import RANGE, fit_temperature

METHODS = {
    "soft": "mean of the members' probabilities, with a temperature",
    "weighted": "convex combination that minimises the log loss (linear opinion pool: Genest and Zidek 1986), with a "
    "temperature",
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

    def counted(self) -> MemberPredictions:
        """Returns the predictions of the utterances of positive weight."""
        return self.subset(self.weight > 0)

    def scores(self, probabilities: np.ndarray, predicted: np.ndarray | None = None) -> tuple[float, float, float]:
        """Returns weighted F1, log loss and calibration error.

        Args:
            probabilities: float (N, C).
            predicted: int (N,), predicted classes; by default the most probable ones.
        """
        predicted = probabilities.argmax(axis=1) if predicted is None else predicted
        confidence = confidence_of(probabilities, predicted)
        return (
            weighted_f1(self.label, predicted, self.weight),
            self.log_loss(probabilities),
            calibration_error(predicted == self.label, confidence, self.weight),
        )

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
        temperature: of a convex combination: the divisor of its logarithm.
        coefficients: float (M, C, C), of stacking: maps each member's log-probabilities to logits.
        bias: float (C,), of stacking.
        strength: of stacking: the selected value of `STRENGTHS`.
    """

    method: str
    weights: np.ndarray | None = None
    temperature: float = 1.0
    coefficients: np.ndarray | None = None
    bias: np.ndarray | None = None
    strength: float | None = None

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

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as JSON values, without those that are None."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vote:
        """Creates a vote from the result of `to_json`. Raises ValueError or another built-in error if it is none."""
        names = ("coefficients", "bias") if values["method"] == "stacking" else ("weights",)
        arrays = {name: np.array(values[name], float) for name in names}
        temperature = float(values["temperature"])
        vote = cls(values["method"], **arrays, temperature=temperature, strength=values.get("strength"))
        if vote.method not in METHODS or not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError(f"Expected one of {', '.join(METHODS)}, and finite numbers")
        if not RANGE[0] / 2 < vote.temperature < RANGE[1] * 2:
            raise ValueError(f"Expected a temperature from {RANGE[0]} to {RANGE[1]}. Received: {vote.temperature}")
        return vote

    def check_shape(self, members: int, classes: int) -> None:
        """Raises ValueError if the vote is not one of so many members and classes."""
        expected = {"coefficients": (members, classes, classes), "bias": (classes,), "weights": (members,)}
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"Expected {name} of the shape {shape}. Received: {array.shape}")


@dataclass(frozen=True)
class FittedVote:
    """A fitted vote with its cross-validated results.

    Attributes:
        vote: the vote, fitted on all utterances.
        probabilities: float (N, C), out-of-fold probabilities: each by a vote that was fitted without its dialogue.
        weighted_f1, log_loss, calibration_error: metrics of these probabilities.
    """

    vote: Vote
    probabilities: np.ndarray
    weighted_f1: float
    log_loss: float
    calibration_error: float


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
    vote, counted = fit(method, predictions), predictions.counted()
    probabilities = vote.combine(predictions.probabilities)  # stays for dialogues of weight 0, which are in no fit
    for train, held_out in _folds(counted):
        rows = np.isin(predictions.group, counted.group[held_out])
        probabilities[rows] = fit(method, counted.subset(train)).combine(predictions.probabilities[:, rows])
    return FittedVote(vote, probabilities, *predictions.scores(probabilities))


def fit(method: str, predictions: MemberPredictions) -> Vote:
    """Fits one method to the utterances of positive weight.

    The weighted vote minimises the log loss, which is convex in the weights. Weighted F1 is not, and on a thousand
    utterances its maximum depends on single utterances.
    """
    predictions = predictions.counted()
    if method == "stacking":
        return _fit_stacking(predictions)
    members = len(predictions.probabilities)
    pool = Vote(method, np.full(members, 1 / members) if method == "soft" else _fit_weights(predictions))
    logits = pool.logits(predictions.probabilities)
    if not is_sufficient(logits.argmax(axis=1) != predictions.label):
        return pool
    return replace(pool, temperature=fit_temperature(predictions.label, logits, predictions.weight))


def _fit_weights(predictions: MemberPredictions) -> np.ndarray:
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
    return weights / weights.sum()


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
    return dialogue_folds(predictions.label, predictions.group, FOLDS)
