"""The paired bootstrap: against a naive loop, where nothing differs, and where something does."""

from __future__ import annotations

import numpy as np
import pytest

from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import paired_bootstrap


def sample(seed, count=400, dialogues=50, right=(0.8, 0.6), classes=5):
    """True labels, two predictions that are right with given chances, dialogues."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    wrong = (label + rng.integers(1, classes, (2, count))) % classes
    predicted = np.where(rng.random((2, count)) < np.array(right)[:, None], label, wrong)
    return label, predicted[0], predicted[1], np.sort(rng.integers(0, dialogues, count))


def f1(label, predicted) -> float:
    """Weighted F1 from its definition."""
    total = 0.0
    for c in np.unique(label):
        hit = np.sum((label == c) & (predicted == c))
        total += 2 * hit / (np.sum(label == c) + np.sum(predicted == c)) * np.mean(label == c)
    return total


def naive(label, first, second, group, resamples, seed):
    """Draws dialogues with replacement, one resample at a time."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    found = []
    for _ in range(resamples):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        found.append(f1(label[rows], first[rows]) - f1(label[rows], second[rows]))
    return np.array(found)


def test_identical_predictions_do_not_differ():
    label, first, _, group = sample(0)
    found = paired_bootstrap(label, first, first, group, 500)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_planted_difference_is_found_and_its_reverse_is_not():
    label, first, second, group = sample(1)
    found = paired_bootstrap(label, first, second, group, 2000)
    assert found.p_value == pytest.approx(1 / 2001) and 0 < found.low < found.difference < found.high
    reverse = paired_bootstrap(label, second, first, group, 2000)
    assert reverse.p_value == 1
    assert (reverse.difference, reverse.low, reverse.high) == pytest.approx(
        (-found.difference, -found.high, -found.low)
    )


def test_as_a_naive_loop_says():
    label, first, second, group = sample(2, count=200, dialogues=25, right=(0.66, 0.62))
    found = paired_bootstrap(label, first, second, group, 20_000, seed=1)
    slow = naive(label, first, second, group, 500, seed=2)
    assert found.difference == pytest.approx(weighted_f1(label, first) - weighted_f1(label, second))
    spread = slow.std()
    assert found.low == pytest.approx(np.quantile(slow, 0.025), abs=0.35 * spread)
    assert found.high == pytest.approx(np.quantile(slow, 0.975), abs=0.35 * spread)
    assert found.p_value == pytest.approx((slow <= 0).mean(), abs=0.08)


def test_each_resample_has_the_f1_of_scikit_learn():
    """The fast sums over dialogues against F1 of the rows that a draw stands for."""
    from emotion_tf.evaluation import significance

    label, first, _, group = sample(3, count=60, dialogues=8)
    members = np.unique(group, return_inverse=True)[1]
    draws = np.random.default_rng(0).multinomial(
        members.max() + 1, np.full(members.max() + 1, 1 / (members.max() + 1)), 20
    )
    fast = significance._f1_of_counts(draws.astype(float), significance._dialogue_counts(label, first, members))
    rows = [np.repeat(np.arange(60), draw[members]) for draw in draws]
    np.testing.assert_allclose(fast, [weighted_f1(label[r], first[r]) for r in rows], rtol=1e-12)


def test_no_difference_gives_an_interval_that_holds_zero():
    held = 0
    for seed in range(20):
        label, first, second, group = sample(100 + seed, count=200, right=(0.6, 0.6))
        found = paired_bootstrap(label, first, second, group, 500)
        held += found.low <= 0 <= found.high
    assert held >= 17  # 19 expected


def test_utterances_of_a_dialogue_count_together():
    """Ten copies of each utterance in one dialogue are no more evidence than one."""
    label, first, second, group = sample(4, count=60, dialogues=60, right=(0.7, 0.6))
    alone = paired_bootstrap(label, first, second, group, 4000)
    copied = [np.repeat(column, 10) for column in (label, first, second, group)]
    together = paired_bootstrap(*copied, 4000)
    apart = paired_bootstrap(*copied[:3], np.arange(600), 4000)
    for name in ("difference", "low", "high", "p_value"):
        assert getattr(together, name) == pytest.approx(getattr(alone, name))
    assert apart.high - apart.low < 0.5 * (together.high - together.low)


def test_the_seed_decides():
    args = sample(5)
    assert paired_bootstrap(*args, 300, seed=1) == paired_bootstrap(*args, 300, seed=1)
    assert paired_bootstrap(*args, 300, seed=1) != paired_bootstrap(*args, 300, seed=2)


def test_names_of_dialogues_may_be_text_and_classes_may_be_missing():
    label, first, second, group = sample(6)
    names = np.array([f"dia {g}" for g in group])
    assert paired_bootstrap(label, first, second, names, 200).difference == pytest.approx(
        paired_bootstrap(label, first, second, group, 200).difference
    )
    never = np.full_like(label, 6)  # a class that the truth does not have
    assert paired_bootstrap(label, label, never, group, 200).difference == 1
