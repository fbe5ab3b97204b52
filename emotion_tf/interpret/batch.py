"""Scores, activations and perturbed scores of utterances, for attribution."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.data import raw
from emotion_tf.interpret.gradients import watch
from emotion_tf.modalities import FACE, TEXT
from emotion_tf.models.activations import record, replay
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.pooling import AttentionWeights
from emotion_tf.models.tower import Tower
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.runs.run import Run

ROWS = 64
"""Rows that go through the model at once."""
CONTEXT = "context"
"""The lines said before an utterance: explained as a modality of its own, though the text tower reads them."""
FIELDS = {TEXT: "text", FACE: "faces", CONTEXT: "context"}
"""What is explained as a modality, in the order of the tables -> the field of an `Utterance` that holds it."""


@dataclass(frozen=True)
class Utterance:
    """What is given of one utterance.

    Attributes:
        text: what is said; empty: no text.
        faces: aligned face crops, as `Predictor.predict` takes them; none: no face.
        context: the lines said before it (`Speaker: utterance`), oldest first.
        id: what it is called on the page.
        label: index of its true class, where it is known.
    """

    text: str = ""
    faces: Sequence[raw.Face] = ()
    context: Sequence[str] = ()
    id: str = ""
    label: int | None = None


class Scorer:
    """A run, ready to be asked.

    What is explained is the score of a class: its logit minus the mean of all classes' logits (float, in nats). That is
    the centred logarithm of its probability (Aitchison 1986, "The Statistical Analysis of Compositional Data"): unlike
    a bare logit it is a function of the probabilities alone, and unlike these it does not flatten out near 0 and 1.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, run.model
        self.preprocess = run.preprocessor(self.model)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Which of text, face and context the run reads."""
        read = {*self.model.towers, *self.preprocess.context_fields}
        return tuple(name for name in FIELDS if name in read)

    @cached_property
    def embedded(self) -> tuple[str, ...]:
        """Which input each call of the word embedding reads, in the order of the calls."""
        return embedded_inputs(self.model.towers[TEXT])

    def keep(self, utterance: Utterance) -> Utterance:
        """What the run reads of an utterance: crops as JPEGs, the nearest lines of its context.

        Raises:
            UserError: a picture that cannot be read.
        """
        count = self.run.config.text.context
        return Utterance(
            utterance.text if TEXT in self.modalities and utterance.text.strip() else "",
            raw.encode_faces(list(utterance.faces), self.run.spec.face_size) if FACE in self.modalities else (),
            [line for line in utterance.context if line.strip()][-count:] if CONTEXT in self.modalities else (),
            utterance.id,
            utterance.label,
        )

    def inputs(self, utterances: Sequence[Utterance]) -> dict[str, tf.Tensor]:
        """The model's inputs, each (B, ...), of utterances as `keep` gives them."""
        return self.preprocess(
            tf.constant([one.text for one in utterances]),
            raw.pad_strings([one.faces for one in utterances], b""),
            context=raw.pad_strings([one.context for one in utterances], ""),
        )

    def logits(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Logits float32 (N, C) of any number of utterances."""
        return np.concatenate([np.asarray(outputs["logits"]) for outputs in self._passes(utterances)])

    def probabilities(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Probabilities float32 (N, C) of any number of utterances, as `predict` gives them."""
        return np.concatenate([self.calibrated(outputs) for outputs in self._passes(utterances)])

    def calibrated(self, outputs: Mapping[str, tf.Tensor]) -> np.ndarray:
        """Returns the calibrated probabilities float32 (B, C) of the model's outputs."""
        pattern = np.asarray(presence_pattern(outputs))
        return self.run.calibration.temperatures.probabilities(np.asarray(outputs["logits"]), pattern)

    def _passes(self, utterances: Sequence[Utterance]) -> Iterator[dict[str, tf.Tensor]]:
        for i in range(0, len(utterances), ROWS):
            # without a tf.function: to trace a large network takes longer than to explain one utterance
            yield self.model(self.inputs(utterances[i : i + ROWS]), training=False)


def embedded_inputs(tower: Tower) -> tuple[str, ...]:
    """Returns which input each call of a text tower's word embedding reads, in the order of the calls."""
    widths = {name: 1 + (name != "word_ids") for name in tower.input}
    calls: list[Any] = []
    (embedding,) = tower.layers_of(keras.layers.Embedding)
    with tf.init_scope(), record(embedding, calls):
        tower({name: tf.zeros((1, width), tf.int32) for name, width in widths.items()}, training=False)
    return tuple("word_ids" if call.shape[1] == 1 else "context_word_ids" for call in calls)


def scores(logits: Any, target: Any) -> tf.Tensor:
    """Logits (R, C) and classes (R,) to the explained score (R,); see `Scorer`."""
    return tf.gather(logits, target, batch_dims=1) - tf.reduce_mean(logits, axis=1)


class Batch:
    """B utterances, each with the class that is explained, and what one pass of the model made of them.

    Args:
        scorer: of the run.
        utterances: as `Scorer.keep` gives them.
        target: int (B,), the explained class of each; None: its most probable one.
        watched: layers of the face tower, by the names that `Tower.find_layer` takes, at which the score's gradient is
            taken.

    Attributes:
        inputs: the model's inputs.
        outputs: the model's outputs.
        logits: float32 (B, C).
        layers: the towers, by modality, and those layers of theirs that `is_recorded` tells, by name.
        activations: what each of `layers` returned, call by call.
        features: what each watched layer returned, and the score's gradient there.
    """

    def __init__(
        self,
        scorer: Scorer,
        utterances: Sequence[Utterance],
        target: np.ndarray | None = None,
        watched: Sequence[str] = (),
    ) -> None:
        self.scorer, self.utterances = scorer, list(utterances)
        self.inputs = scorer.inputs(self.utterances)
        self.towers: dict[str, Tower] = scorer.model.towers
        self.layers: dict[str, keras.layers.Layer] = dict(self.towers)
        for tower in self.towers.values():
            self.layers |= {name: layer for name, layer in tower.layers_by_name.items() if is_recorded(layer)}
        self.activations: dict[str, list[Any]] = {name: [] for name in self.layers}
        outputs: dict[str, list[tf.Tensor]] = {name: [] for name in watched}
        with tf.GradientTape(watch_accessed_variables=False) as tape, contextlib.ExitStack() as stack:
            for name, layer in self.layers.items():
                stack.enter_context(record(layer, self.activations[name]))
            for name, into in outputs.items():
                stack.enter_context(watch(self.towers[FACE].find_layer(name), into, tape))
            self.outputs = scorer.model(self.inputs, training=False)
            self.logits = np.asarray(self.outputs["logits"], np.float32)
            self.target = self.logits.argmax(axis=1) if target is None else np.asarray(target)
            score = scores(self.outputs["logits"], self.target)
        values = {name: into[0] for name, into in outputs.items()}
        gradients = tape.gradient(score, values, unconnected_gradients="zero")
        self.features = {name: (values[name], gradients[name]) for name in values}

    @contextlib.contextmanager
    def replayed(self, names: Sequence[str], rows: np.ndarray) -> Iterator[None]:
        """Inside the block these layers do not run: they return what they returned for the utterances `rows` (R,)."""
        with contextlib.ExitStack() as stack:
            for name in names:
                if name in self.layers:
                    calls = [
                        tf.nest.map_structure(lambda x: tf.gather(x, rows), call) for call in self.activations[name]
                    ]
                    stack.enter_context(replay(self.layers[name], calls))
            yield

    def score(self, inputs: Mapping[str, tf.Tensor], rows: np.ndarray) -> tf.Tensor:
        """Returns the score (R,) of inputs (R, ...) that belong to the utterances `rows` (R,)."""
        return scores(self.scorer.model(inputs, training=False)["logits"], self.target[rows])

    def _other_towers(self, modality: str) -> list[str]:
        return [name for name in self.towers if name != modality]

    def rows(self, rows: np.ndarray) -> dict[str, tf.Tensor]:
        """The inputs of the utterances `rows`."""
        return {name: tf.gather(values, rows) for name, values in self.inputs.items()}

    def logits_of_texts(self, texts: Sequence[str], contexts: Sequence[Sequence[str]], rows: np.ndarray) -> np.ndarray:
        """Logits (R, C) of utterances with other words and the same faces."""
        changed = [Utterance(text, (), context) for text, context in zip(texts, contexts, strict=True)]
        parts = [np.zeros((0, self.logits.shape[1]), np.float32)]
        for i in range(0, len(changed), ROWS):
            with self.replayed(self._other_towers(TEXT), rows[i : i + ROWS]):
                outputs = self.scorer.model(self.scorer.inputs(changed[i : i + ROWS]), training=False)
            parts.append(np.asarray(outputs["logits"]))
        return np.concatenate(parts)

    def logits_of_faces(self, faces: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Logits (R, C) of utterances with other crops, uint8 (R, T, H, W, 3), and the same words."""
        parts = []
        for i in range(0, len(rows), ROWS):
            at = rows[i : i + ROWS]
            inputs = self.rows(at) | {"faces": tf.constant(faces[i : i + ROWS])}
            with self.replayed(self._other_towers(FACE), at):
                parts.append(np.asarray(self.scorer.model(inputs, training=False)["logits"]))
        return np.concatenate(parts)


def is_recorded(layer: keras.layers.Layer) -> bool:
    """Whether a `Batch` records what a layer returns: where paths start, and the weights of attention."""
    return isinstance(layer, (keras.layers.Embedding, HubEncoder, FoldFrames, AttentionWeights))
