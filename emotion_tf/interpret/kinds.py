"""What an explanation is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from emotion_tf.interpret import pictures
from emotion_tf.interpret.batch import Utterance
from emotion_tf.interpret.words import Span


@dataclass(frozen=True)
class Completeness:
    """Whether attributions sum to f(x) - f(baseline).

    Attributes:
        total: their sum.
        delta: f(x) - f(baseline), in nats.
        steps: points of the path that it took.
        holds: within 1 % (or 0.001).
    """

    total: float
    delta: float
    steps: int
    holds: bool

    @property
    def residual(self) -> float:
        """The share of `delta` that is missing or too much."""
        return abs(self.total - self.delta) / max(abs(self.delta), 1e-12)


@dataclass(frozen=True)
class Curves:
    """The score of the explained class while parts are taken away, or put back, in the order of an attribution.

    Petsiuk 2018, "RISE", section 4.1, who looks at the probability: where the other modality alone makes the model
    sure, that stays near 1 whatever is taken away. Beside it the mean over random orders of the same parts.

    Attributes:
        fractions: of the parts taken away (or put back), from 0 to 1, float (P,).
        deletion: the most important first, (P,).
        insertion: the most important first, (P,).
        random_deletion: mean over random orders, (P,).
        random_insertion: the same, put back, (P,).
        orders: how many random orders.
    """

    fractions: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    random_deletion: np.ndarray
    random_insertion: np.ndarray
    orders: int

    def area(self, name: str) -> float:
        """Area under one of the curves: its mean, in nats."""
        return float(np.trapezoid(getattr(self, name), self.fractions))

    @property
    def better(self) -> bool:
        """Whether taking away goes down faster, and putting back up faster, than in random order."""
        return self.area("deletion") < self.area("random_deletion") and (
            self.area("insertion") > self.area("random_insertion")
        )


@dataclass(frozen=True)
class Similarity:
    """How alike an attribution is to that of the same model with its weights shuffled.

    Attributes:
        correlation: mean of Spearman's rank correlations with several shuffled models; None: too few parts to tell.
        suspect: it is as good as the same: the attribution does not show what the model has learned.
    """

    correlation: float | None
    suspect: bool


@dataclass(frozen=True)
class Strip:
    """The words of an utterance (line 0) and of the lines before it (nearest first), each with a number.

    Attributes:
        key: gradients, occlusion, contextual, pooling, or attention.
        title: what it is, for the page.
        lines: the texts.
        spans: the words.
        values: float (W,), how much each word speaks for the explained class, in nats; of attention: shares.
        read: bool (W,), false for words that were cut off.
        rest: what fell on positions that are no words, as [CLS].
        signed: whether numbers below 0 mean something.
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
        """The i-th word as it is written."""
        span = self.spans[i]
        return self.lines[span.line][span.start : span.end]


@dataclass(frozen=True)
class FaceMap:
    """A number for each pixel of the crops of an utterance.

    Attributes:
        key: grad_cam, gradients, or attention, with the layer where there are several.
        title: what it is, for the page.
        values: float32 (T, H, W): of grad_cam and attention not below 0.
        signed: whether numbers below 0 mean something.
    """

    key: str
    title: str
    values: np.ndarray
    signed: bool = False
    completeness: Completeness | None = None
    similarity: Similarity | None = None
    curves: Curves | None = None

    def overlays(self, crops: np.ndarray) -> list[bytes]:
        """The map on each of its crops, uint8 (T, H, W, 3) RGB, as PNG."""
        peak = pictures.peak_of(self.values, self.signed)
        return [pictures.overlay(c, v, self.signed, peak) for c, v in zip(crops, self.values, strict=True)]


@dataclass(frozen=True)
class Explanation:
    """Why a run gives an utterance a class.

    Attributes:
        utterance: as the run reads it.
        labels: the classes.
        probabilities: float32 (C,), as `predict` gives them.
        target: index of the explained class.
        strips: of the words, the headline first; none without a text.
        crops: the faces, uint8 (T, H, W, 3) RGB.
        maps: of the faces, the headline first; none without a face.
        crop_weights: share of each crop where the tower weighs them, (T,); None: it does not.
        shapley_values: modality (of text, face and context, those that the run reads) -> Shapley value in nats; 0 if
            the modality is absent.
        empty: score of the class without any modality.
        score: score with all of them; the Shapley values sum to `score - empty`.
    """

    utterance: Utterance
    labels: tuple[str, ...]
    probabilities: np.ndarray
    target: int
    strips: tuple[Strip, ...]
    crops: np.ndarray
    maps: tuple[FaceMap, ...]
    crop_weights: np.ndarray | None
    shapley_values: dict[str, float]
    empty: float
    score: float
    notes: tuple[str, ...] = field(default=())

    @property
    def predicted(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words of the utterance with their attributions in the headline strip."""
        if not self.strips:
            return []
        strip = self.strips[0]
        return [(strip.word(i), float(strip.values[i])) for i, span in enumerate(strip.spans) if span.line == 0]

    @property
    def overlays(self) -> list[tuple[str, list[bytes]]]:
        """Title of each map, and the PNG of it on each crop."""
        return [(one.title, one.overlays(self.crops)) for one in self.maps]
