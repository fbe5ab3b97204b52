"""Votes of several models: combination of their probabilities, fitting, and selection of the method.

A mean of calibrated probabilities is under-confident (Ranjan and Gneiting 2010, "Combining probability forecasts",
theorem 1), above all if its members depend little on each other. So a convex combination has a temperature. Stacking
has none: the regression sets the scale of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from threadpoolctl import threadpool_limits

from emotion_tf.evaluation.calibration import is_sufficient
from emotion_tf.evaluation.folds import dialogue_folds
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.reliability import calibration_error, confidence_of
from emotion_tf.evaluation.temperature import fit_temperature
from emotion_tf.evaluation.vote import FLOOR, METHODS, Vote, to_tuples

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
    weights = np.full(members, 1 / members) if method == "soft" else _fit_weights(predictions)
    pool = Vote(method, to_tuples(weights))
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
    return Vote("stacking", coefficients=to_tuples(coefficients), bias=to_tuples(bias), strength=strength)


def _folds(predictions: MemberPredictions) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return dialogue_folds(predictions.label, predictions.group, FOLDS)
