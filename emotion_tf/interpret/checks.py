"""Whether an attribution is worth looking at: sanity checks whose results are shown beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import cv2
import keras
import numpy as np
from scipy.stats import spearmanr

from emotion_tf.interpret.batch import Batch, scores
from emotion_tf.interpret.face import blurred
from emotion_tf.interpret.kinds import Curves, FaceMap, Similarity, Strip
from emotion_tf.interpret.words import without

SUSPECT = 0.7
"""Rank correlation from which on two attributions count as the same."""
FEWEST = 5
"""Fewer words than this are too often in the same order by chance."""
ORDERS = 5
STEPS, CELL_STEPS = 12, 8
"""Points of the curves of words, and of squares."""
GRID = 8
"""Squares of a crop in each direction."""


@contextlib.contextmanager
def shuffled(model: keras.Model, seed: int) -> Iterator[None]:
    """While it is open, the values of each of the model's weights are in another order: it knows nothing any more.

    Rows and columns of a matrix are shuffled (Adebayo 2018, "Sanity Checks for Saliency Maps", section 3, draws weights
    anew; shuffled ones keep their distribution).
    """
    rng = np.random.default_rng(seed)
    kept = [(weight, weight.numpy()) for weight in model.weights if "float" in str(weight.dtype)]
    try:
        for weight, value in kept:
            weight.assign(_shuffled(value, rng))
        yield
    finally:
        for weight, value in kept:
            weight.assign(value)


def _shuffled(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if value.ndim < 2:
        return rng.permutation(value) if value.ndim else value
    flat = value.reshape(-1, value.shape[-1])
    return flat[rng.permutation(len(flat))][:, rng.permutation(flat.shape[1])].reshape(value.shape)


def similarity(found: np.ndarray, others: Sequence[np.ndarray], signed: bool) -> Similarity:
    """How alike an attribution is to those of models with shuffled weights, by Spearman's rank correlation.

    Args:
        found: of the model, any shape.
        others: of the shuffled models, of that shape.
        signed: whether the sign counts (of words), or the magnitude alone (of pixels).
    """
    if found.size < FEWEST:
        return Similarity(None, False)
    ranks = [_correlation(*((x if signed else np.abs(x)).ravel() for x in (found, other))) for other in others]
    mean = float(np.mean(ranks))
    return Similarity(mean, mean >= SUSPECT)


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where one of them is the same everywhere and the other is not."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.ptp(one) == np.ptp(other))
    return float(spearmanr(one, other).statistic)


def curves(
    orders: Sequence[np.ndarray], score: Callable[[np.ndarray], np.ndarray], steps: int = STEPS, seed: int = 0
) -> list[Curves]:
    """Deletion and insertion curves of several orders of the same parts.

    Args:
        orders: each int (N,), the parts, the most important first.
        score: of the explained class with the parts that `keep`, bool (R, N), holds: (R,).
        steps: points of the curves, at least.
        seed: of the random orders.
    """
    count = len(orders[0])
    ends = np.linspace(0, count, min(count, steps) + 1).astype(int)
    ends = np.unique([*ends, *(count - ends)])  # the same from both sides: one set of states serves both curves
    rng = np.random.default_rng(seed)
    taken = [*orders, *(order[::-1] for order in orders), *(rng.permutation(count) for _ in range(ORDERS))]
    keep = np.ones((len(taken), len(ends), count), bool)
    for n, order in enumerate(taken):
        for m, end in enumerate(ends):
            keep[n, m, order[:end]] = False
    states, which = np.unique(keep.reshape(-1, count), axis=0, return_inverse=True)
    found = score(states)[which.reshape(len(taken), len(ends))]
    random = found[2 * len(orders) :].mean(axis=0)
    # putting the most important back first is taking the least important away first, seen from its end
    return [
        Curves(ends / max(count, 1), found[n], found[len(orders) + n][::-1], random, random[::-1], ORDERS)
        for n in range(len(orders))
    ]


def word_curves(batch: Batch, row: int, strip: Strip) -> Curves:
    """Of the words of an utterance and of its context: they are taken out of the text."""

    def score(keep: np.ndarray) -> np.ndarray:
        lines = [
            [
                without(line, [s for i, s in enumerate(strip.spans) if s.line == n and not kept[i]])
                for n, line in enumerate(strip.lines)
            ]
            for kept in keep
        ]
        rows = np.full(len(keep), row)
        logits = batch.logits_of_texts([one[0] for one in lines], [one[:0:-1] for one in lines], rows)
        return np.asarray(scores(logits, batch.target[rows]))

    return curves([_order(strip.values)], score)[0]


def pixel_curves(batch: Batch, row: int, maps: Sequence[FaceMap]) -> list[Curves]:
    """Of the squares of an even grid on all crops of an utterance, in the order of each map: a square that is taken
    away is blurred."""
    mask = np.asarray(batch.inputs["face_mask"])[row]
    faces = np.asarray(batch.inputs["faces"])[row]
    crops = faces[mask]
    soft = np.round(blurred(crops)).astype(np.uint8)
    cells = [
        np.concatenate([cv2.resize(v, (GRID, GRID), interpolation=cv2.INTER_AREA).ravel() for v in one.values])
        for one in maps
    ]

    def score(keep: np.ndarray) -> np.ndarray:
        changed = np.repeat(faces[None], len(keep), axis=0)
        for n, kept in enumerate(keep.reshape(len(keep), -1, GRID, GRID)):
            whole = np.stack([_large(one, crops.shape[1]) for one in kept])[..., None]
            changed[n, mask] = np.where(whole, crops, soft)
        rows = np.full(len(keep), row)
        return np.asarray(scores(batch.logits_of_faces(changed, rows), batch.target[rows]))

    return curves([_order(one) for one in cells], score, CELL_STEPS)


def _order(values: np.ndarray) -> np.ndarray:
    """Parts, the largest first."""
    return np.argsort(-values, kind="stable")


def _large(cells: np.ndarray, side: int) -> np.ndarray:
    """A grid of squares bool (G, G) as pixels (side, side)."""
    at = np.arange(side) * GRID // side
    return cells[np.ix_(at, at)]
