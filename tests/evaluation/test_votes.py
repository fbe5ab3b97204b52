"""Votes of several models: by hand, on data that are planted, and against their own flattery."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from emotion_tf.errors import UserError
from emotion_tf.evaluation import votes
from emotion_tf.evaluation.metrics import weighted_f1
from emotion_tf.evaluation.votes import METHODS, Ballots, Fitted, Vote, best, fit, fit_all


def planted(weights, count=4000, classes=3, seed=0, useless=1):
    """Labels drawn from a mixture of members with these weights, and members that know nothing beside them."""
    rng = np.random.default_rng(seed)
    members = rng.dirichlet(np.full(classes, 0.4), (len(weights) + useless, count))
    mixture = np.tensordot(weights, members[: len(weights)], 1)
    label = (mixture.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return Ballots(members, label, np.arange(count) // 8, np.ones(count))


def test_the_soft_vote_by_hand():
    p = np.array([[[0.6, 0.4], [0.1, 0.9]], [[0.2, 0.8], [0.5, 0.5]]])
    ballots = Ballots(p, np.array([0, 1]), np.arange(2), np.ones(2))
    np.testing.assert_allclose(fit("soft", ballots).combine(p), [[0.4, 0.6], [0.3, 0.7]])


def test_planted_weights_are_found_and_a_useless_member_gets_none():
    vote = fit("weighted", planted([0.7, 0.3]))
    np.testing.assert_allclose(vote.weights, [0.7, 0.3, 0.0], atol=0.04)
    assert vote.weights.sum() == pytest.approx(1) and (vote.weights >= 0).all()


def test_the_weighted_vote_has_the_least_log_loss():
    ballots = planted([0.5, 0.5], count=400, useless=0)
    vote = fit("weighted", ballots)
    losses = [
        ballots.log_loss(Vote("weighted", np.array([w, 1 - w])).combine(ballots.probabilities))
        for w in np.linspace(0, 1, 201)
    ]
    assert ballots.log_loss(vote.combine(ballots.probabilities)) <= min(losses) + 1e-7
    heavy = replace(ballots, weight=np.where(ballots.probabilities[0].argmax(axis=1) == ballots.label, 1.0, 0.0))
    assert fit("weighted", heavy).weights[0] > vote.weights[0] + 0.2  # utterances count by their weight


def test_stacking_finds_a_product_that_no_mean_can_be():
    rng = np.random.default_rng(0)
    count, classes = 1500, 3
    label = rng.integers(0, classes, count)

    def member(signal):
        return softmax(rng.normal(0, 1, (count, classes)) + signal * np.eye(classes)[label], axis=1)

    # independent Gaussian evidence: the posterior is the product of both, and of nothing else
    ballots = Ballots(np.stack([member(1.0), member(1.0), member(0.0)]), label, np.arange(count) // 8, np.ones(count))
    vote = fit("stacking", ballots)
    truth = softmax(np.log(ballots.probabilities[:2]).sum(axis=0), axis=1)
    assert np.abs(vote.combine(ballots.probabilities) - truth).mean() < 0.04
    centred = vote.coefficients - vote.coefficients.mean(axis=2, keepdims=True)
    assert np.abs(centred[2]).max() < 0.2 and min(np.diag(c).min() for c in centred[:2]) > 0.5
    fitted = fit_all(ballots.part(np.arange(600)))
    assert best(fitted) == "stacking" and fitted["stacking"].log_loss < fitted["weighted"].log_loss - 0.02


def test_cross_validation_is_not_flattered(monkeypatch):
    """Labels that nobody can know: what is fitted on them looks good there, and not on dialogues left out."""
    monkeypatch.setattr(votes, "STRENGTHS", (10.0,))
    rng = np.random.default_rng(1)
    ballots = Ballots(rng.dirichlet(np.ones(7), (4, 80)), rng.integers(0, 7, 80), np.arange(80) // 4, np.ones(80))
    found = fit_all(ballots)["stacking"]
    own = weighted_f1(ballots.label, found.vote.combine(ballots.probabilities).argmax(axis=1))
    assert own > found.weighted_f1 + 0.3 and found.weighted_f1 < 0.35
    assert found.weighted_f1 == weighted_f1(ballots.label, found.probabilities.argmax(axis=1))


def test_no_dialogue_is_on_both_sides_and_each_utterance_is_answered_once():
    ballots = planted([1.0], count=120)
    folds = list(votes._folds(ballots))
    assert len(folds) == votes.FOLDS
    for inside, outside in folds:
        assert not set(ballots.group[inside]) & set(ballots.group[outside])
    assert sorted(np.concatenate([outside for _, outside in folds])) == list(range(120))


def test_among_equals_the_simplest():
    def scored(score):
        return Fitted(Vote("soft"), np.empty(0), score, 0.0)

    assert best({"soft": scored(0.5), "weighted": scored(0.5), "stacking": scored(0.5)}) == "soft"
    assert best({"soft": scored(0.5), "weighted": scored(0.6), "stacking": scored(0.6)}) == "weighted"


@pytest.mark.parametrize("present", [(0, 2, 3), (1, 3), (2,)])
def test_classes_that_the_rows_do_not_have(present):
    rng = np.random.default_rng(0)
    label = rng.choice(present, 60)
    p = softmax(rng.normal(0, 1, (2, 60, 4)) + 2 * np.eye(4)[label], axis=2)
    vote = fit("stacking", Ballots(p, label, np.arange(60) // 4, np.ones(60)))
    made = vote.combine(p)
    np.testing.assert_allclose(made.sum(axis=1), 1)
    assert made[:, [c for c in range(4) if c not in present]].max() < 1e-3
    assert (made.argmax(axis=1) == label).mean() > 0.8


def test_zeros_are_no_infinities_and_json_keeps_all():
    ballots = planted([0.5, 0.5], count=80)
    p = np.eye(3)[np.random.default_rng(0).integers(0, 3, (3, 80))]
    for method in METHODS:
        vote = fit(method, replace(ballots, probabilities=p))
        assert np.isfinite(vote.combine(p)).all()
        np.testing.assert_array_equal(
            Vote.from_json(json.loads(json.dumps(vote.to_json()))).combine(p), vote.combine(p)
        )


def test_one_dialogue_is_not_enough():
    ballots = planted([1.0], count=20)
    with pytest.raises(UserError, match="of one dialogue. Expected two or more"):
        fit_all(replace(ballots, group=np.zeros(20)))
