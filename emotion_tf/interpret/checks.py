"""Sanity checks of attributions: randomised weights, deletion and insertion curves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import cv2
import keras
import numpy as np
from scipy.stats import spearmanr

from emotion_tf.interpret.batch import Batch, scores
from emotion_tf.interpret.explanation import MIN_PARTS, Curves, FaceMap, Similarity, WordAttributions
from emotion_tf.interpret.face import blur
from emotion_tf.interpret.words import remove_words

SUSPECT = 0.7
"""Rank correlation above which two attributions count as equal."""
ORDERS = 10
"""Number of random orders, each of which is also reversed. The best of all orders then has p = 1/22."""
STEPS, CELL_STEPS = 12, 8
"""Minimum number of points of the curves of words, and of cells of a crop."""
GRID = 8
"""Cells of a crop in each direction."""


@contextlib.contextmanager
def shuffled_weights(model: keras.Model, seed: int) -> Iterator[None]:
    """Inside the block, the values of each weight of the model are shuffled, so that it has learned nothing.

    The rows and columns of matrices are shuffled, which keeps the distribution of the values (Adebayo 2018, "Sanity
    Checks for Saliency Maps", section 3, draws new values).
    """
    rng = np.random.default_rng(seed)
    originals = [(weight, weight.numpy()) for weight in model.weights if "float" in str(weight.dtype)]
    try:
        for weight, value in originals:
            weight.assign(_shuffle(value, rng))
        yield
    finally:
        for weight, value in originals:
            weight.assign(value)


def _shuffle(value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if value.ndim < 2:
        return rng.permutation(value) if value.ndim else value
    flat = value.reshape(-1, value.shape[-1])
    return flat[rng.permutation(len(flat))][:, rng.permutation(flat.shape[1])].reshape(value.shape)


def similarity(values: np.ndarray, others: Sequence[np.ndarray], signed: bool) -> Similarity:
    """Compares an attribution with those of models with shuffled weights, by Spearman's rank correlation.

    Args:
        values: attribution of the model, of any shape.
        others: attributions of the shuffled models, of the same shape.
        signed: whether to compare signed values (words), or magnitudes (pixels).
    """
    if values.size < MIN_PARTS:
        return Similarity(None, False)
    pairs = [(x if signed else np.abs(x)).ravel() for x in (values, *others)]
    mean = float(np.mean([_correlation(pairs[0], other) for other in pairs[1:]]))
    return Similarity(mean, mean >= SUSPECT)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's correlation; if one of them is constant, 1 if both are, else 0."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float(np.ptp(first) == np.ptp(second))
    return float(spearmanr(first, second).statistic)


def curves(
    orders: Sequence[np.ndarray], score: Callable[[np.ndarray], np.ndarray], steps: int = STEPS, seed: int = 0
) -> list[Curves]:
    """Returns deletion and insertion curves of several orders of the same parts.

    Args:
        orders: each int (N,), the parts in descending importance.
        score: maps masks of the parts to keep, bool (R, N), to the scores of the explained class, (R,).
        steps: minimum number of points of the curves.
        seed: seed of the random orders.
    """
    count = len(orders[0])
    ends = np.linspace(0, count, min(count, steps) + 1).astype(int)
    ends = np.unique([*ends, *(count - ends)])  # symmetric, so that both curves share the masks
    rng = np.random.default_rng(seed)
    forward = [*orders, *(rng.permutation(count) for _ in range(ORDERS))]
    keep = np.ones((len(forward), 2, len(ends), count), bool)
    for n, order in enumerate(forward):
        for m, end in enumerate(ends):
            keep[n, 0, m, order[:end]] = False
            keep[n, 1, m, order[count - end :]] = False
    masks, index = np.unique(keep.reshape(-1, count), axis=0, return_inverse=True)
    deletion, of_reverse = score(masks)[index.reshape(keep.shape[:3])].swapaxes(0, 1)
    insertion = of_reverse[:, ::-1]  # to add the most important parts first is to remove them last, reversed
    fractions = ends / max(count, 1)
    gains = np.trapezoid(insertion - deletion, fractions, axis=1)[len(orders) :]
    random = np.stack([deletion, of_reverse])[:, len(orders) :].mean(axis=(0, 1))
    return [
        Curves(count, fractions, deletion[n], insertion[n], random, random[::-1], np.concatenate([gains, -gains]))
        for n in range(len(orders))
    ]


def word_curves(batch: Batch, row: int, attributions: WordAttributions) -> Curves:
    """Returns the curves of the words of an utterance and its context, which are removed from the text."""

    def score(keep: np.ndarray) -> np.ndarray:
        lines = [
            [
                remove_words(line, [s for i, s in enumerate(attributions.spans) if s.line == n and not mask[i]])
                for n, line in enumerate(attributions.lines)
            ]
            for mask in keep
        ]
        rows = np.full(len(keep), row)
        logits = batch.logits_of_texts([text[0] for text in lines], [text[:0:-1] for text in lines], rows)
        return np.asarray(scores(logits, batch.target[rows]))

    return curves([_order(attributions.values)], score)[0]


def pixel_curves(batch: Batch, row: int, maps: Sequence[FaceMap]) -> list[Curves]:
    """Returns the curves of each map over a grid of cells on the crops of an utterance; removed cells are blurred."""
    is_crop = np.asarray(batch.inputs["face_mask"])[row]
    faces = np.asarray(batch.inputs["faces"])[row]
    crops = faces[is_crop]
    blurred = np.round(blur(crops)).astype(np.uint8)
    cells = [
        np.concatenate([cv2.resize(v, (GRID, GRID), interpolation=cv2.INTER_AREA).ravel() for v in face_map.values])
        for face_map in maps
    ]

    def score(keep: np.ndarray) -> np.ndarray:
        changed = np.repeat(faces[None], len(keep), axis=0)
        for n, masks in enumerate(keep.reshape(len(keep), -1, GRID, GRID)):
            pixels = np.stack([_to_pixels(mask, crops.shape[1]) for mask in masks])[..., None]
            changed[n, is_crop] = np.where(pixels, crops, blurred)
        rows = np.full(len(keep), row)
        return np.asarray(scores(batch.logits_of_faces(changed, rows), batch.target[rows]))

    return curves([_order(values) for values in cells], score, CELL_STEPS)


def _order(values: np.ndarray) -> np.ndarray:
    """Returns the indices in descending order of the values."""
    return np.argsort(-values, kind="stable")


def _to_pixels(cells: np.ndarray, side: int) -> np.ndarray:
    """Resizes a grid of cells, bool (G, G), to pixels (side, side)."""
    index = np.arange(side) * GRID // side
    return cells[np.ix_(index, index)]
