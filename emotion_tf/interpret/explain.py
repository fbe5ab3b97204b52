"""Explanations of the predictions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emotion_tf.errors import UserError, nearest
from emotion_tf.interpret import checks, face, modality, text
from emotion_tf.interpret.batch import FACE, TEXT, Batch, Scorer, Utterance, scores
from emotion_tf.interpret.explanation import Explanation, FaceMap, WordAttributions
from emotion_tf.modalities import MODALITIES
from emotion_tf.runs.run import Run

SHUFFLES = 2
"""Number of models with shuffled weights in the randomisation check."""
FEW_STEPS = 4
"""Steps of integrated gradients for these models, where only the pattern matters."""
BATCH = 16
UNTRAINED = (
    "So do not trust the Shapley values, which compare with it. The exchange among utterances needs no stand-in: see "
    "the report of the run, or explain the run with --data."
)
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def explain(
    run: Run | Scorer,
    utterances: Sequence[Utterance],
    label: str = "",
    layer: str = "",
    check: bool = True,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Explains the predicted class of each utterance.

    Args:
        run: the run, or its scorer to explain several times.
        utterances: raw utterances, as `Predictor.predict` takes them, with ids.
        label: another class to explain, the same for all utterances.
        layer: layer of the face tower for Grad-CAM; by default one layer of each branch.
        check: whether to add the randomisation check and the deletion and insertion curves, which take most time.
        progress: wraps the iteration over batches to display progress.

    Raises:
        UserError: the label or layer does not exist, an utterance has nothing that the run reads, or a picture cannot
            be read.
    """
    scorer = run if isinstance(run, Scorer) else Scorer(run)
    normalized = [_normalize(scorer, utterance) for utterance in utterances]
    watched = face.select_cam_layers(scorer, layer)
    size = 1 if check else BATCH
    starts = range(0, len(normalized), size)
    return [
        explanation
        for i in (progress(starts, len(starts)) if progress else starts)
        for explanation in explain_batch(make_batch(scorer, normalized[i : i + size], label, watched), check)
    ]


def _normalize(scorer: Scorer, utterance: Utterance) -> Utterance:
    normalized = scorer.normalize(utterance)
    if not modality.present_modalities(normalized):
        titles = [MODALITIES[name].title if name in MODALITIES else "previous utterances" for name in scorer.modalities]
        missing = {1: "none", 2: "neither"}.get(len(titles), "none of them")
        place = f"{utterance.id}: " if utterance.id else ""
        raise UserError(f"{place}Run `{scorer.run.path.name}` reads {' and '.join(titles)}; {missing} was given.")
    return normalized


def make_batch(scorer: Scorer, utterances: Sequence[Utterance], label: str = "", watched: Sequence[str] = ()) -> Batch:
    """Returns a batch of normalised utterances that explains their predicted classes, or the class `label`.

    Raises:
        UserError: there is no such label.
    """
    labels = scorer.run.labels
    if label and label not in labels:
        raise UserError(
            f"Invalid `--label`. Expected one of: {', '.join(labels)}. Received: {label!r}.{nearest(label, labels)}"
        )
    target = np.full(len(utterances), labels.index(label)) if label else None
    return Batch(scorer, utterances, target, watched)


def explain_batch(batch: Batch, check: bool = True) -> list[Explanation]:
    """Explains the utterances of a batch; see `explain`."""
    words, maps = text.word_attributions(batch), [face.drop_duplicates(of_row) for of_row in face.face_maps(batch)]
    if check:
        words, maps = _add_checks(batch, words, maps)
    values, weights = modality.modality_shapley_values(batch), face.crop_weights(batch)
    probabilities = batch.scorer.calibrated(batch.outputs)
    score = np.asarray(scores(batch.logits, batch.target))
    side = batch.scorer.run.spec.face_size
    crops, owner = (
        face.real_crops(batch)
        if FACE in batch.scorer.modalities
        else (np.zeros((0, side, side, 3), np.uint8), np.zeros(0, int))
    )
    return [
        Explanation(
            utterance,
            batch.scorer.run.labels,
            probabilities[n],
            int(batch.logits[n].argmax()),
            int(batch.target[n]),
            tuple(words[n]),
            crops[owner == n],
            tuple(maps[n]),
            weights[n] if maps[n] else None,
            values[n].values,
            values[n].empty,
            float(score[n]),
            _shapley_notes(batch.scorer),
            tuple(_notes(batch, n)),
        )
        for n, utterance in enumerate(batch.utterances)
    ]


def _shapley_notes(scorer: Scorer) -> tuple[str, ...]:
    never_absent = scorer.run.never_absent if len(scorer.modalities) > 1 else ()
    return tuple(f"{MODALITIES[name].never_absent} {UNTRAINED}" for name in never_absent)


def _notes(batch: Batch, n: int) -> list[str]:
    """Returns notes on the limits of the attributions of an utterance."""
    notes = []
    has_face = FACE in batch.scorer.modalities and batch.utterances[n].faces
    if has_face and not face.default_cam_layers(batch.towers[FACE]):
        notes.append("There is no Grad-CAM: the face network is a SavedModel, whose layers are not accessible.")
    if TEXT in batch.scorer.modalities and "bert" in batch.layers:
        notes.append(
            "BERT's embeddings are not accessible, so the first attribution is the occlusion of whole words. "
            "Contextual attributions tell which position carries the evidence, not which word it comes from."
        )
    return notes


def _add_checks(
    batch: Batch, words: list[list[WordAttributions]], maps: list[list[FaceMap]]
) -> tuple[list[list[WordAttributions]], list[list[FaceMap]]]:
    """Adds the randomisation check of each attribution, and the curves of the headline words and of the maps."""
    of_shuffled: list[tuple[list[list[WordAttributions]], list[dict[str, np.ndarray]]]] = []
    for seed in range(SHUFFLES):
        with checks.shuffled_weights(batch.scorer.model, seed):
            same = Batch(batch.scorer, batch.utterances, batch.target, list(batch.features))
            face_maps = [_by_key(of_row) for of_row in face.face_maps(same, FEW_STEPS)]
            of_shuffled.append((text.word_attributions(same, FEW_STEPS), face_maps))
    for n, words_of_row in enumerate(words):
        for i, attributions in enumerate(words_of_row):
            others = [other[n][i].values for other, _ in of_shuffled]
            curves = checks.word_curves(batch, n, attributions) if i == 0 else None
            similarity = checks.similarity(attributions.values, others, True)
            words[n][i] = replace(attributions, similarity=similarity, curves=curves)
    for n, maps_of_row in enumerate(maps):
        curves_of_maps = checks.pixel_curves(batch, n, maps_of_row) if maps_of_row else []
        for i, face_map in enumerate(maps_of_row):
            others = [other[n][face_map.key] for _, other in of_shuffled]
            similarity = checks.similarity(face_map.values, others, False)
            maps[n][i] = replace(face_map, similarity=similarity, curves=curves_of_maps[i])
    return words, maps


def _by_key(maps: Sequence[FaceMap]) -> dict[str, np.ndarray]:
    return {face_map.key: face_map.values for face_map in maps}
