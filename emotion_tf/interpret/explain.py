"""Why a run gives utterances the classes that it gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emotion_tf.errors import UserError, nearest
from emotion_tf.interpret import checks, face, modality, text
from emotion_tf.interpret.batch import FACE, TEXT, Batch, Scorer, Utterance, scores
from emotion_tf.interpret.kinds import Explanation, FaceMap, Strip
from emotion_tf.runs.run import Run

SHUFFLES = 2
"""Shuffled models that an attribution is compared with."""
FEW_STEPS = 4
"""Of their integrated gradients, whose pattern alone is looked at."""
AT_ONCE = 16
Through = Callable[[Iterable[Any], int], Iterable[Any]]


def explain(
    run: Run | Scorer,
    utterances: Sequence[Utterance],
    label: str = "",
    layer: str = "",
    check: bool = True,
    through: Through | None = None,
) -> list[Explanation]:
    """Explanations of utterances, each of its most probable class.

    Args:
        run: the run, or the scorer of a run that is asked several times.
        utterances: raw, as `Predictor.predict` takes them, with ids.
        label: another class to explain, the same for all.
        layer: of the face tower, for Grad-CAM; empty: one by default for each branch.
        check: whether the randomisation check and the curves are made too: they take most of the time.
        through: shows progress over the batches.

    Raises:
        UserError: no such label or layer, an utterance of which the run reads nothing, or a picture that cannot be
            read.
    """
    scorer = run if isinstance(run, Scorer) else Scorer(run)
    kept = [_kept(scorer, one) for one in utterances]
    watched = face.layers_to_watch(scorer, layer)
    at_once = 1 if check else AT_ONCE
    starts = range(0, len(kept), at_once)
    return [
        one
        for i in (through(starts, len(starts)) if through else starts)
        for one in explain_batch(batch_of(scorer, kept[i : i + at_once], label, watched), check)
    ]


def _kept(scorer: Scorer, utterance: Utterance) -> Utterance:
    kept = scorer.keep(utterance)
    if not modality.present(kept):
        raise UserError(
            f"Nothing to explain{' of ' + utterance.id if utterance.id else ''}: {scorer.run.path} reads "
            f"{', '.join(scorer.modalities)}. Expected at least one of them. Received: none."
        )
    return kept


def batch_of(scorer: Scorer, utterances: Sequence[Utterance], label: str = "", watched: Sequence[str] = ()) -> Batch:
    """Utterances as `Scorer.keep` gives them, with their most probable classes, or with the class `label` for all.

    Raises:
        UserError: no such label.
    """
    labels = scorer.run.labels
    if label and label not in labels:
        raise UserError(
            f"Invalid `--label`. Expected one of: {', '.join(labels)}. Received: {label!r}.{nearest(label, labels)}"
        )
    target = np.full(len(utterances), labels.index(label)) if label else None
    return Batch(scorer, utterances, target, watched)


def explain_batch(batch: Batch, check: bool = True) -> list[Explanation]:
    """Explanations of the utterances of a batch; see `explain`."""
    strips, maps = text.strips(batch), [face.distinct(found) for found in face.maps(batch)]
    if check:
        strips, maps = _checked(batch, strips, maps)
    shares, weights = modality.modality_shares(batch), face.crop_weights(batch)
    probabilities = batch.scorer.calibrated(batch.outputs)
    score = np.asarray(scores(batch.logits, batch.target))
    side = batch.scorer.run.spec.face_size
    crops, owner = (
        face.crops_of(batch)
        if FACE in batch.scorer.modalities
        else (np.zeros((0, side, side, 3), np.uint8), np.zeros(0, int))
    )
    return [
        Explanation(
            one,
            batch.scorer.run.labels,
            probabilities[n],
            int(batch.target[n]),
            tuple(strips[n]),
            crops[owner == n],
            tuple(maps[n]),
            weights[n] if maps[n] else None,
            shares[n].values,
            shares[n].empty,
            float(score[n]),
            tuple(_notes(batch, n)),
        )
        for n, one in enumerate(batch.utterances)
    ]


def _notes(batch: Batch, n: int) -> list[str]:
    """What a reader would miss without being told why."""
    notes = []
    if FACE in batch.scorer.modalities and batch.utterances[n].faces and not face.cam_layers(batch.towers[FACE]):
        notes.append("The face network is a SavedModel: it has no layers at which Grad-CAM could look.")
    if TEXT in batch.scorer.modalities and "bert" in batch.layers:
        notes.append(
            "BERT is called with ids and hides its embeddings, so the first strip is occlusion of whole words. What is "
            "contextual tells which position carries the evidence, not which word brought it there."
        )
    return notes


def _checked(
    batch: Batch, strips: list[list[Strip]], maps: list[list[FaceMap]]
) -> tuple[list[list[Strip]], list[list[FaceMap]]]:
    """With the randomisation check of each, and curves of the headline strip and of the maps."""
    others: list[tuple[list[list[Strip]], list[dict[str, np.ndarray]]]] = []
    for seed in range(SHUFFLES):
        with checks.shuffled(batch.scorer.model, seed):
            same = Batch(batch.scorer, batch.utterances, batch.target, list(batch.features))
            others.append((text.strips(same, FEW_STEPS), [_by_key(found) for found in face.maps(same, FEW_STEPS)]))
    for n, found in enumerate(strips):
        for i, strip in enumerate(found):
            shuffled = [other[n][i].values for other, _ in others]
            curves = checks.word_curves(batch, n, strip) if i == 0 else None
            strips[n][i] = replace(strip, similarity=checks.similarity(strip.values, shuffled, True), curves=curves)
    for n, seen in enumerate(maps):
        curves_of_maps = checks.pixel_curves(batch, n, seen) if seen else []
        for i, one in enumerate(seen):
            shuffled = [other[n][one.key] for _, other in others]
            similar = checks.similarity(one.values, shuffled, False)
            maps[n][i] = replace(one, similarity=similar, curves=curves_of_maps[i])
    return strips, maps


def _by_key(maps: Sequence[FaceMap]) -> dict[str, np.ndarray]:
    return {one.key: one.values for one in maps}
