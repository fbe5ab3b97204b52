"""How the probabilities of several models become one, how that is fitted, and which way is chosen. All on arrays."""

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
    "soft": "the mean of the members' probabilities; nothing is fitted",
    "weighted": "their convex combination of least log loss (linear opinion pool: Genest and Zidek 1986)",
    "stacking": "multinomial logistic regression on their log-probabilities (Wolpert 1992; Ting and Witten 1999)",
}
"""Simplest first."""

FLOOR = 1e-6
"""Least probability whose logarithm is taken: predictions on disk may hold zeros."""
FOLDS = 5
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""What the inverse strength of stacking's L2 penalty (`C` of scikit-learn) is chosen from."""


@dataclass(frozen=True)
class Ballots:
    """Utterances that a vote is fitted on, with what M members say of them.

    Attributes:
        probabilities: float (M, N, C).
        label: int (N,), true classes.
        group: (N,), dialogue of each utterance: no dialogue is on both sides of a fold.
        weight: float (N,), of the utterances.
    """

    probabilities: np.ndarray
    label: np.ndarray
    group: np.ndarray
    weight: np.ndarray

    def part(self, rows: np.ndarray) -> Ballots:
        """Some of the utterances."""
        return Ballots(self.probabilities[:, rows], self.label[rows], self.group[rows], self.weight[rows])

    def log_loss(self, probabilities: np.ndarray) -> float:
        """Mean -log of the true classes' probabilities (N, C), none taken for less than `FLOOR`."""
        kept = np.maximum(probabilities, FLOOR)
        kept /= kept.sum(axis=1, keepdims=True)
        return float(log_loss(self.label, kept, labels=np.arange(kept.shape[1]), sample_weight=self.weight))


@dataclass(frozen=True)
class Vote:
    """How M members' probabilities of C classes become one.

    Attributes:
        method: of `METHODS`.
        weights: float (M,), a convex combination; None for stacking.
        coefficients: float (M, C, C), of stacking: from each member's log-probabilities to the logits.
        bias: float (C,), of stacking.
        strength: of stacking: the `C` that was chosen.
    """

    method: str
    weights: np.ndarray | None = None
    coefficients: np.ndarray | None = None
    bias: np.ndarray | None = None
    strength: float | None = None

    def combine(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities (M, N, C) of the members to (N, C)."""
        if self.weights is not None:
            return np.einsum("m,mnc->nc", self.weights, probabilities)
        logs = np.log(np.maximum(probabilities, FLOOR))
        return softmax(np.einsum("mnc,mck->nk", logs, np.asarray(self.coefficients)) + self.bias, axis=1)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; what the method does not have is left out."""
        values = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Vote:
        """What `to_json` made."""
        arrays = {name: np.array(values[name]) for name in ("weights", "coefficients", "bias") if name in values}
        return cls(values["method"], **arrays, strength=values.get("strength"))


@dataclass(frozen=True)
class Fitted:
    """A method fitted on ballots, and what it is worth there.

    Attributes:
        vote: fitted on all of them.
        probabilities: (N, C) of the same utterances, each by a vote that was fitted without its dialogue.
        weighted_f1, log_loss: of these probabilities.
    """

    vote: Vote
    probabilities: np.ndarray
    weighted_f1: float
    log_loss: float


def fit_all(ballots: Ballots) -> dict[str, Fitted]:
    """Every method, fitted and scored by grouped cross-validation on the same ballots.

    Raises:
        UserError: all utterances are of one dialogue.
    """
    # hundreds of fits of a few milliseconds: threads that wait for each other make them a hundred times slower
    with threadpool_limits(1):
        return {method: _fit_and_score(method, ballots) for method in METHODS}


def best(fitted: Mapping[str, Fitted]) -> str:
    """The method of the highest cross-validated weighted F1; among equals the simplest."""
    return max(METHODS, key=lambda method: fitted[method].weighted_f1)


def _fit_and_score(method: str, ballots: Ballots) -> Fitted:
    probabilities = np.empty(ballots.probabilities.shape[1:])
    for inside, outside in _folds(ballots):
        probabilities[outside] = fit(method, ballots.part(inside)).combine(ballots.probabilities[:, outside])
    score = weighted_f1(ballots.label, probabilities.argmax(axis=1), ballots.weight)
    return Fitted(fit(method, ballots), probabilities, score, ballots.log_loss(probabilities))


def fit(method: str, ballots: Ballots) -> Vote:
    """Fits one method. The weighted vote minimises the log loss, which is convex in the weights; weighted F1 is not,
    and on a thousand utterances its maximum follows single ones."""
    members = len(ballots.probabilities)
    if method == "soft":
        return Vote(method, weights=np.full(members, 1 / members))
    return _fit_weights(ballots) if method == "weighted" else _fit_stacking(ballots)


def _fit_weights(ballots: Ballots) -> Vote:
    true = np.maximum(ballots.probabilities[:, np.arange(len(ballots.label)), ballots.label], FLOOR)
    share = ballots.weight / ballots.weight.sum()
    members = len(true)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ true
        return -float(share @ np.log(mixed)), -(true / mixed) @ share

    found = minimize(
        loss,
        np.full(members, 1 / members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-10},
    )
    weights = np.clip(found.x, 0, 1)
    return Vote("weighted", weights=weights / weights.sum())


def _fit_stacking(ballots: Ballots) -> Vote:
    folds = list(_folds(ballots))

    def loss(strength: float) -> float:
        probabilities = np.empty(ballots.probabilities.shape[1:])
        for inside, outside in folds:
            probabilities[outside] = _regress(ballots.part(inside), strength).combine(ballots.probabilities[:, outside])
        return ballots.log_loss(probabilities)

    return _regress(ballots, min(STRENGTHS, key=loss))


def _regress(ballots: Ballots, strength: float) -> Vote:
    members, count, classes = ballots.probabilities.shape
    coefficients = np.zeros((members, classes, classes))
    bias = np.full(classes, np.log(FLOOR))  # of classes that none of these utterances has
    present = np.unique(ballots.label)
    bias[present] = 0
    if len(present) > 1:
        logs = np.log(np.maximum(ballots.probabilities, FLOOR)).transpose(1, 0, 2).reshape(count, members * classes)
        # Newton's method takes 5 steps where the default takes hundreds: log-probabilities are far from unit scale
        model = LogisticRegression(C=strength, solver="newton-cholesky").fit(logs, ballots.label, ballots.weight)
        found, intercept = model.coef_, model.intercept_
        if len(present) == 2:  # the logit of the second against the first
            found, intercept = np.vstack([-found / 2, found / 2]), np.concatenate([-intercept / 2, intercept / 2])
        coefficients[..., present] = found.T.reshape(members, classes, len(present))
        bias[present] = intercept
    return Vote("stacking", coefficients=coefficients, bias=bias, strength=strength)


def _folds(ballots: Ballots) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ballots inside and outside of each fold; a dialogue is on one side."""
    count = min(FOLDS, len(np.unique(ballots.group)), int(np.bincount(ballots.label).max()))
    if count < 2:
        raise UserError("The utterances to fit on are of one dialogue. Expected two or more for cross-validation.")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        yield from folds.split(ballots.label, ballots.label, ballots.group)
