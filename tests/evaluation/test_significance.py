"""Bootstrap tests and intervals: against a naive loop, without and with a difference, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import f1_score

from emotion_tf.evaluation.jackknife import accuracy, estimate, score_interval
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.significance import (
    accuracy_interval,
    class_intervals,
    crossed_difference,
    format_bounds,
    intervals,
    paired_bootstrap,
)


def sample(seed, count=400, dialogues=50, right=(0.8, 0.6), classes=5):
    """Returns labels, two predictions of given accuracies, and dialogues."""
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
    result = []
    for _ in range(resamples):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        result.append(f1(label[rows], first[rows]) - f1(label[rows], second[rows]))
    return np.array(result)


def test_identical_predictions_do_not_differ():
    label, first, _, group = sample(0)
    result = paired_bootstrap(label, first, first, group, 500)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_a_planted_difference_is_significant_and_its_reverse_is_not():
    label, first, second, group = sample(1)
    result = paired_bootstrap(label, first, second, group, 2000)
    assert result.p_value < 0.002 and 0 < result.low < result.difference < result.high
    reverse = paired_bootstrap(label, second, first, group, 2000)
    assert reverse.p_value == 1
    assert (reverse.difference, reverse.low, reverse.high) == pytest.approx(
        (-result.difference, -result.high, -result.low)
    )


def test_a_p_value_is_below_the_level_exactly_if_the_interval_excludes_zero():
    """On 100 random data sets, many of them with few dialogues and near the level."""
    excluded = 0
    for seed in range(100):
        dialogues = int(np.random.default_rng(seed).integers(2, 40))
        right = (0.75, 0.58) if seed % 3 else (0.97, 0.93)  # the second differs in few dialogues
        result = paired_bootstrap(*sample(seed, 4 * dialogues, dialogues, right), 999, seed)
        excludes_zero = bool(result.low > 0 or result.high < 0)
        assert (result.two_sided < 0.05) == excludes_zero
        assert result.two_sided == min(1.0, 2 * result.p_value) or result.difference <= 0
        excluded += excludes_zero
    assert 20 < excluded < 80


@pytest.mark.parametrize("dialogues", [1, 2, 3])
def test_three_dialogues_have_no_interval(dialogues):
    label, group = np.tile([0, 1], 2 * dialogues), np.repeat(np.arange(dialogues), 4)
    predicted = np.where(np.arange(len(label)) % 4, label, 1 - label)
    result = paired_bootstrap(label, label, predicted, group)
    assert result.difference > 0 and (result.low, result.high) == (-np.inf, np.inf)
    assert paired_bootstrap(label, predicted, predicted, group).low == 0


@pytest.mark.parametrize(("dialogues", "least"), [(3, 0.0935), (10, 0.0064), (30, 0.0010)])
def test_few_dialogues_allow_no_small_p_value(dialogues, least):
    """The first is right everywhere, the second nowhere, which is 2^-9 by the sign test of ten dialogues."""
    label, group = np.tile([0, 1], 2 * dialogues), np.repeat(np.arange(dialogues), 4)
    assert paired_bootstrap(label, label, 1 - label, group).two_sided == pytest.approx(least, abs=5e-5)


def test_the_bootstrap_equals_a_naive_loop():
    label, first, second, group = sample(2, count=200, dialogues=25, right=(0.66, 0.62))
    result = paired_bootstrap(label, first, second, group, 20_000, seed=1)
    slow = naive(label, first, second, group, 500, seed=2)
    assert result.difference == pytest.approx(weighted_f1(label, first) - weighted_f1(label, second))
    spread = slow.std()
    assert result.low == pytest.approx(np.quantile(slow, 0.025), abs=0.35 * spread)
    assert result.high == pytest.approx(np.quantile(slow, 0.975), abs=0.35 * spread)
    share = norm.ppf((slow <= 0).mean()) * np.sqrt(24 / 25)  # 25 dialogues
    assert result.p_value == pytest.approx(t.cdf(share, 24), abs=0.08)


def test_each_resample_has_the_f1_of_scikit_learn():
    """The fast sums over dialogues against F1 of the rows that a draw stands for."""
    from emotion_tf.evaluation import jackknife, significance

    label, first, _, group = sample(3, count=60, dialogues=8)
    members = np.unique(group, return_inverse=True)[1]
    draws = np.random.default_rng(0).multinomial(
        members.max() + 1, np.full(members.max() + 1, 1 / (members.max() + 1)), 20
    )
    counts = significance._dialogue_counts(label, first, members, None, 5)
    fast = jackknife.weighted_f1(np.tensordot(draws, counts, axes=1))
    rows = [np.repeat(np.arange(60), draw[members]) for draw in draws]
    np.testing.assert_allclose(fast, [weighted_f1(label[r], first[r]) for r in rows], rtol=1e-12)


def test_without_a_difference_the_interval_contains_zero():
    held = 0
    for seed in range(20):
        label, first, second, group = sample(100 + seed, count=200, right=(0.6, 0.6))
        result = paired_bootstrap(label, first, second, group, 500)
        held += result.low <= 0 <= result.high
    assert held >= 17  # 19 expected


def test_utterances_of_a_dialogue_count_together():
    """Ten copies of each utterance in the same dialogue are not more evidence than one."""
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


def test_the_mean_of_several_others():
    label, first, second, group = sample(7)
    alone = paired_bootstrap(label, first, second, group, 500)
    thrice = paired_bootstrap(label, first, np.stack([second] * 3), group, 500)
    assert (thrice.difference, thrice.low, thrice.high) == pytest.approx((alone.difference, alone.low, alone.high))
    both = paired_bootstrap(label, first, np.stack([first, second]), group, 500)
    assert both.difference == pytest.approx(alone.difference / 2)
    assert (both.low, both.high) == pytest.approx((alone.low / 2, alone.high / 2))


MIX = np.array([0.45, 0.25, 0.2, 0.1])


def world(rng, dialogues, size=8):
    """Dialogues with an emotion and a difficulty of their own, so that their utterances are correlated."""
    mix, skill = rng.dirichlet(5 * MIX, dialogues), rng.beta(3.5, 1.5, dialogues)
    group = np.repeat(np.arange(dialogues), size)
    label = (rng.random((len(group), 1)) > mix.cumsum(axis=1)[group]).sum(axis=1).clip(max=3)
    other = (label + rng.integers(1, 4, len(group))) % 4
    return label, np.where(rng.random(len(group)) < skill[group], label, other), group


def test_intervals_by_dialogue_have_their_nominal_coverage_and_intervals_by_utterance_do_not():
    """In 1,000 samples of 100 dialogues, 93 to 97 % of the 95 % intervals contain the value of the population."""
    rng = np.random.default_rng(0)
    label, predicted, _ = world(rng, 100_000)
    truth = {"accuracy": np.mean(label == predicted), "weighted_f1": weighted_f1(label, predicted)}

    def held(times, rows):
        result = dict.fromkeys(truth, 0)
        for _ in range(times):
            label, predicted, group = world(rng, 100)
            bounds = intervals(label, predicted, np.arange(len(label)) if rows else group)
            for name, value in truth.items():
                result[name] += bounds[name][0] <= value <= bounds[name][1]
        return np.array(list(result.values())) / times

    by_dialogue = held(1000, rows=False)
    assert ((by_dialogue >= 0.93) & (by_dialogue <= 0.97)).all(), by_dialogue
    assert (held(200, rows=True) < 0.9).all()


def test_intervals_of_every_class():
    """Against Wilson's interval with the jackknife of scikit-learn's F1; too few utterances have none."""
    label, first, _, group = sample(8, classes=4)
    label[np.flatnonzero(label == 3)[19:]] = 2
    result = class_intervals(label, first, group, 4)
    assert result[3] is None and intervals(label, first, group)["macro_f1"] is None
    (value,), names = f1_score(label, first, labels=[1], average=None), np.unique(group)
    without = [f1_score(label[group != g], first[group != g], labels=[1], average=None)[0] for g in names]
    size = np.array([np.sum(label[group == g] == 1) + np.sum(first[group == g] == 1) for g in names])
    variance, degrees = (len(names) - 1) * np.var(without), size.sum() ** 2 / np.sum(size**2) - 1
    for bound in result[1]:  # the two values that lie t standard errors from the score
        error = np.sqrt(variance * bound * (1 - bound) / (value * (1 - value)))
        assert abs(bound - value) == pytest.approx(t.ppf(0.975, degrees) * error)


def test_a_class_without_errors_has_an_interval_of_as_many_trials_as_dialogues():
    label, group = np.zeros(80, int), np.arange(80) // 4
    (bounds,) = class_intervals(label, label, group, 1)
    assert bounds == (pytest.approx(1 / (1 + t.ppf(0.975, 19) ** 2 / 20)), pytest.approx(1))


def test_the_interval_of_accuracy():
    label, first, _, group = sample(9)
    assert accuracy_interval(label == first, group) == pytest.approx(intervals(label, first, group)["accuracy"])
    assert accuracy_interval(np.ones(19, bool), np.arange(19)) is None


def test_seeds_and_dialogues_add_their_variance():
    """By hand: two seeds a side, ten dialogues of two utterances of one class, so that F1 is 2h / (h + n)."""
    label, group = np.zeros(20, int), np.arange(20) // 2
    wrong = [[0, 2], [4, 6, 7]], [[0, 8, 9, 10, 12], [1, 2, 14, 15, 16, 18, 19]]
    first, second = (np.array([np.isin(np.arange(20), rows) for rows in side], int) for side in wrong)
    result, parts = crossed_difference(label, first, second, group)

    def score(predicted, rows):
        return weighted_f1(label[rows], predicted[rows])

    scores = [[score(predicted, group >= 0) for predicted in side] for side in (first, second)]
    assert result.difference == pytest.approx(np.mean(scores[0]) - np.mean(scores[1]))
    without = [
        np.mean([score(p, group != g) for p in first]) - np.mean([score(p, group != g) for p in second])
        for g in range(10)
    ]
    variances = [9 * np.var(without), *(np.var(side, ddof=1) / 2 for side in scores)]
    assert (parts.dialogues, parts.seeds) == (pytest.approx(variances[0]), pytest.approx(sum(variances[1:])))
    degrees = sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, (9, 1, 1), strict=True))
    margin = t.ppf(0.975, degrees) * np.sqrt(sum(variances))
    assert (result.low, result.high) == pytest.approx((result.difference - margin, result.difference + margin))
    assert result.two_sided == pytest.approx(2 * t.sf(result.difference / np.sqrt(sum(variances)), degrees))
    reverse, _ = crossed_difference(label, second, first, group)
    assert (reverse.two_sided, reverse.low) == pytest.approx((result.two_sided, -result.high))


def test_weights_count_as_copies_in_the_same_dialogue():
    label, first, _, group = sample(10, count=120)
    times = np.random.default_rng(0).integers(1, 4, 120)
    copied = intervals(*(np.repeat(x, times) for x in (label, first, group)))
    weighed = intervals(label, first, group, times.astype(float))
    for name, bounds in copied.items():
        assert weighed[name] == pytest.approx(bounds)
    second = np.roll(first, 1)
    copied = paired_bootstrap(*(np.repeat(x, times) for x in (label, first, second, group)), 500)
    assert paired_bootstrap(label, first, second, group, 500, weight=times.astype(float)) == copied


def test_one_dialogue_has_no_interval():
    label, first, _, _ = sample(11)
    assert set(intervals(label, first, np.zeros(len(label))).values()) == {None}


def test_very_many_dialogues_take_no_more_memory(monkeypatch):
    """In a folder of faces each face is a dialogue: there are fewer resamples, and the p-value counts them."""
    from emotion_tf.evaluation import significance

    monkeypatch.setattr(significance, "MAX_DRAWS", 3_000_000)
    label = np.tile([0, 1], 1000)
    predicted = np.where(np.arange(2000) % 4, label, 1 - label)
    low, high = intervals(label, predicted, np.arange(2000))["accuracy"]
    assert low < 0.75 < high and high - low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 2000) ** 0.5, rel=0.15)
    p_value = paired_bootstrap(label, label, predicted, np.arange(2000), seed=6).p_value
    assert p_value == pytest.approx(t.cdf(norm.ppf(1 / 1501) * np.sqrt(499 / 500), 499))


def test_one_dialogue_supports_no_claim():
    """Nothing is known of other dialogues: p was 0.0001, and 0 with an interval of no width if a side's seeds agree."""
    label, rng = np.zeros(200, int), np.random.default_rng(0)
    first, second = ((rng.random((5, 200)) > share).astype(int) for share in (0.8, 0.6))
    for sides in ((first, second), (np.tile(first[0], (5, 1)), np.tile(second[0], (5, 1)))):
        result, parts = crossed_difference(label, *sides, np.zeros(200))
        assert parts.effective == 1 and result.difference > 0.05
        assert (result.p_value, result.two_sided, result.low, result.high) == (1, 1, -np.inf, np.inf)
        assert format_bounds((result.low, result.high), "+") == "too few"
    # two dialogues, of which one has nearly all utterances, count for one
    assert crossed_difference(label, first, second, np.arange(200) < 199)[0].two_sided == 1


def test_a_difference_without_any_variance_is_no_finding():
    """Two dialogues that agree exactly, and seeds that agree: the variance is unknown, not 0."""
    label, group = np.zeros(20, int), np.arange(20) // 10
    first, second = np.zeros((5, 20), int), np.tile(np.arange(20) % 10 < 5, (5, 1)).astype(int)
    result, parts = crossed_difference(label, first, second, group)
    assert parts.variance == 0 and result.difference > 0.3
    assert (result.two_sided, result.low, result.high) == (1, -np.inf, np.inf)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("luck", [0.03, 0.06, 0.15])
def test_the_interval_of_a_mean_over_few_seeds_keeps_its_level(seeds, luck):
    """30 dialogues of 10 utterances; with Satterthwaite's degrees of freedom two seeds missed in 0.12 of the draws."""
    rng = np.random.default_rng(seeds)
    chance = rng.normal(0.6, luck, (20_000, seeds, 1)).clip(0, 1)
    hits = rng.binomial(10, chance, (20_000, seeds, 30)).astype(float)
    counts = np.stack([hits, np.full_like(hits, 10), np.full_like(hits, 10)], axis=-1)[..., None]
    low, high = score_interval(estimate(accuracy, counts[:, 0, :, 2, 0], counts))
    assert np.mean((low > 0.6) | (high < 0.6)) < 0.065


def test_the_quantile_of_a_mean_over_seeds_by_hand():
    """Cochran 1964: the quantiles of Student's t, weighted by the variances; one part has its own quantile."""
    hits = np.array([[3, 5, 4, 2], [5, 5, 3, 4]], float)
    counts = np.stack([hits, np.full_like(hits, 6), np.full_like(hits, 6)], axis=-1)[..., None]
    score = estimate(accuracy, np.full(4, 6.0), counts)
    expected = (score.dialogues * t.ppf(0.975, 3) + score.seeds * t.ppf(0.975, 1)) / score.variance
    assert score.quantile == pytest.approx(expected)
    assert estimate(accuracy, np.full(4, 6.0), counts[:1]).quantile == pytest.approx(t.ppf(0.975, 3))
