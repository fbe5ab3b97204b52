"""The sentences on what a modality is worth, on planted data."""

from __future__ import annotations

import re

import numpy as np
import pytest

from emotion_tf.evaluation.modalities import Ablation, judge

COUNT = 800
RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 4, COUNT)
GROUP = np.arange(COUNT) // 8


def right(share, seed=0, label=LABEL):
    """Predictions of which that share is right."""
    rng = np.random.default_rng(seed)
    other = (label + rng.integers(1, 4, len(label))) % 4
    return np.where(rng.random(len(label)) < share, label, other)


def changed(predicted, share, to, seed=1):
    """The same, but a share of the rows is as in `to`."""
    return np.where(np.random.default_rng(seed).random(COUNT) < share, to, predicted)


WHOLE = right(0.7)


def verdict(removed, shuffled, name="face"):
    ablation = Ablation(700, removed, np.stack([shuffled(seed) for seed in range(5)]))
    found = judge(name, LABEL, WHOLE, ablation, GROUP)
    return found, found.sentence


def test_a_modality_that_helps():
    found, said = verdict(right(0.5, 2), lambda seed: right(0.4, 10 + seed))
    assert found.verdict == "helps" and said.startswith(
        "Faces help here (p < 0.001): without them weighted F1 falls by "
    )
    assert found.removed.difference == pytest.approx(0.2, abs=0.06) and found.shuffled.difference > 0.2
    assert f"{found.removed.difference:.3f} [{found.removed.low:.3f}, {found.removed.high:.3f}]" in said
    assert (found.present, found.exchanges) == (700, 5)
    assert found.removed_changes == pytest.approx(np.mean(right(0.5, 2) != WHOLE))
    _, said = verdict(right(0.5, 2), lambda seed: right(0.4, 10 + seed), "text")
    assert said.startswith("Text helps here (p < 0.001): without it")


def test_a_worthless_modality_that_the_model_ignores():
    noise = right(0.7, 5)
    found, said = verdict(changed(WHOLE, 0.05, noise), lambda seed: changed(WHOLE, 0.03, right(0.7, 20 + seed), seed))
    assert found.verdict == "does not help"
    p = float(re.match(r"Faces do not help here \(p = ([\d.]+)\)", said)[1])
    assert p > 0.05 and "the same but for chance" in said and "Without any it changes by" in said


def test_a_worthless_modality_that_the_model_has_got_used_to():
    """Without any face it falls, but any face will do: no gain."""
    found, said = verdict(right(0.5, 2), lambda seed: changed(WHOLE, 0.03, right(0.7, 20 + seed), seed))
    assert found.verdict == "does not help" and found.removed.two_sided < 0.001
    assert said.startswith("Faces do not help here (p = ") and "got used to some face, no matter which" in said


def test_a_modality_that_is_followed_without_a_gain():
    """Wrong faces mislead it, but without any it does as well."""
    found, said = verdict(changed(WHOLE, 0.05, right(0.7, 5)), lambda seed: right(0.45, 10 + seed))
    assert found.verdict == "does not help" and found.shuffled.two_sided < 0.001
    assert "the model follows them" in said and "without any it is not worse" in said


@pytest.mark.parametrize("harm", ["removed", "shuffled"])
def test_a_modality_that_misleads(harm):
    same = changed(WHOLE, 0.02, right(0.7, 5))
    found, said = verdict(
        right(0.85, 3) if harm == "removed" else same,
        lambda seed: right(0.85, 10 + seed) if harm == "shuffled" else same,
    )
    assert found.verdict == "misleads"
    how = "without them" if harm == "removed" else "with the faces of other utterances"
    assert said.startswith(f"Faces do not help here, but the model would do better {how}: weighted F1 changes by +0.1")


def test_exchanges_that_change_nothing_are_no_evidence():
    found, said = verdict(WHOLE, lambda seed: WHOLE)
    assert found.verdict == "does not help" and "(p = 1.0)" in said
    assert (found.removed_changes, found.shuffled_changes) == (0, 0)


def test_worthless_faces_are_said_to_help_at_most_as_often_as_chance_has_it():
    """Every exchange as good as the truth: 'help' is said in no more than 2.5 % of the cases, by both tests."""
    said = 0
    for trial in range(30):
        label = np.random.default_rng(trial).integers(0, 4, 160)
        shown = [right(0.6, 1000 * trial + k, label) for k in range(5)]
        ablation = Ablation(160, shown[1], np.stack(shown[2:]))
        said += judge("face", label, shown[0], ablation, np.arange(160) // 8).verdict == "helps"
    assert said <= 3
