"""The contribution of a modality, and the sentence about it, on simulated predictions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from emotion_tf.evaluation.modalities import Ablation, measure_contribution

COUNT = 800
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 4, COUNT)
GROUP = np.arange(COUNT) // 8


def accurate(share, seed=0, label=LABEL):
    """Predictions with this accuracy."""
    rng = np.random.default_rng(seed)
    other = (label + rng.integers(1, 4, len(label))) % 4
    return np.where(rng.random(len(label)) < share, label, other)


def changed(predicted, share, to, seed=1):
    """Replaces a share of the predictions by those of `to`."""
    return np.where(np.random.default_rng(seed).random(COUNT) < share, to, predicted)


PREDICTED = accurate(0.7)


def measure(removed, shuffled, name="face", never_absent=False):
    ablation = Ablation(700, removed, np.stack([shuffled(seed) for seed in range(5)]))
    contribution = measure_contribution(name, LABEL, PREDICTED, ablation, GROUP, never_absent=never_absent)
    return contribution, contribution.sentence


def ignored(seed):
    """Predictions that hardly depend on the modality."""
    return changed(PREDICTED, 0.03, accurate(0.7, 20 + seed), seed)


def test_a_modality_that_helps():
    contribution, sentence = measure(accurate(0.5, 2), lambda seed: accurate(0.4, 10 + seed))
    assert contribution.verdict == "helps" and sentence.startswith("Faces help here (p < 0.001): weighted F1 falls by ")
    assert contribution.removed.difference == pytest.approx(0.2, abs=0.06) and contribution.shuffled.difference > 0.2
    assert (
        f"{contribution.removed.difference:.3f} [{contribution.removed.low:.3f}, {contribution.removed.high:.3f}]"
        in sentence
    )
    assert (contribution.present, contribution.exchanges) == (700, 5)
    assert contribution.removed_changes == pytest.approx(np.mean(accurate(0.5, 2) != PREDICTED))
    _, sentence = measure(accurate(0.5, 2), lambda seed: accurate(0.4, 10 + seed), "text")
    assert sentence.startswith("Text helps here (p < 0.001): ") and "without it, and by" in sentence


def test_a_worthless_modality_that_the_model_ignores():
    noise = accurate(0.7, 5)
    contribution, sentence = measure(changed(PREDICTED, 0.05, noise), ignored)
    assert contribution.verdict == "does not help"
    p = float(re.match(r"Faces do not help here \(p = ([\d.]+)\)", sentence)[1])
    assert p > 0.05 and "is not significant" in sentence and "Without any it changes by" in sentence


def test_a_worthless_modality_that_the_model_depends_on():
    """F1 falls without any face, but any face will do: no help."""
    contribution, sentence = measure(accurate(0.5, 2), ignored)
    assert contribution.verdict == "does not help" and contribution.removed.two_sided < 0.001
    assert sentence.startswith("Faces do not help here (p = ") and "depends on some face, no matter which" in sentence


def test_a_modality_that_is_used_without_a_gain():
    """Wrong faces mislead the model, but it does as well without any."""
    contribution, sentence = measure(changed(PREDICTED, 0.05, accurate(0.7, 5)), lambda seed: accurate(0.45, 10 + seed))
    assert contribution.verdict == "does not help" and contribution.shuffled.two_sided < 0.001
    assert "The model uses them" in sentence and "not worse without any" in sentence


def test_the_exchange_alone_counts_where_training_never_lacked_the_modality():
    """The loss without it, which is that of an untrained stand-in, changes nothing."""
    for removed in (PREDICTED, accurate(0.3, 2)):
        contribution, sentence = measure(removed, lambda seed: accurate(0.4, 10 + seed), never_absent=True)
        assert (
            contribution.never_absent
            and contribution.verdict == "is used"
            and sentence.startswith("The model uses faces here (p < 0.001): ")
        )
        assert "Less than 1 % of the training lacked faces: what stands in for absent faces is untrained." in sentence
        contribution, sentence = measure(removed, ignored, never_absent=True)
        assert contribution.verdict == "is not used" and "is not significant" in sentence
        contribution, _ = measure(removed, lambda seed: accurate(0.8, 10 + seed), never_absent=True)
        assert contribution.verdict == "misleads"


@pytest.mark.parametrize("harm", ["removed", "shuffled"])
def test_a_modality_that_misleads(harm):
    same = changed(PREDICTED, 0.02, accurate(0.7, 5))
    contribution, sentence = measure(
        accurate(0.85, 3) if harm == "removed" else same,
        lambda seed: accurate(0.85, 10 + seed) if harm == "shuffled" else same,
    )
    assert contribution.verdict == "misleads"
    how = "without them" if harm == "removed" else "with the faces of other utterances"
    assert sentence.startswith(f"Faces do not help here: the model is better {how}. Weighted F1 changes by +0.1")


def test_exchanges_that_change_nothing_do_not_help():
    contribution, sentence = measure(PREDICTED, lambda seed: PREDICTED)
    assert contribution.verdict == "does not help" and "(p = 1.0)" in sentence
    assert (contribution.removed_changes, contribution.shuffled_changes) == (0, 0)


def test_the_false_positive_rate_is_below_the_level():
    """Exchanges are as accurate as the original: the verdict is 'helps' in at most 2.5 % of the trials."""
    helps = 0
    for trial in range(30):
        label = np.random.default_rng(trial).integers(0, 4, 160)
        predicted = [accurate(0.6, 1000 * trial + k, label) for k in range(5)]
        ablation = Ablation(160, predicted[1], np.stack(predicted[2:]))
        helps += measure_contribution("face", label, predicted[0], ablation, np.arange(160) // 8).verdict == "helps"
    assert helps <= 3
