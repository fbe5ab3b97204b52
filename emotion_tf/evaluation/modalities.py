"""Does each modality help? By what is lost when it is taken away, or exchanged among utterances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emotion_tf.evaluation.significance import Difference, paired_bootstrap
from emotion_tf.modalities import MODALITIES, Modality

LEVEL = 0.05


class Ablation(NamedTuple):
    """Predictions of a model that lacks a modality.

    Attributes:
        present: utterances that have the modality.
        removed: int (N,), predicted classes when no utterance has it.
        shuffled: int (S, N), predicted classes when the utterances that have it exchange it among each other, each
            time anew; S is 0 where fewer than two have it.
    """

    present: int
    removed: np.ndarray
    shuffled: np.ndarray


class Help(NamedTuple):
    """What a modality is worth to a model on a split.

    Attributes:
        modality: its row in `MODALITIES`.
        present: utterances that have it.
        removed, shuffled: weighted F1 as it is minus weighted F1 without it, or exchanged (mean over the exchanges).
        exchanges: how many.
        removed_changes, shuffled_changes: share of the predictions that change.
        verdict: "helps", "does not help", or "misleads" (the model would do better without it, or with another's).
        sentence: what this means, in words.
    """

    modality: Modality
    present: int
    removed: Difference
    shuffled: Difference
    exchanges: int
    removed_changes: float
    shuffled_changes: float
    verdict: str
    sentence: str


def judge(
    name: str,
    label: np.ndarray,
    whole: np.ndarray,
    ablation: Ablation,
    group: np.ndarray,
    weight: np.ndarray | None = None,
) -> Help:
    """Tests both losses and says what they mean.

    Exchanging asks whether what the modality shows matters: were it unrelated to the emotions, each exchange would be
    as good as the truth (permutation; Breiman 2001, section 10). Removing asks whether the model does better with it
    than without. Neither is enough: a wrong face may mislead a model that would do as well with none, and a model may
    have got used to being shown some face, no matter which. So a modality helps when both losses are there (an
    intersection-union test, Berger 1982: its p-value is the larger one).

    Args:
        name: name of the modality.
        label: int (N,), true classes.
        whole: int (N,), predicted classes with everything there.
        ablation: without the modality; with at least one exchange.
        group: (N,), dialogue of each utterance.
        weight: float (N,), or None for equal weights.
    """
    removed = paired_bootstrap(label, whole, ablation.removed, group, weight=weight)
    shuffled = paired_bootstrap(label, whole, ablation.shuffled, group, weight=weight)
    verdict, sentence = _verdict(MODALITIES[name], removed, shuffled)
    return Help(
        MODALITIES[name],
        ablation.present,
        removed,
        shuffled,
        len(ablation.shuffled),
        float(np.mean(whole != ablation.removed)),
        float(np.mean(whole != ablation.shuffled)),
        verdict,
        sentence,
    )


def _verdict(words: Modality, removed: Difference, shuffled: Difference) -> tuple[str, str]:
    p = max(_p_of_gain(removed), _p_of_gain(shuffled))
    if p < LEVEL:
        return "helps", (
            f"{words.helps} here (p {_shown(p)}): without {words.pronoun} weighted F1 falls by "
            f"{_loss(removed)}, with {words.of_others} by {_loss(shuffled)}."
        )
    no = f"{words.does_not_help} here"
    if _harms(shuffled) or (_harms(removed) and _p_of_gain(shuffled) >= LEVEL):
        worse, how = (
            (shuffled, f"with {words.of_others}") if _harms(shuffled) else (removed, f"without {words.pronoun}")
        )
        return "misleads", (
            f"{no}, but the model would do better {how}: weighted F1 changes by {_change(worse)} "
            f"(p {_shown(worse.two_sided)})."
        )
    no += f" (p {_shown(p)}): "
    if _p_of_gain(shuffled) < LEVEL:
        return "does not help", (
            f"{no}the model follows {words.pronoun}, so that with {words.of_others} it loses {_loss(shuffled)}; but "
            f"without any it is not worse: weighted F1 changes by {_change(removed)}."
        )
    same = f"{no}with {words.of_others} weighted F1 is the same but for chance, {_change(shuffled)}."
    if _p_of_gain(removed) < LEVEL:
        return "does not help", (
            f"{same} That it falls by {_loss(removed)} without any is no gain from what is shown: the model has got "
            f"used to {words.any_of_it}, no matter which."
        )
    return "does not help", f"{same} Without any it changes by {_change(removed)}."


def _p_of_gain(one: Difference) -> float:
    """That there is a loss without the modality, as a two-sided p-value; near 1 where there is a gain."""
    return min(1.0, 2 * one.p_value)


def _harms(one: Difference) -> bool:
    return one.difference < 0 and one.two_sided < LEVEL


def _shown(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.1f}"


def _loss(one: Difference) -> str:
    return f"{one.difference:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _change(one: Difference) -> str:
    return f"{-one.difference:+.3f} [{-one.high:+.3f}, {-one.low:+.3f}]"
