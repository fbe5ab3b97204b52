"""Integrated gradients (Sundararajan 2017, "Axiomatic Attribution for Deep Networks") at any layers of a model.

The number of steps grows until the attributions are complete. One step is in `gradients`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from emotion_tf.interpret.batch import Batch
from emotion_tf.interpret.explanation import Completeness
from emotion_tf.interpret.gradients import Line, line_gradients, trapezoid_sum

FIRST_STEPS, MAX_STEPS = 8, 256
TOLERANCE, SMALL = 0.01, 1e-3


@dataclass(frozen=True)
class Path:
    """Lines from baselines to the outputs of layers, for the utterances of a batch.

    Attributes:
        batch: B utterances.
        lines: one for each call of a layer.
        owner: the utterance of each entry of each line, int (M,).
        replayed: names of the layers (see `Batch`) that do not depend on `lines` and need not run again.
        max_rows: number of rows in one pass: the gradient keeps all activations in memory.
    """

    batch: Batch
    lines: Sequence[Line]
    owner: Sequence[np.ndarray]
    replayed: tuple[str, ...]
    max_rows: int

    def gradients(self, active: np.ndarray, alphas: Sequence[float]) -> tuple[np.ndarray, list[tf.Tensor]]:
        """Returns scores (A, U) at the points `alphas` of the utterances `active` (U,), and the gradients there.

        The gradients have the shape (A, M', ...) for each line; M' counts the entries of these utterances.
        """
        lines = [self._of_utterances(line, owner, active) for line, owner in zip(self.lines, self.owner, strict=True)]
        each = max(1, self.max_rows // len(active))
        parts = [self._gradients(lines, active, alphas[i : i + each]) for i in range(0, len(alphas), each)]
        scores, gradients = zip(*parts, strict=True)
        return np.concatenate(scores), [tf.concat(of_line, axis=0) for of_line in zip(*gradients, strict=True)]

    def _gradients(
        self, lines: Sequence[Line], active: np.ndarray, alphas: Sequence[float]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        rows = np.tile(active, len(alphas))
        with self.batch.replayed(self.replayed, rows):
            return line_gradients(lines, alphas, lambda: self.batch.score(self.batch.rows(rows), rows))

    @staticmethod
    def _of_utterances(line: Line, owner: np.ndarray, active: np.ndarray) -> Line:
        rows = np.isin(owner, active)
        return replace(line, value=np.asarray(line.value)[rows], baseline=np.asarray(line.baseline)[rows])


@dataclass(frozen=True)
class Integral:
    """Attributions, and how complete they are.

    Attributes:
        values: attributions of each line, float32 (M, ...).
        delta: f(x) - f(baseline) of each utterance, float (B,).
        total: sum of its attributions, (B,).
        steps: number of steps, int (B,).
    """

    values: list[np.ndarray]
    delta: np.ndarray
    total: np.ndarray
    steps: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """Whether the residual is at most 1 %, or the difference at most 0.001, bool (B,)."""
        return np.abs(self.total - self.delta) <= np.maximum(TOLERANCE * np.abs(self.delta), SMALL)

    def completeness(self, n: int) -> Completeness:
        """Returns the completeness of an utterance."""
        return Completeness(float(self.total[n]), float(self.delta[n]), int(self.steps[n]), bool(self.complete[n]))


def integrate(path: Path, max_steps: int = MAX_STEPS) -> Integral:
    """Integrates the gradients along each path by the trapezoidal rule.

    The number of steps doubles for utterances whose attributions do not sum to f(x) - f(baseline) within 1 % (their
    "completeness", section 3). Gradients of earlier steps are used again.
    """
    count = len(path.batch.utterances)
    active, steps = np.arange(count), min(FIRST_STEPS, max_steps)
    differences = [np.asarray(line.value) - np.asarray(line.baseline) for line in path.lines]
    scores, gradients = path.gradients(active, np.linspace(0, 1, steps + 1).tolist())
    sums = [np.array(trapezoid_sum(of_line)) for of_line in gradients]
    integral = Integral(
        [np.zeros_like(value) for value in differences], scores[-1] - scores[0], np.zeros(count), np.zeros(count, int)
    )
    while True:
        for n, owner in enumerate(path.owner):
            rows = np.isin(owner, active)
            integral.values[n][rows] = (differences[n] * sums[n])[rows] / steps
        integral.total[active] = _totals(integral.values, path.owner, count)[active]
        integral.steps[active] = steps
        active = active[~integral.complete[active]]
        if not len(active) or 2 * steps > max_steps:
            return integral
        steps *= 2
        _, gradients = path.gradients(active, (np.arange(1, steps, 2) / steps).tolist())
        for n, of_line in enumerate(gradients):
            sums[n][np.isin(path.owner[n], active)] += np.sum(of_line, axis=0)


def _totals(values: Sequence[np.ndarray], owner: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Returns the sum of each utterance's attributions, float64 (B,)."""
    total = np.zeros(count)
    for of_line, rows in zip(values, owner, strict=True):
        np.add.at(total, rows, of_line.reshape(len(of_line), -1).sum(axis=1, dtype=np.float64))
    return total
