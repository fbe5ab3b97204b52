"""A model over a whole data set: the words, the part of the face and the modality that move each class most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emotion_tf.interpret import face, modality, text
from emotion_tf.interpret.batch import TEXT, Scorer, Utterance
from emotion_tf.interpret.explain import AT_ONCE, Through, batch_of
from emotion_tf.interpret.kinds import FaceMap, Strip

MOST_STEPS = 32
FEWEST = 3
"""Utterances that a word must be in."""


@dataclass(frozen=True)
class FaceOfClass:
    """The mean crop and the mean map of the utterances that were given a class.

    Attributes:
        label: the class.
        count: utterances.
        crop: uint8 (H, W, 3) RGB.
        values: float32 (H, W): each map is divided by its largest value first, so that each counts the same.
    """

    label: str
    count: int
    crop: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Summary:
    """What moves each class; a class stands for the utterances that the model gives it.

    Attributes:
        words: a row for each class and word: emotion, word, utterances, mean and total attribution; largest mean
            first.
        shares: a row for each class and modality: emotion, modality, utterances that have it, mean Shapley value, and
            its share of the sum of all modalities' mean magnitudes.
        faces: the mean face map of each class.
        face_title: what these maps are.
        importance: a row for each modality: what weighted F1 loses when it is shuffled, and the deviation of that.
        weighted_f1: of the same utterances, as they are.
        majority_f1: when all of them are given the class that is most frequent in training.
        count: utterances.
        word_title: what the words' attributions are.
    """

    words: pd.DataFrame
    shares: pd.DataFrame
    faces: list[FaceOfClass]
    face_title: str
    importance: pd.DataFrame
    weighted_f1: float
    majority_f1: float
    count: int
    word_title: str


def summarise(
    scorer: Scorer,
    utterances: Sequence[Utterance],
    layer: str = "",
    repeats: int = 5,
    seed: int = 0,
    through: Through | None = None,
) -> Summary:
    """Explains every utterance, quickly, and puts together what moved each class.

    Args:
        scorer: of the run.
        utterances: as `Scorer.keep` gives them, with their labels; those of which nothing is read are left out.
        layer: of the face tower, for Grad-CAM; empty: the last map of its first branch.
        repeats: shufflings of each modality.
        seed: of these.
        through: shows progress over the batches.
    """
    known = [one for one in utterances if modality.present(one)]
    words: list[tuple[str, str, int, float]] = []
    shares: list[tuple[str, str, float]] = []
    maps: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    titles = {"word": "", "face": ""}
    watched = face.layers_to_watch(scorer, layer)[:1]
    starts = range(0, len(known), AT_ONCE)
    for i in through(starts, len(starts)) if through else starts:
        batch = batch_of(scorer, known[i : i + AT_ONCE], watched=watched)
        names = [scorer.run.labels[n] for n in batch.target]
        if TEXT in scorer.modalities:
            for n, strip in enumerate(text.headline(batch, text.texts(batch), MOST_STEPS)):
                words += _words(names[n], i + n, strip)
                titles["word"] = strip.title
        for n, seen in enumerate(face.hires_cam(batch, watched[0]) if watched else ()):
            if batch.utterances[n].faces:
                maps.setdefault(names[n], []).append(_scaled(batch, n, seen))
                titles["face"] = seen.title
        for n, parts in enumerate(modality.modality_shares(batch)):
            has = modality.present(batch.utterances[n])
            shares += [(names[n], name, value) for name, value in parts.values.items() if name in has]
    before, importance = modality.permutation_importance(scorer, known, repeats, seed)
    label = np.array([one.label for one in known], int)
    floor = modality.weighted_f1(label, np.full(len(label), scorer.run.majority))
    rows = [(one.modality, one.drop, one.deviation) for one in importance]
    return Summary(
        _word_table(words, scorer.run.labels),
        _share_table(shares, scorer.run.labels),
        [_mean_face(name, maps[name]) for name in scorer.run.labels if name in maps],
        titles["face"],
        pd.DataFrame(rows, columns=["modality", "weighted_f1_lost", "deviation"]),
        before,
        floor,
        len(known),
        titles["word"],
    )


def _words(label: str, n: int, strip: Strip) -> list[tuple[str, str, int, float]]:
    """Class, word in lower case, utterance and attribution of each word of an utterance that has a letter."""
    found = [(strip.word(i).lower(), float(strip.values[i])) for i, span in enumerate(strip.spans) if span.line == 0]
    return [(label, word, n, value) for word, value in found if any(c.isalnum() for c in word)]


def _word_table(rows: Sequence[tuple[str, str, int, float]], labels: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["emotion", "word", "n", "value"])
    table["emotion"] = pd.Categorical(table["emotion"], list(labels), ordered=True)
    groups = table.groupby(["emotion", "word"], observed=True)
    found = groups.agg(utterances=("n", "nunique"), mean=("value", "mean"), total=("value", "sum")).reset_index()
    found = found[found["utterances"] >= FEWEST]
    return found.sort_values(["emotion", "mean"], ascending=[True, False]).reset_index(drop=True)


def _share_table(rows: Sequence[tuple[str, str, float]], labels: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["emotion", "modality", "value"])
    table["emotion"] = pd.Categorical(table["emotion"], list(labels), ordered=True)
    table["magnitude"] = table["value"].abs()
    groups = table.groupby(["emotion", "modality"], observed=True)
    found = groups.agg(utterances=("value", "size"), mean=("value", "mean"), magnitude=("magnitude", "mean"))
    found = found.reset_index()
    all_of = found.groupby("emotion", observed=True)["magnitude"].transform("sum")
    found["share"] = found["magnitude"] / all_of.where(all_of > 0, 1.0)
    return found.drop(columns="magnitude")


def _scaled(batch: face.Batch, n: int, found: FaceMap) -> tuple[np.ndarray, np.ndarray]:
    """Mean crop and mean map of an utterance, the map divided by its largest value."""
    crops, owner = face.crops_of(batch)
    return crops[owner == n].mean(axis=0), found.values.mean(axis=0) / max(float(found.values.max()), 1e-12)


def _mean_face(label: str, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> FaceOfClass:
    crops, values = (np.stack(each) for each in zip(*found, strict=True))
    return FaceOfClass(label, len(found), np.round(crops.mean(axis=0)).astype(np.uint8), values.mean(axis=0))
