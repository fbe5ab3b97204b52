"""From raw strings and pictures to probabilities, by the same graph that is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data import raw
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Temperatures
from emotion_tf.evaluation.selective import with_abstentions
from emotion_tf.training.ensemble import EnsembleFolder
from emotion_tf.training.outputs import probabilities_of
from emotion_tf.training.run_folder import RunFolder

RawFunction = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of N utterances.

    Attributes:
        labels: the C class names.
        probabilities: float32 (N, C), each row sums to 1.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def label(self) -> list[str]:
        """The most probable class of each utterance."""
        return self.label_or_abstained(0.0)

    def label_or_abstained(self, below: float) -> list[str]:
        """The same, but "abstained" where no class has a probability of at least `below`."""
        return with_abstentions(self.labels, self.probabilities, below)


def raw_function(model: keras.Model, preprocess: Preprocessor, temperatures: Temperatures) -> RawFunction:
    """Raw inputs to calibrated probabilities.

    Returns:
        A function of utterance (B,), context (B, N) and face_jpeg (B, T), all string, to float32 (B, C).
    """
    calibrated = probabilities_of(model, temperatures)

    def probabilities(utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> tf.Tensor:
        return calibrated(preprocess(utterance, face_jpeg, context=context))

    return probabilities


class Predictor:
    """A trained run, ready for raw inputs.

    Attributes:
        labels: the C class names.
        raw: the function of raw inputs that is served, as `raw_function` makes it.
        resources: what holds the vocabularies of `raw`; an export tracks them.
        context: how many of the lines said before an utterance are read.
        speaker: whether the utterance is read with its speaker, `Speaker: utterance`.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run: RunFolder | EnsembleFolder = run
        self.model = run.model
        self.preprocess = run.preprocessor(self.model)
        self.context = run.config.text.context if self.preprocess.around else 0
        self.speaker = run.config.uses_text and run.config.text.speaker
        self._serve(raw_function(self.model, self.preprocess, run.choice.temperatures), [self.preprocess])

    def _serve(self, raw: RawFunction, resources: list[Preprocessor]) -> None:
        self.labels, self.raw, self.resources = self.run.labels, raw, resources
        string = [schema.tensor_spec(feature) for feature in schema.SERVING_FULL_INPUTS]
        self._function = tf.function(raw, input_signature=string)

    def predict(
        self,
        utterances: Sequence[str],
        faces: Sequence[raw.Face | Sequence[raw.Face] | None] | None = None,
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Prediction:
        """Predicts the emotion of each utterance.

        Args:
            utterances: N texts; an empty one is absent.
            faces: N aligned face crops: a picture's path, its bytes, uint8 RGB pixels (H, W, 3), a list of these for
                several crops, or None for no face. None: no faces at all.
            contexts: of each, the lines said before it (`Speaker: utterance`), oldest first. None: none.

        Raises:
            UserError: the numbers of utterances, faces and contexts differ, a context for a run that reads none, or a
                picture cannot be read.
        """
        if isinstance(utterances, str):
            raise UserError(
                "Invalid `utterances`. Expected a list of strings. Received: one string; put it into a list."
            )
        crops = [
            raw.crops(face, self.run.spec.face_size, i) for i, face in enumerate(self._each("faces", faces, utterances))
        ]
        said = [list(lines or ()) for lines in self._each("contexts", contexts, utterances)]
        if any(said) and not self.reads_context:
            raise UserError(
                f"{self.run.path} reads no context. Expected a run trained with --text.context, or no context given."
            )
        batches = [
            self._function(
                tf.constant(list(utterances[i : i + BATCH])),
                raw.padded(said[i : i + BATCH], ""),
                raw.padded(crops[i : i + BATCH], b""),
            ).numpy()
            for i in range(0, len(utterances), BATCH)
        ]
        empty = np.zeros((0, len(self.labels)), np.float32)
        return Prediction(self.labels, np.concatenate([empty, *batches]))

    @property
    def reads_context(self) -> bool:
        """Whether the lines said before an utterance matter to this run."""
        return self.context > 0

    def _each(self, name: str, given: Sequence[Any] | None, utterances: Sequence[str]) -> Sequence[Any]:
        if given is None:
            return [None] * len(utterances)
        if len(given) != len(utterances):
            raise UserError(
                f"Invalid `{name}`. Expected one entry (or None) for each of {len(utterances)} utterances. "
                f"Received: {len(given)}."
            )
        return given
