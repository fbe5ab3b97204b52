"""Votes of several models: by hand, on simulated members, and without optimism in cross-validation."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from emotion_tf import documents
from emotion_tf.errors import UserError
from emotion_tf.evaluation import votes
from emotion_tf.evaluation.ensemble import member_scores
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.vote import METHODS, Vote
from emotion_tf.evaluation.votes import FittedVote, MemberPredictions, best_method, fit, fit_all


def planted(weights, count=4000, classes=3, seed=0, useless=1):
    """Labels drawn from a mixture of members with these weights, and uninformative members."""
    rng = np.random.default_rng(seed)
    members = rng.dirichlet(np.full(classes, 0.4), (len(weights) + useless, count))
    mixture = np.tensordot(weights, members[: len(weights)], 1)
    label = (mixture.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return MemberPredictions(members, label, np.arange(count) // 8, np.ones(count))


def test_the_soft_vote_by_hand():
    p = np.array([[[0.6, 0.4], [0.1, 0.9]], [[0.2, 0.8], [0.5, 0.5]]])
    predictions = MemberPredictions(p, np.array([0, 1]), np.arange(2), np.ones(2))
    np.testing.assert_allclose(fit("soft", predictions).combine(p), [[0.4, 0.6], [0.3, 0.7]])


PRIOR = np.array([0.47, 0.17, 0.12, 0.11, 0.08, 0.03, 0.02])
"""Shares of the emotions in MELD."""


def independent(signals, count, seed):
    """Members that are calibrated exactly, and independent of each other given the label.

    Member m sees x ~ N(signal * one_hot(label), 1), so that log p(label | x) = log prior + signal * x, plus a constant.
    """
    rng = np.random.default_rng(seed)
    label = rng.choice(len(PRIOR), count, p=PRIOR)
    evidence = [s * (rng.normal(0, 1, (count, len(PRIOR))) + s * np.eye(len(PRIOR))[label]) for s in signals]
    members = np.stack([softmax(np.log(PRIOR) + x, axis=1) for x in evidence])
    return MemberPredictions(members, label, np.arange(count) // 8, np.ones(count))


@pytest.mark.parametrize("signals", [(2.0, 2.0), (2.0, 1.0), (1.5, 1.5, 1.5)])
def test_votes_of_calibrated_members_are_calibrated(signals):
    """Fitted on as many utterances as MELD's dev has, their error on 100,000 others is at most 0.03."""
    dev, test = independent(signals, 1109, 0), independent(signals, 100_000, 1)
    for p in test.probabilities:
        assert test.scores(p)[2] < 0.006
    for method in METHODS:
        vote = fit(method, dev)
        _, loss, error = test.scores(vote.combine(test.probabilities))
        assert error < 0.03, method
        pool = replace(vote, temperature=1.0)
        _, loss_of_pool, error_of_pool = test.scores(pool.combine(test.probabilities))
        if method == "soft":
            assert error_of_pool > 0.15 and loss < loss_of_pool - 0.1 and vote.temperature < 0.6
        if method == "stacking":
            assert vote.temperature == 1
        else:
            assert loss < loss_of_pool


def test_the_temperature_of_a_vote_is_cross_validated_and_changes_no_prediction():
    dev = independent((2.0, 2.0), 1109, 0)
    soft = fit_all(dev)["soft"]
    scaled = softmax(np.log(dev.probabilities.mean(axis=0)) / soft.vote.temperature, axis=1)
    np.testing.assert_allclose(soft.vote.combine(dev.probabilities), scaled, atol=1e-4)
    assert (soft.probabilities.argmax(axis=1) == dev.probabilities.mean(axis=0).argmax(axis=1)).all()
    assert 0 < np.abs(soft.probabilities - scaled).max() < 0.05  # each fold has its own
    assert soft.calibration_error < 0.05 < 0.1 < dev.scores(dev.probabilities.mean(axis=0))[2]
    assert fit("soft", dev.subset(np.arange(99))).temperature == 1  # too few


def test_planted_weights_are_recovered_and_a_useless_member_has_weight_0():
    vote = fit("weighted", planted([0.7, 0.3]))
    np.testing.assert_allclose(vote.weights, [0.7, 0.3, 0.0], atol=0.04)
    assert sum(vote.weights) == pytest.approx(1) and min(vote.weights) >= 0


def test_the_weighted_vote_minimises_the_log_loss():
    predictions = planted([0.5, 0.5], count=400, useless=0)
    vote = fit("weighted", predictions)
    losses = [
        predictions.log_loss(Vote("weighted", np.array([w, 1 - w])).combine(predictions.probabilities))
        for w in np.linspace(0, 1, 201)
    ]
    assert predictions.log_loss(vote.combine(predictions.probabilities)) <= min(losses) + 1e-7
    heavy = replace(
        predictions, weight=np.where(predictions.probabilities[0].argmax(axis=1) == predictions.label, 1.0, 0.0)
    )
    assert fit("weighted", heavy).weights[0] > vote.weights[0] + 0.2  # utterances count with their weight


def test_stacking_recovers_a_product_of_probabilities():
    rng = np.random.default_rng(0)
    count, classes = 1500, 3
    label = rng.integers(0, classes, count)

    def member(signal):
        return softmax(rng.normal(0, 1, (count, classes)) + signal * np.eye(classes)[label], axis=1)

    # independent Gaussian evidence: the posterior is the product of both, and of nothing else
    predictions = MemberPredictions(
        np.stack([member(1.0), member(1.0), member(0.0)]), label, np.arange(count) // 8, np.ones(count)
    )
    vote = fit("stacking", predictions)
    truth = softmax(np.log(predictions.probabilities[:2]).sum(axis=0), axis=1)
    assert np.abs(vote.combine(predictions.probabilities) - truth).mean() < 0.04
    coefficients = np.array(vote.coefficients)
    centred = coefficients - coefficients.mean(axis=2, keepdims=True)
    assert np.abs(centred[2]).max() < 0.2 and min(np.diag(c).min() for c in centred[:2]) > 0.5
    fitted = fit_all(predictions.subset(np.arange(600)))
    assert best_method(fitted) == "stacking" and fitted["stacking"].log_loss < fitted["weighted"].log_loss
    mean = predictions.probabilities[:2, :600].mean(axis=0)
    assert fitted["stacking"].log_loss < predictions.subset(np.arange(600)).log_loss(mean) - 0.02


def test_cross_validation_is_not_optimistic(monkeypatch):
    """Random labels: the fitted vote scores high on them, but not on dialogues that were held out."""
    monkeypatch.setattr(votes, "STRENGTHS", (10.0,))
    rng = np.random.default_rng(1)
    predictions = MemberPredictions(
        rng.dirichlet(np.ones(7), (4, 80)), rng.integers(0, 7, 80), np.arange(80) // 4, np.ones(80)
    )
    stacking = fit_all(predictions)["stacking"]
    own = weighted_f1(predictions.label, stacking.vote.combine(predictions.probabilities).argmax(axis=1))
    assert own > stacking.weighted_f1 + 0.3 and stacking.weighted_f1 < 0.35
    assert stacking.weighted_f1 == weighted_f1(predictions.label, stacking.probabilities.argmax(axis=1))


def test_folds_do_not_divide_dialogues_and_hold_out_each_utterance_once():
    predictions = planted([1.0], count=120)
    folds = list(votes._folds(predictions))
    assert len(folds) == votes.FOLDS
    for train, held_out in folds:
        assert not set(predictions.group[train]) & set(predictions.group[held_out])
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(120))


def test_the_simplest_method_wins_a_tie():
    def scored(score):
        return FittedVote(Vote("soft", (1.0,)), np.empty(0), score, 0.0, 0.0)

    assert best_method({"soft": scored(0.5), "weighted": scored(0.5), "stacking": scored(0.5)}) == "soft"
    assert best_method({"soft": scored(0.5), "weighted": scored(0.6), "stacking": scored(0.6)}) == "weighted"


@pytest.mark.parametrize("present", [(0, 2, 3), (1, 3), (2,)])
def test_classes_without_an_utterance(present):
    rng = np.random.default_rng(0)
    label = rng.choice(present, 60)
    p = softmax(rng.normal(0, 1, (2, 60, 4)) + 2 * np.eye(4)[label], axis=2)
    vote = fit("stacking", MemberPredictions(p, label, np.arange(60) // 4, np.ones(60)))
    combined = vote.combine(p)
    np.testing.assert_allclose(combined.sum(axis=1), 1)
    assert combined[:, [c for c in range(4) if c not in present]].max() < 1e-3
    assert (combined.argmax(axis=1) == label).mean() > 0.8


def test_probabilities_of_0_are_finite_and_json_keeps_everything():
    predictions = planted([0.5, 0.5], count=80)
    p = np.eye(3)[np.random.default_rng(0).integers(0, 3, (3, 80))]
    for method in METHODS:
        vote = fit(method, replace(predictions, probabilities=p))
        assert np.isfinite(vote.combine(p)).all()
        np.testing.assert_array_equal(
            documents.parse(documents.to_json(vote).encode(), Vote, "x", "").combine(p), vote.combine(p)
        )


def test_tensors_are_combined_as_arrays_are():
    import keras

    p = independent((1.0, 1.0), 6, 0).probabilities.astype(np.float32)
    stacked = Vote("stacking", coefficients=np.random.default_rng(0).normal(size=(2, 7, 7)), bias=np.arange(7.0))
    for vote in (Vote("weighted", weights=np.array([0.7, 0.3]), temperature=0.4), stacked):
        logits = vote.logits(keras.ops.convert_to_tensor(p), keras.ops)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        np.testing.assert_allclose(logits, vote.logits(p), rtol=1e-5, atol=1e-5)


def test_one_dialogue_raises():
    predictions = planted([1.0], count=20)
    with pytest.raises(UserError, match="needs two or more dialogues. Received"):
        fit_all(replace(predictions, group=np.zeros(20)))


def test_the_score_of_a_member_is_that_of_its_own_labels():
    """Its label need not be its most probable class; the calibration error is that of the label's probability."""
    p = np.array([[[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.2, 0.8]]])
    predictions = MemberPredictions(p, np.array([1, 1, 0, 1]), np.arange(4), np.ones(4))
    table = pd.DataFrame({"predicted": ["b", "b", "a", "b"]})
    ((f1, loss, error),) = member_scores(predictions, [table], ("a", "b"))
    assert f1 == 1 and loss == pytest.approx(-np.log([0.4, 0.4, 0.9, 0.8]).mean())
    assert error == pytest.approx((2 * 0.6 + 0.1 + 0.2) / 4)
    assert predictions.scores(p[0])[0] < 1


MATRIX = np.zeros((2, 3, 3)).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": "x"}, "`temperature`. Expected a number. Received: 'x'"),
        ({"temperature": 0}, "`temperature`. Expected a number above 0.025"),
        ({"temperature": float("nan")}, "`temperature`. Expected a number"),
        ({"method": "median"}, "`method`. Expected one of: soft, weighted, stacking"),
        ({"weights": [1.0]}, r"`weights`. Expected the shape \(2,\)"),
        ({"weights": [0.5, float("nan")]}, r"`weights\[1\]`. Expected a finite number. Received: nan"),
        ({"weights": [1.5, -0.5]}, r"`weights\[0\]`. Expected a number of at most 1"),
        ({"weights": [0.5, 0.25]}, "`weights`. Expected a sum of 1. Received: 0.75"),
        ({"method": "stacking"}, "`weights`. A stacking vote has coefficients and bias alone"),
        ({"method": "stacking", "weights": None, "coefficients": MATRIX[:1], "bias": [0, 0, 0]}, r"\(2, 3, 3\)"),
        ({"method": "stacking", "weights": None, "coefficients": MATRIX, "bias": [0]}, r"`bias`. Expected the shape"),
    ],
)
def test_a_vote_that_is_none_is_refused(change, message):
    values = dataclasses.asdict(Vote("soft", (0.5, 0.5)))

    def read(values):
        documents.parse(json.dumps(values).encode(), Vote, "x", "").check_shape(2, 3)

    read(values)
    with pytest.raises(UserError, match=message):
        read({**values, **change})


@pytest.mark.parametrize("method", METHODS)
def test_utterances_of_weight_0_do_not_count(method):
    """Their predictions are out of fold, too: a dialogue without weight is in no fit."""
    predictions = independent((1.0, 1.0), 160, 0)
    weighted = replace(predictions, weight=(np.arange(160) % 2 * (np.arange(160) < 140)).astype(float))
    rows = weighted.weight > 0
    vote, alone = fit(method, weighted), fit(method, predictions.subset(rows))
    np.testing.assert_array_equal(vote.combine(predictions.probabilities), alone.combine(predictions.probabilities))
    assert rows.sum() < 100 < len(rows) and vote.temperature == 1  # too few
    of_all, of_rows = (votes._fit_and_score(method, split) for split in (weighted, predictions.subset(rows)))
    np.testing.assert_array_equal(of_all.probabilities[rows], of_rows.probabilities)
    np.testing.assert_allclose(of_all.probabilities.sum(axis=1), 1)
