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

    best, worst = checks.curves([np.array([1, 3, 2, 0]), np.array([0, 2, 3, 1])], score)
    assert best.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert best.deletion.tolist() == [10, 6, 3, 1, 0] and best.insertion.tolist() == [0, 4, 7, 9, 10]
    assert worst.deletion.tolist() == best.insertion[::-1].tolist()
    assert best.area("deletion") == pytest.approx(15 / 4) and best.gain == pytest.approx(25 / 4 - 15 / 4)
    assert best.area("deletion") < best.area("random_deletion") < worst.area("deletion")
    np.testing.assert_allclose(best.random_deletion + best.random_deletion[::-1], 10)  # each order with its reverse
    np.testing.assert_allclose(best.random_insertion, best.random_deletion[::-1])


def test_an_order_is_compared_with_random_orders_and_their_reverses():
    value = np.arange(8.0) ** 2
    best, worst = checks.curves([np.arange(8)[::-1], np.arange(8)], lambda keep: keep @ value)
    assert len(best.random_gains) >= 20 and best.random_gains.sum() == pytest.approx(0)
    assert (best.as_good, best.p_value, best.better) == (0, 1 / 22, True)
    assert (worst.as_good, worst.p_value, worst.better) == (20, 1, False)


def test_no_order_of_few_parts_or_of_parts_without_effect_is_better_than_chance():
    (few,) = checks.curves([np.arange(4)], lambda keep: keep @ np.array([4.0, 3, 2, 1]))
    assert few.better is None
    (useless,) = checks.curves([np.arange(9)], lambda keep: np.ones(len(keep)))
    assert (useless.as_good, useless.p_value, useless.better) == (20, 1, False)


@pytest.mark.parametrize("count", [6, 20])
def test_random_attributions_are_seldom_better_than_chance(count):
    """The mean of 5 random orders, the limit before, let 27 to 41 % of them pass; p is uniform, so 4.5 % pass."""
    weights, pairs = RNG.normal(size=count), RNG.normal(size=(count, count)) / count

    def score(keep):
        return np.tanh(keep @ weights + np.einsum("ri,ij,rj->r", keep, pairs, keep))

    passed = [checks.curves([RNG.permutation(count)], score, seed=n)[0].better for n in range(400)]
    assert np.mean(passed) <= 0.07


@pytest.mark.parametrize("count", [1, 2, 13, 64, 97])
def test_the_curves_of_any_number_of_parts_go_from_all_to_none(count):
    (curves,) = checks.curves([RNG.permutation(count)], lambda keep: keep.mean(axis=1))
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
