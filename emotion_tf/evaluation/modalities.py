"""Contribution of each modality: the loss of weighted F1 when it is removed, or exchanged among utterances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emotion_tf.evaluation.significance import Difference, format_bounds, format_p, paired_bootstrap
from emotion_tf.modalities import MODALITIES, Modality

LEVEL = 0.05


class Ablation(NamedTuple):
    """Predictions of a model without a modality.

    Attributes:
        present: number of utterances that have the modality.
        removed: int (N,), predicted classes if no utterance has it.
        shuffled: int (S, N), predicted classes if the utterances that have it exchange it at random, S times; S is 0 if
            fewer than two utterances have it.
    """

    present: int
    removed: np.ndarray
    shuffled: np.ndarray


class Contribution(NamedTuple):
    """Contribution of a modality to a model's predictions on a split.

    Attributes:
        modality: row of the modality in `MODALITIES`.
        present: number of utterances that have the modality.
        removed, shuffled: loss of weighted F1 if it is removed, or exchanged (mean over the exchanges).
        exchanges: number of exchanges.
        removed_changes, shuffled_changes: share of the predictions that change.
        verdict: "helps", "does not help", or "misleads" (the model is better without it, or with that of others); "is
            used" or "is not used" if training never lacked it.
        sentence: the verdict in words.
        never_absent: whether training never lacked it, so that `removed` says nothing.
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
    never_absent: bool


def measure_contribution(
    name: str,
    label: np.ndarray,
    predicted: np.ndarray,
    ablation: Ablation,
    group: np.ndarray,
    weight: np.ndarray | None = None,
    never_absent: bool = False,
) -> Contribution:
    """Tests whether weighted F1 falls if a modality is removed, and if it is exchanged.

    The exchange tests whether the content of the modality matters: if it were unrelated to the emotions, an exchange
    would change nothing (permutation importance; Breiman 2001, section 10). The removal tests whether the model is
    better with it than without. One test is not enough. A wrong face can mislead a model that needs none, and a model
    can depend on some face being there, no matter which. So a modality helps only if both losses are significant (an
    intersection-union test, Berger 1982; its p-value is the larger of the two).

    If training never lacked the modality, what stands in for it is untrained, and the removal says nothing. Then the
    exchange alone is tested: it tells whether the model uses the modality, not whether it needs it.

    Args:
        name: name of the modality.
        label: int (N,), true classes.
        predicted: int (N,), predicted classes with all modalities.
        ablation: predictions without the modality, with at least one exchange.
        group: (N,), dialogue of each utterance.
        weight: float (N,), or None for equal weights.
        never_absent: whether training never lacked the modality.
    """
    removed = paired_bootstrap(label, predicted, ablation.removed, group, weight=weight)
    shuffled = paired_bootstrap(label, predicted, ablation.shuffled, group, weight=weight)
    if never_absent:
        verdict, sentence = _verdict_of_exchange(MODALITIES[name], shuffled)
    else:
        verdict, sentence = _verdict(MODALITIES[name], removed, shuffled)
    return Contribution(
        MODALITIES[name],
        ablation.present,
        removed,
        shuffled,
        len(ablation.shuffled),
        float(np.mean(predicted != ablation.removed)),
        float(np.mean(predicted != ablation.shuffled)),
        verdict,
        sentence,
        never_absent,
    )


def _verdict(modality: Modality, removed: Difference, shuffled: Difference) -> tuple[str, str]:
    p = max(_p_of_loss(removed), _p_of_loss(shuffled))
    if p < LEVEL:
        return "helps", (
            f"{modality.helps} here (p {_format_p(p)}): weighted F1 falls by {_loss(removed)} without "
            f"{modality.pronoun}, and by {_loss(shuffled)} with {modality.of_others}."
        )
    no = f"{modality.does_not_help} here"
    if _harms(shuffled) or (_harms(removed) and _p_of_loss(shuffled) >= LEVEL):
        worse, how = removed, f"without {modality.pronoun}"
        if _harms(shuffled):
            worse, how = shuffled, f"with {modality.of_others}"
        return "misleads", (
            f"{no}: the model is better {how}. Weighted F1 changes by {_change(worse)} "
            f"(p {_format_p(worse.two_sided)})."
        )
    no += f" (p {_format_p(p)}). "
    if _p_of_loss(shuffled) < LEVEL:
        return "does not help", (
            f"{no}The model uses {modality.pronoun}: weighted F1 falls by {_loss(shuffled)} with {modality.of_others}. "
            f"But it is not worse without any: weighted F1 changes by {_change(removed)}."
        )
    same = f"{no}With {modality.of_others} the change of weighted F1, {_change(shuffled)}, is not significant."
    if _p_of_loss(removed) < LEVEL:
        return "does not help", (
            f"{same} Without any it falls by {_loss(removed)}, but not because of its content: the model "
            f"depends on {modality.any_of_it}, no matter which."
        )
    return "does not help", f"{same} Without any it changes by {_change(removed)}."


def _verdict_of_exchange(modality: Modality, shuffled: Difference) -> tuple[str, str]:
    untrained = f"{modality.never_absent} The loss without {modality.pronoun} says nothing of what a model needs."
    if _p_of_loss(shuffled) < LEVEL:
        return "is used", (
            f"The model uses {modality.title} here (p {_format_p(_p_of_loss(shuffled))}): weighted F1 falls by "
            f"{_loss(shuffled)} with {modality.of_others}. {untrained}"
        )
    if _harms(shuffled):
        return "misleads", (
            f"{modality.does_not_help} here: the model is better with {modality.of_others}. Weighted F1 changes by "
            f"{_change(shuffled)} (p {_format_p(shuffled.two_sided)}). {untrained}"
        )
    return "is not used", (
        f"{modality.does_not_help} here (p {_format_p(_p_of_loss(shuffled))}). With {modality.of_others} the change of "
        f"weighted F1, {_change(shuffled)}, is not significant. {untrained}"
    )


def _p_of_loss(loss: Difference) -> float:
    """Returns the two-sided p-value of a loss without the modality; near 1 if there is a gain."""
    return min(1.0, 2 * loss.p_value)


def _harms(loss: Difference) -> bool:
    return loss.difference < 0 and loss.two_sided < LEVEL


def _format_p(p: float) -> str:
    text = format_p(p, 3 if p < 0.1 else 1)
    return text if text.startswith("<") else f"= {text}"


def _loss(loss: Difference) -> str:
    return f"{loss.difference:z.3f} {_interval(loss.low, loss.high)}"


def _change(loss: Difference) -> str:
    return f"{-loss.difference:+z.3f} {_interval(-loss.high, -loss.low, '+')}"


def _interval(low: float, high: float, sign: str = "") -> str:
    bounds = format_bounds((low, high), sign, 3)
    return bounds if bounds.startswith("[") else f"(in {bounds} dialogues for an interval)"
