"""Attributions over a data set: the words, the part of the face and the modality that support each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emotion_tf.interpret import face, modality, text
from emotion_tf.interpret.batch import TEXT, Scorer, Utterance
from emotion_tf.interpret.explain import BATCH, Progress, make_batch
from emotion_tf.interpret.explanation import FaceMap, WordAttributions
from emotion_tf.modalities import MODALITIES
from emotion_tf.progress import stage

MAX_STEPS = 32
MIN_UTTERANCES = 3
"""Minimum number of utterances of a word."""


@dataclass(frozen=True)
class MeanFace:
    """Mean crop and mean map of the utterances that are predicted as a class.

    Attributes:
        label: the class.
        count: number of utterances.
        crop: uint8 (H, W, 3) RGB.
        values: float32 (H, W); each map is first divided by its maximum, so that all count alike.
    """

    label: str
    count: int
    crop: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Summary:
    """Attributions of each class, over the utterances that are predicted as this class.

    Attributes:
        words: a row for each class and word: emotion, word, utterances, mean and total attribution, in descending order
            of the mean.
        modalities: a row for each class and modality: emotion, modality, number of utterances that have it, mean
            Shapley value, its share of the mean magnitudes of all modalities, and whether to trust them: "yes", or "no"
            if training never lacked some modality.
        faces: mean face map of each class.
        face_title: method of these maps.
        importance: a row for each modality: loss of weighted F1 when it is shuffled, and its standard deviation.
        weighted_f1: weighted F1 of the utterances.
        majority_f1: weighted F1 of always predicting the most frequent class in training.
        count: number of utterances.
        never_absent: a sentence about each modality that training never lacked.
        word_title: method of the attributions of words.
    """

    words: pd.DataFrame
    modalities: pd.DataFrame
    faces: list[MeanFace]
    face_title: str
    importance: pd.DataFrame
    weighted_f1: float
    majority_f1: float
    count: int
    word_title: str
    never_absent: tuple[str, ...] = ()


def summarise(
    scorer: Scorer,
    utterances: Sequence[Utterance],
    layer: str = "",
    repeats: int = 5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Summary:
    """Explains every utterance without checks, and averages the attributions by class.

    Args:
        scorer: scorer of the run.
        utterances: results of `Scorer.normalize`, with their labels; those without anything to read are left out.
        layer: layer of the face tower for Grad-CAM; by default the last map of its first branch.
        repeats: number of shuffles of each modality.
        seed: seed of the shuffles.
        progress: wraps the iteration over batches to display progress.
    """
    readable = [utterance for utterance in utterances if modality.present_modalities(utterance)]
    words: list[tuple[str, str, int, float]] = []
    shapley_values: list[tuple[str, str, float]] = []
    maps: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    titles = {"word": "", "face": ""}
    watched = face.select_cam_layers(scorer, layer)[:1]
    starts = range(0, len(readable), BATCH)
    for i in progress(starts, len(starts)) if progress else starts:
        batch = make_batch(scorer, readable[i : i + BATCH], watched=watched)
        names = [scorer.run.labels[n] for n in batch.target]
        if TEXT in scorer.modalities:
            headlines = text.headline_attributions(batch, text.split_texts(batch), MAX_STEPS)
            for n, attributions in enumerate(headlines):
                words += _words(names[n], i + n, attributions)
                titles["word"] = attributions.title
        for n, face_map in enumerate(face.hires_cam(batch, watched[0]) if watched else ()):
            if batch.utterances[n].faces:
                maps.setdefault(names[n], []).append(_scaled(batch, n, face_map))
                titles["face"] = face_map.title
        for n, of_row in enumerate(modality.modality_shapley_values(batch)):
            present = modality.present_modalities(batch.utterances[n])
            shapley_values += [(names[n], name, value) for name, value in of_row.values.items() if name in present]
    with stage("exchanging modalities"):
        baseline, importance = modality.permutation_importance(scorer, readable, repeats, seed)
    label = np.array([utterance.label for utterance in readable], int)
    floor = modality.weighted_f1(label, np.full(len(label), scorer.run.majority))
    rows = [(row.modality, row.drop, row.deviation) for row in importance]
    return Summary(
        _word_table(words, scorer.run.labels),
        _modality_table(shapley_values, scorer.run.labels).assign(trusted="no" if scorer.run.never_absent else "yes"),
        [_mean_face(name, maps[name]) for name in scorer.run.labels if name in maps],
        titles["face"],
        pd.DataFrame(rows, columns=["modality", "weighted_f1_lost", "deviation"]),
        baseline,
        floor,
        len(readable),
        titles["word"],
        tuple(MODALITIES[name].never_absent for name in scorer.run.never_absent),
    )


def _words(label: str, n: int, attributions: WordAttributions) -> list[tuple[str, str, int, float]]:
    """Returns class, lower-case word, utterance and attribution of each word that has a letter or digit."""
    words = [(word.lower(), value) for word, value in attributions.of_utterance]
    return [(label, word, n, value) for word, value in words if any(c.isalnum() for c in word)]


def _word_table(rows: Sequence[tuple[str, str, int, float]], labels: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["emotion", "word", "n", "value"])
    table["emotion"] = pd.Categorical(table["emotion"], list(labels), ordered=True)
    groups = table.groupby(["emotion", "word"], observed=True)
    words = groups.agg(utterances=("n", "nunique"), mean=("value", "mean"), total=("value", "sum")).reset_index()
    words = words[words["utterances"] >= MIN_UTTERANCES]
    return words.sort_values(["emotion", "mean"], ascending=[True, False]).reset_index(drop=True)


def _modality_table(rows: Sequence[tuple[str, str, float]], labels: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["emotion", "modality", "value"])
    table["emotion"] = pd.Categorical(table["emotion"], list(labels), ordered=True)
    table["magnitude"] = table["value"].abs()
    groups = table.groupby(["emotion", "modality"], observed=True)
    means = groups.agg(utterances=("value", "size"), mean=("value", "mean"), magnitude=("magnitude", "mean"))
    means = means.reset_index()
    total = means.groupby("emotion", observed=True)["magnitude"].transform("sum")
    means["share"] = means["magnitude"] / total.where(total > 0, 1.0)
    return means.drop(columns="magnitude")


def _scaled(batch: face.Batch, n: int, face_map: FaceMap) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean crop and mean map of an utterance; the map is divided by its maximum."""
    crops, owner = face.real_crops(batch)
    return crops[owner == n].mean(axis=0), face_map.values.mean(axis=0) / max(float(face_map.values.max()), 1e-12)


def _mean_face(label: str, faces: Sequence[tuple[np.ndarray, np.ndarray]]) -> MeanFace:
    crops, values = (np.stack(each) for each in zip(*faces, strict=True))
    return MeanFace(label, len(faces), np.round(crops.mean(axis=0)).astype(np.uint8), values.mean(axis=0))
