"""The parts of an explanation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emotion_tf.interpret import pictures
from emotion_tf.interpret.batch import Utterance
from emotion_tf.interpret.words import Span

MIN_PARTS = 5
"""Minimum number of parts whose order can be compared: with fewer, an equal order is too often chance."""
LEVEL = 0.05
TOLERANCE = 1e-5
"""Gains that differ by less, in nats, are equal but for rounding."""


@dataclass(frozen=True)
class Completeness:
    """Whether attributions sum to f(x) - f(baseline).

    Attributes:
        total: sum of the attributions.
        delta: f(x) - f(baseline), in nats.
        steps: number of steps of the integration.
        holds: whether both are equal within 1 % (or 0.001).
    """

    total: float
    delta: float
    steps: int
    holds: bool

    @property
    def residual(self) -> float:
        """|total - delta| as a share of |delta|."""
        return abs(self.total - self.delta) / max(abs(self.delta), 1e-12)


@dataclass(frozen=True)
class Curves:
    """Deletion and insertion curves: the score while parts are removed, or added, in the order of an attribution.

    Petsiuk 2018, "RISE", section 4.1, uses the probability. It would stay near 1 if another modality alone makes the
    model certain, so these curves use the score. The baseline of words are random orders, each together with its
    reverse, and that of a map are random shifts of it.

    Attributes:
        parts: number of parts.
        fractions: share of the parts removed (or added), from 0 to 1, float (P,).
        deletion: score while the most important parts are removed first, (P,).
        insertion: score while the most important parts are added first, (P,).
        random_deletion, random_insertion: means over the orders that it is compared with, (P,).
        random_gains: `gain` of each of these orders, (R,).
        null: what these orders are, for the page.
    """

    parts: int
    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    random_gains: np.ndarray
    null: str

    def area(self, name: str) -> float:
        """Returns the area under one of the curves, in nats."""
        return float(np.trapezoid(getattr(self, name), self.fractions))

    @property
    def gain(self) -> float:
        """Area under the insertion curve minus area under the deletion curve."""
        return self.area("insertion") - self.area("deletion")

    @property
    def as_good(self) -> int:
        """Number of the orders of the comparison with at least the same gain."""
        return int(np.sum(self.random_gains >= self.gain - TOLERANCE))

    @property
    def p_value(self) -> float:
        """Share of the orders with at least the same gain, among the order itself and those that it is compared with.

        An attribution that says nothing about the score is one more of these orders, so the share is at most p with
        probability p or less (a Monte Carlo permutation test; Davison and Hinkley 1997, section 4.3).
        """
        return (1 + self.as_good) / (1 + len(self.random_gains))

    @property
    def tied(self) -> bool:
        """Whether each order of the comparison has the same gain."""
        return bool(np.all(np.abs(self.random_gains - self.gain) <= TOLERANCE))

    @property
    def better(self) -> bool | None:
        """Whether the order is better than chance (p at most 0.05); None with too few parts to tell."""
        return self.p_value <= LEVEL if self.parts >= MIN_PARTS else None


@dataclass(frozen=True)
class Similarity:
    """Similarity of an attribution to that of the same model with shuffled weights.

    Attributes:
        correlation: mean of Spearman's rank correlations with several shuffled models; None with too few parts.
        suspect: whether it is so high that the attribution does not depend on what the model has learned.
    """

    correlation: float | None
    suspect: bool


@dataclass(frozen=True)
class WordAttributions:
    """An attribution of each word of an utterance (line 0) and its context (nearest line first).

    Attributes:
        key: gradients, occlusion, contextual, pooling, or attention.
        title: name of the method, for the page.
        lines: the texts.
        spans: the words.
        values: float (W,), support of the explained class by each word, in nats; for attention, shares.
        read: bool (W,), false for words beyond the maximum length.
        rest: sum over positions that are no words, such as [CLS].
        signed: whether values below 0 are possible.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    spans: tuple[Span, ...]
    values: np.ndarray
    read: np.ndarray
    rest: float = 0.0
    signed: bool = True
    completeness: Completeness | None = None
    similarity: Similarity | None = None
    curves: Curves | None = None

    def word(self, i: int) -> str:
        """Returns the i-th word as written."""
        span = self.spans[i]
        return self.lines[span.line][span.start : span.end]

    @property
    def of_utterance(self) -> list[tuple[str, float]]:
        """The words of the utterance, without its context, with their values."""
        return [(self.word(i), float(self.values[i])) for i, span in enumerate(self.spans) if span.line == 0]


@dataclass(frozen=True)
class FaceMap:
    """An attribution of each pixel of an utterance's face crops.

    Attributes:
        key: grad_cam, hires_cam, gradients, or attention, with the layer if there are several.
        title: name of the method, for the page.
        values: float32 (T, H, W); not negative for class activation maps and attention.
        signed: whether values below 0 are possible.
    """

    key: str
    title: str
    values: np.ndarray
    signed: bool = False
    completeness: Completeness | None = None
    similarity: Similarity | None = None
    curves: Curves | None = None

    def overlays(self, crops: np.ndarray) -> list[bytes]:
        """Returns the map on each of its crops, uint8 (T, H, W, 3) RGB, as PNG."""
        peak = pictures.peak_value(self.values, self.signed)
        return [pictures.overlay(c, v, self.signed, peak) for c, v in zip(crops, self.values, strict=True)]


@dataclass(frozen=True)
class Explanation:
    """Explanation of a class for an utterance.

    Attributes:
        utterance: the utterance as the run reads it.
        labels: class names.
        probabilities: float32 (C,), as `predict` returns them.
        predicted: index of the predicted class.
        target: index of the explained class.
        word_attributions: attributions of the words, the headline first; empty without a text.
        crops: face crops, uint8 (T, H, W, 3) RGB.
        maps: attributions of the crops, the headline first; empty without a face.
        crop_weights: attention weight of each crop, (T,); None if the tower has no attention over crops.
        shapley_values: modality (of text, face and context, those that the run reads) -> Shapley value in nats; 0 if
            the modality is absent.
        empty: score of the class without any modality.
        score: score with all of them; the Shapley values sum to `score - empty`.
        shapley_notes: why the Shapley values are not to be trusted: a sentence for each modality that training never
            lacked.
        notes: limits of the other attributions.
    """

    utterance: Utterance
    labels: tuple[str, ...]
    probabilities: np.ndarray
    predicted: int
    target: int
    word_attributions: tuple[WordAttributions, ...]
    crops: np.ndarray
    maps: tuple[FaceMap, ...]
    crop_weights: np.ndarray | None
    shapley_values: dict[str, float]
    empty: float
    score: float
    shapley_notes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words of the utterance with their headline attributions."""
        return self.word_attributions[0].of_utterance if self.word_attributions else []

    @property
    def overlays(self) -> list[tuple[str, list[bytes]]]:
        """Title of each map, and its overlay on each crop as PNG."""
        return [(face_map.title, face_map.overlays(self.crops)) for face_map in self.maps]
