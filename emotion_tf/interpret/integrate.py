"""Integrated gradients (Sundararajan 2017, "Axiomatic Attribution for Deep Networks") at any layers of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.interpret.batch import Batch
from emotion_tf.models.activations import replay_all

FIRST_STEPS, MOST_STEPS = 8, 256
TOLERANCE, SMALL = 0.01, 1e-3


@dataclass(frozen=True)
class Path:
    """Straight lines from baselines to what layers return, one for each utterance of a batch.

    Attributes:
        batch: the utterances.
        layers: the layer of each call; all calls move together.
        values: what each call returns, float32 (M, ...).
        baseline: the other end of each call, (M, ...).
        owner: the utterance of each entry of each call, int (M,).
        replayed: names of layers (see `Batch`) that do not depend on `layers`: they do not run again.
        rows: whose gradient is taken at once: it keeps all maps of a network in memory.
        output: from a point of the path to what a layer returns, where that is more than one tensor.
    """

    batch: Batch
    layers: Sequence[keras.layers.Layer]
    values: Sequence[np.ndarray]
    baseline: Sequence[np.ndarray]
    owner: Sequence[np.ndarray]
    replayed: tuple[str, ...]
    rows: int
    output: Callable[[tf.Tensor], Any] = lambda value: value

    def gradients(self, active: np.ndarray, alphas: Sequence[float]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores (A, U) at the points `alphas` of the paths of the utterances `active` (U,), and the gradients there,
        of each call (A, M', ...), where M' are the entries of these utterances."""
        each = max(1, self.rows // len(active))
        parts = [self._gradients(active, alphas[i : i + each]) for i in range(0, len(alphas), each)]
        score, found = zip(*parts, strict=True)
        return np.concatenate(score), [np.concatenate(call) for call in zip(*found, strict=True)]

    def _gradients(self, active: np.ndarray, alphas: Sequence[float]) -> tuple[np.ndarray, list[np.ndarray]]:
        rows = np.tile(active, len(alphas))
        points = []
        for value, baseline, owner in zip(self.values, self.baseline, self.owner, strict=True):
            mine = np.isin(owner, active)
            along = [baseline[mine] + alpha * (value[mine] - baseline[mine]) for alpha in alphas]
            points.append(tf.constant(np.concatenate(along).astype(np.float32)))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(points)
            outputs = [self.output(point) for point in points]
            with self.batch.replayed(self.replayed, rows), replay_all(self.layers, outputs):
                score = self.batch.score(self.batch.rows(rows), rows)
        gradient = tape.gradient(score, points, unconnected_gradients="zero")
        shape = [(len(alphas), len(g) // len(alphas), *g.shape[1:]) for g in gradient]
        return score.numpy().reshape(len(alphas), -1), [
            g.numpy().reshape(s) for g, s in zip(gradient, shape, strict=True)
        ]


@dataclass(frozen=True)
class Integral:
    """Attributions, and how complete they are.

    Attributes:
        values: of each call, float32 (M, ...).
        delta: f(x) - f(baseline) of each utterance, float (B,).
        total: what its attributions sum to, (B,).
        steps: points of the path, int (B,).
    """

    values: list[np.ndarray]
    delta: np.ndarray
    total: np.ndarray
    steps: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """|total - delta| as a share of |delta|, (B,)."""
        return np.abs(self.total - self.delta) / np.maximum(np.abs(self.delta), 1e-12)

    @property
    def complete(self) -> np.ndarray:
        """Whether the residual is at most 1 %, or 0.001 where there is hardly anything to explain, bool (B,)."""
        return np.abs(self.total - self.delta) <= np.maximum(TOLERANCE * np.abs(self.delta), SMALL)


def integrate(path: Path, most: int = MOST_STEPS) -> Integral:
    """Integrates the gradients along each path by the trapezoidal rule.

    The number of steps is doubled for those utterances whose attributions do not sum to f(x) - f(baseline) (their
    "completeness", section 3) within 1 %; every gradient that was taken is used again.
    """
    count = len(path.batch.utterances)
    active, steps = np.arange(count), min(FIRST_STEPS, most)
    score, points = path.gradients(active, np.linspace(0, 1, steps + 1).tolist())
    sums = [call.sum(axis=0) - 0.5 * (call[0] + call[-1]) for call in points]
    found = Integral(
        [np.zeros_like(value) for value in path.values], score[-1] - score[0], np.zeros(count), np.zeros(count, int)
    )
    while True:
        for n, owner in enumerate(path.owner):
            mine = np.isin(owner, active)
            found.values[n][mine] = ((path.values[n] - path.baseline[n]) * sums[n])[mine] / steps
        found.total[active] = _totals(found.values, path.owner, count)[active]
        found.steps[active] = steps
        active = active[~found.complete[active]]
        if not len(active) or 2 * steps > most:
            return found
        steps *= 2
        _, points = path.gradients(active, (np.arange(1, steps, 2) / steps).tolist())
        for n, call in enumerate(points):
            sums[n][np.isin(path.owner[n], active)] += call.sum(axis=0)


def _totals(values: Sequence[np.ndarray], owner: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The sum of each utterance's attributions, float64 (B,)."""
    total = np.zeros(count)
    for call, of in zip(values, owner, strict=True):
        np.add.at(total, of, call.reshape(len(call), -1).sum(axis=1, dtype=np.float64))
    return total
