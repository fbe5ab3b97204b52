"""Sanity checks of attributions, by hand."""

import numpy as np
import pytest

from emotion_tf.interpret import checks
from emotion_tf.runs.run import Run

RNG = np.random.default_rng(0)


def test_the_curves_of_an_additive_score_by_hand():
    value = np.array([1.0, 4.0, 2.0, 3.0])

    def score(keep):
        return keep @ value

    best, worst = (checks.curves(np.array(order), score) for order in ([1, 3, 2, 0], [0, 2, 3, 1]))
    assert best.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert best.deletion.tolist() == [10, 6, 3, 1, 0] and best.insertion.tolist() == [0, 4, 7, 9, 10]
    assert worst.deletion.tolist() == best.insertion[::-1].tolist()
    assert best.area("deletion") == pytest.approx(15 / 4) and best.gain == pytest.approx(25 / 4 - 15 / 4)
    assert best.area("deletion") < best.area("random_deletion") < worst.area("deletion")
    all_deletion, all_insertion = (  # each order with its reverse, its own included
        getattr(best, name) + 21 * getattr(best, f"random_{name}") for name in ("deletion", "insertion")
    )
    np.testing.assert_allclose(all_deletion + all_deletion[::-1], 10 * 22)
    np.testing.assert_allclose(all_insertion, all_deletion[::-1])


def test_an_order_is_compared_with_random_orders_and_their_reverses():
    value = np.arange(8.0) ** 2
    best, worst = (checks.curves(order, lambda keep: keep @ value) for order in (np.arange(8)[::-1], np.arange(8)))
    assert len(best.random_gains) >= 20 and best.random_gains.sum() + best.gain == pytest.approx(0)
    assert (best.as_good, best.p_value, best.better) == (0, 1 / 22, True)
    assert (worst.as_good, worst.p_value, worst.better) == (21, 1, False)


def test_no_order_of_few_parts_or_of_parts_without_effect_is_better_than_chance():
    few = checks.curves(np.arange(4), lambda keep: keep @ np.array([4.0, 3, 2, 1]))
    assert few.better is None
    useless = checks.curves(np.arange(9), lambda keep: np.ones(len(keep)))
    assert (useless.as_good, useless.p_value, useless.better) == (21, 1, False)


@pytest.mark.parametrize("count", [6, 20])
def test_random_attributions_are_seldom_better_than_chance(count):
    """The mean of 5 random orders, the limit before, let 27 to 41 % of them pass; p is uniform, so 4.5 % pass."""
    weights, pairs = RNG.normal(size=count), RNG.normal(size=(count, count)) / count

    def score(keep):
        return np.tanh(keep @ weights + np.einsum("ri,ij,rj->r", keep, pairs, keep))

    passed = [checks.curves(RNG.permutation(count), score, seed=n).better for n in range(400)]
    assert np.mean(passed) <= 0.07


def spot(row, column, wrap=False):
    """A map that highlights one place of an 8 x 8 grid."""
    distances = [np.abs(np.arange(8) - centre) for centre in (row, column)]
    y, x = (np.minimum(d, 8 - d) if wrap else d for d in distances)
    return np.exp(-(y[:, None] ** 2 + x**2) / 3)[None]


@pytest.mark.parametrize("wrap", [True, False])
def test_a_random_spot_of_a_face_is_seldom_better_than_chance(wrap):
    """Against random orders of the cells, 62 % of such maps passed."""
    evidence = sum(spot(*centre) for centre in ((2, 2.5), (2, 5), (5.5, 3.5))).ravel()

    def score(keep):
        return np.tanh(keep @ evidence / 10)

    rng = np.random.default_rng(0)
    maps = [spot(*rng.uniform(0, 8 if wrap else 7, 2), wrap) for _ in range(400)]
    by_chance = np.mean([checks.shift_curves(cells, score, n).better for n, cells in enumerate(maps)])
    random_orders = np.mean(
        [checks.curves(np.argsort(-cells.ravel()), score, n).better for n, cells in enumerate(maps)]
    )
    assert by_chance <= 0.07 if wrap else by_chance < random_orders / 3, (by_chance, random_orders)
    noise = [rng.normal(size=(1, 8, 8)) for _ in range(400)]
    assert np.mean([checks.shift_curves(cells, score, n).better for n, cells in enumerate(noise)]) <= 0.07
    assert checks.shift_curves(evidence.reshape(1, 8, 8), score).better


def test_a_constant_map_is_not_better_than_its_shifts():
    flat = checks.shift_curves(np.zeros((2, 8, 8)), lambda keep: keep @ np.arange(128.0))
    assert (flat.as_good, flat.p_value, flat.better) == (20, 1, False)


@pytest.mark.parametrize("count", [1, 2, 13, 64, 97])
def test_the_curves_of_any_number_of_parts_go_from_all_to_none(count):
    curves = checks.curves(RNG.permutation(count), lambda keep: keep.mean(axis=1))
    assert curves.deletion[0] == curves.insertion[-1] == 1 and curves.deletion[-1] == curves.insertion[0] == 0
    np.testing.assert_allclose(curves.deletion, 1 - curves.fractions)
    np.testing.assert_allclose(curves.random_insertion, curves.fractions)


def test_shuffled_weights_are_restored_exactly(untrained):
    model = Run(untrained).model
    before = [np.array(weight) for weight in model.weights]
    with pytest.raises(KeyboardInterrupt), checks.shuffled_weights(model, 0):
        during = [np.array(weight) for weight in model.weights]
        raise KeyboardInterrupt
    for original, shuffled, after in zip(before, during, model.weights, strict=True):
        np.testing.assert_array_equal(np.sort(original, axis=None), np.sort(shuffled, axis=None))
        np.testing.assert_array_equal(original, np.array(after))
        assert original.ndim < 2 or np.ptp(original) == 0 or (original != shuffled).any()


def test_a_map_that_does_not_depend_on_the_weights_is_suspect():
    edges = RNG.normal(size=(1, 16, 16))
    assert checks.similarity(edges, [edges, edges * 2], signed=False) == checks.Similarity(pytest.approx(1), True)
    assert checks.similarity(edges, [-edges], signed=False).suspect
    assert not checks.similarity(edges, [-edges], signed=True).suspect
    other = checks.similarity(edges, [RNG.normal(size=edges.shape) for _ in range(2)], signed=False)
    assert abs(other.correlation) < 0.3 and not other.suspect


def test_few_words_have_no_correlation():
    assert checks.similarity(np.arange(4.0), [np.arange(4.0)], True) == checks.Similarity(None, False)


def test_constant_maps():
    flat, other = np.zeros((1, 4, 4)), RNG.normal(size=(1, 4, 4))
    assert checks.similarity(flat, [other], False).correlation == 0
    assert checks.similarity(flat, [flat], False).suspect
