"""The checks of explanations: what they find, and what they must not find."""

import numpy as np
import pytest

from emotion_tf.interpret import checks
from emotion_tf.runs.run import Run

RNG = np.random.default_rng(0)


def test_the_curves_of_an_additive_score_by_hand():
    worth = np.array([1.0, 4.0, 2.0, 3.0])

    def score(keep):
        return keep @ worth

    right, wrong = checks.curves([np.array([1, 3, 2, 0]), np.array([0, 2, 3, 1])], score)
    assert right.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert right.deletion.tolist() == [10, 6, 3, 1, 0] and right.insertion.tolist() == [0, 4, 7, 9, 10]
    assert wrong.deletion.tolist() == right.insertion[::-1].tolist()
    assert right.better and not wrong.better
    assert right.area("deletion") == pytest.approx(15 / 4)
    assert right.area("deletion") < right.area("random_deletion") < wrong.area("deletion")
    np.testing.assert_allclose(right.random_insertion, right.random_deletion[::-1])


@pytest.mark.parametrize("count", [1, 2, 13, 64, 97])
def test_the_curves_of_any_number_of_parts_go_from_all_to_none(count):
    (found,) = checks.curves([RNG.permutation(count)], lambda keep: keep.mean(axis=1))
    assert found.deletion[0] == found.insertion[-1] == 1 and found.deletion[-1] == found.insertion[0] == 0
    np.testing.assert_allclose(found.deletion, 1 - found.fractions)
    np.testing.assert_allclose(found.random_insertion, found.fractions)


def test_shuffling_changes_every_matrix_and_takes_it_back_bit_by_bit(untrained):
    model = Run(untrained).model
    before = [np.array(weight) for weight in model.weights]
    with pytest.raises(KeyboardInterrupt), checks.shuffled(model, 0):
        during = [np.array(weight) for weight in model.weights]
        raise KeyboardInterrupt
    for one, other, after in zip(before, during, model.weights, strict=True):
        np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
        np.testing.assert_array_equal(one, np.array(after))
        assert one.ndim < 2 or np.ptp(one) == 0 or (one != other).any()


def test_a_map_that_no_weight_changes_is_called_out():
    edges = RNG.normal(size=(1, 16, 16))
    assert checks.similarity(edges, [edges, edges * 2], signed=False) == checks.Similarity(pytest.approx(1), True)
    assert checks.similarity(edges, [-edges], signed=False).suspect
    assert not checks.similarity(edges, [-edges], signed=True).suspect
    other = checks.similarity(edges, [RNG.normal(size=edges.shape) for _ in range(2)], signed=False)
    assert abs(other.correlation) < 0.3 and not other.suspect


def test_of_a_few_words_nothing_is_said():
    assert checks.similarity(np.arange(4.0), [np.arange(4.0)], True) == checks.Similarity(None, False)


def test_maps_without_any_order():
    flat, other = np.zeros((1, 4, 4)), RNG.normal(size=(1, 4, 4))
    assert checks.similarity(flat, [other], False).correlation == 0
    assert checks.similarity(flat, [flat], False).suspect
