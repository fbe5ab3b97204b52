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
ORDERS, SHIFTS = 10, 20
"""Number of random orders of words, each of which is also reversed, and of random shifts of a map. The best order of
words has p = 1/22, the best map p = 1/21."""
STEPS, CELL_STEPS = 12, 3
"""Minimum number of steps of the curves of words, and of cells of a crop."""
GRID = 8
"""Cells of a crop in each direction."""

Score = Callable[[np.ndarray], np.ndarray]


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


def curves(order: np.ndarray, score: Score, seed: int = 0) -> Curves:
    """Compares an order of parts with random orders and the reverse of each.

    Args:
        order: int (N,), the parts in descending importance.
        score: maps masks of the parts to keep, bool (R, N), to the scores of the explained class, (R,).
        seed: seed of the random orders.
    """
    rng = np.random.default_rng(seed)
    orders = [order, *(rng.permutation(len(order)) for _ in range(ORDERS))]
    fractions, deletion, insertion = _measure_curves(orders, score, STEPS)
    # to add the most important parts first is to remove them last, reversed
    both = np.concatenate([deletion, insertion[:, ::-1]]), np.concatenate([insertion, deletion[:, ::-1]])
    return _compare(len(order), fractions, both[0], both[1], "random orders")


def shift_curves(cells: np.ndarray, score: Score, seed: int = 0) -> Curves:
    """Compares the order of a map's cells with those of the same map, shifted at random.

    Random orders of cells would be no fair comparison: they scatter, and most smooth maps, which remove a region at a
    time, differ from them even if they have nothing to do with the picture. A shift leaves a map at one edge and
    enters it at the opposite one. The shifts are a group. If a map is as likely as each of its shifts, the map itself
    and shifts drawn without replacement are exchangeable, so that the p-value is exact (Hemerik and Goeman 2018, "Exact
    testing with random permutations"). The reverse of a map is left out: a map of one spot is likelier than its
    reverse.

    Args:
        cells: float (T, G, G), the map of each of T crops; all are shifted alike.
        score: as for `curves`; the parts are the cells of all crops.
        seed: seed of the shifts.
    """
    rows, columns = cells.shape[1:]
    offsets = np.random.default_rng(seed).permutation(np.arange(1, rows * columns))[:SHIFTS]
    shifted = [np.roll(cells, divmod(int(offset), columns), axis=(1, 2)) for offset in (0, *offsets)]
    fractions, deletion, insertion = _measure_curves([_order(shift.ravel()) for shift in shifted], score, CELL_STEPS)
    return _compare(cells.size, fractions, deletion, insertion, "random shifts of the map")


def _measure_curves(
    orders: Sequence[np.ndarray], score: Score, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns fractions (P,), and deletion and insertion curve of each of R orders, (R, P)."""
    count = len(orders[0])
    ends = np.round(np.linspace(0, count, min(count, steps) + 1)).astype(int)
    ends = np.unique([*ends, *(count - ends)])  # symmetric, so that the curves of an order and its reverse share masks
    keep = np.ones((2, len(orders), len(ends), count), bool)
    for n, order in enumerate(orders):
        for m, end in enumerate(ends):
            keep[0, n, m, order[:end]] = False
            keep[1, n, m, order[end:]] = False
    masks, index = np.unique(keep.reshape(-1, count), axis=0, return_inverse=True)
    deletion, insertion = score(masks)[index.reshape(keep.shape[:3])]
    return ends / max(count, 1), deletion, insertion


def _compare(count: int, fractions: np.ndarray, deletion: np.ndarray, insertion: np.ndarray, null: str) -> Curves:
    """Returns the first of these curves, with the others as its comparison."""
    gains = np.trapezoid(insertion - deletion, fractions, axis=1)
    means = deletion[1:].mean(axis=0), insertion[1:].mean(axis=0)
    return Curves(count, fractions, deletion[0], insertion[0], *means, gains[1:], null)


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

    return curves(_order(attributions.values), score)


def pixel_curves(batch: Batch, row: int, maps: Sequence[FaceMap]) -> list[Curves]:
    """Returns the curves of each map over a grid of cells on the crops of an utterance; removed cells are blurred."""
    is_crop = np.asarray(batch.inputs["face_mask"])[row]
    faces = np.asarray(batch.inputs["faces"])[row]
    crops = faces[is_crop]
    blurred = np.round(blur(crops)).astype(np.uint8)
    cells = [
        np.stack([cv2.resize(values, (GRID, GRID), interpolation=cv2.INTER_AREA) for values in face_map.values])
        for face_map in maps
    ]

    def score(keep: np.ndarray) -> np.ndarray:
        changed = np.repeat(faces[None], len(keep), axis=0)
        for n, masks in enumerate(keep.reshape(len(keep), -1, GRID, GRID)):
            pixels = np.stack([_to_pixels(mask, crops.shape[1]) for mask in masks])[..., None]
            changed[n, is_crop] = np.where(pixels, crops, blurred)
        rows = np.full(len(keep), row)
        return np.asarray(scores(batch.logits_of_faces(changed, rows), batch.target[rows]))

    return [shift_curves(of_map, score) for of_map in cells]


def _order(values: np.ndarray) -> np.ndarray:
    """Returns the indices in descending order of the values."""
    return np.argsort(-values, kind="stable")


def _to_pixels(cells: np.ndarray, side: int) -> np.ndarray:
    """Resizes a grid of cells, bool (G, G), to pixels (side, side)."""
    index = np.arange(side) * GRID // side
    return cells[np.ix_(index, index)]
