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
from emotion_tf.interpret.recurrent import LazyGraph
from emotion_tf.modalities import FACE, TEXT
from emotion_tf.models.activations import intercept, record, replay
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.pooling import AttentionWeights
from emotion_tf.models.tower import Tower
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.models.word_branches import RecurrentBranch
from emotion_tf.runs.run import Run

ROWS = 64
"""Batch size of the model."""
CONTEXT = "context"
"""Name of the lines before an utterance: explained as a modality, although the text tower reads them."""
FIELDS = {TEXT: "text", FACE: "faces", CONTEXT: "context"}
"""Explained modality, in the order of the tables -> field of an `Utterance`."""


@dataclass(frozen=True)
class Utterance:
    """An utterance to explain.

    Attributes:
        text: the text; may be empty.
        faces: aligned face crops, as `Predictor.predict` takes them; may be empty.
        context: lines before the utterance (`Speaker: utterance`), oldest first.
        id: name of the utterance on the page.
        label: index of the true class, if known.
    """

    text: str = ""
    faces: Sequence[raw.Face] = ()
    context: Sequence[str] = ()
    id: str = ""
    label: int | None = None


class Scorer:
    """A run that scores utterances.

    The score of a class is its logit minus the mean of all logits, in nats. It is the centred logarithm of the
    probability (Aitchison 1986, "The Statistical Analysis of Compositional Data"). Unlike a logit it depends on the
    probabilities alone, and unlike a probability it does not saturate near 0 and 1.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.model = run, run.model
        self.preprocess = run.preprocessor(self.model)
        text = self.model.towers.get(TEXT)
        self._recurrent = [] if text is None else [LazyGraph(branch) for branch in text.layers_of(RecurrentBranch)]

    def outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the outputs of the model."""
        # eager: tracing a large network takes longer than explaining one utterance
        with contextlib.ExitStack() as stack:
            for branch in self._recurrent:
                stack.enter_context(
                    intercept(branch.branch, lambda _, inputs, branch=branch, **options: branch(inputs))
                )
            return self.model(inputs, training=False)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """The inputs that the run reads: text, face, context."""
        read = {*self.model.towers, *self.preprocess.context_fields}
        return tuple(name for name in FIELDS if name in read)

    @cached_property
    def embedded_inputs(self) -> tuple[str, ...]:
        """The input of each call of the word embedding, in the order of the calls."""
        return embedded_inputs(self.model.towers[TEXT])

    def normalize(self, utterance: Utterance) -> Utterance:
        """Reduces an utterance to what the run reads: text, crops as JPEGs, the nearest lines of the context.

        Raises:
            UserError: a picture cannot be read.
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
        """Returns the model's inputs, each (B, ...), for normalised utterances."""
        return self.preprocess(
            {
                "utterance": tf.constant([utterance.text for utterance in utterances]),
                "face_jpeg": tf.constant(raw.pad_rows([utterance.faces for utterance in utterances], b"")),
                "context": tf.constant(raw.pad_rows([utterance.context for utterance in utterances], "")),
            }
        )

    def logits(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Returns logits float32 (N, C) of any number of utterances."""
        return np.concatenate([np.asarray(outputs["logits"]) for outputs in self._passes(utterances)])

    def predict(self, utterances: Sequence[Utterance]) -> tuple[np.ndarray, np.ndarray]:
        """Returns predicted classes int (N,) and calibrated probabilities float32 (N, C), as `predict` does."""
        parts = [(np.argmax(o["logits"], axis=1), self.calibrated(o)) for o in self._passes(utterances)]
        predicted, probabilities = (np.concatenate(column) for column in zip(*parts, strict=True))
        return predicted, probabilities

    def calibrated(self, outputs: Mapping[str, tf.Tensor]) -> np.ndarray:
        """Returns the calibrated probabilities float32 (B, C) of the model's outputs."""
        pattern = np.asarray(presence_pattern(outputs))
        return self.run.calibration.temperatures.probabilities(np.asarray(outputs["logits"]), pattern)

    def _passes(self, utterances: Sequence[Utterance]) -> Iterator[dict[str, tf.Tensor]]:
        for i in range(0, len(utterances), ROWS):
            yield self.outputs(self.inputs(utterances[i : i + ROWS]))


def embedded_inputs(tower: Tower) -> tuple[str, ...]:
    """Returns the input of each call of a text tower's word embedding, in the order of the calls."""
    widths = {name: 1 + (name != "word_ids") for name in tower.input}
    calls: list[Any] = []
    (embedding,) = tower.layers_of(keras.layers.Embedding)
    with tf.init_scope(), record(embedding, calls):
        tower({name: tf.zeros((1, width), tf.int32) for name, width in widths.items()}, training=False)
    return tuple("word_ids" if call.shape[1] == 1 else "context_word_ids" for call in calls)


def scores(logits: Any, target: Any) -> tf.Tensor:
    """Returns the scores (R,) of classes (R,) from logits (R, C); see `Scorer`."""
    return tf.gather(logits, target, batch_dims=1) - tf.reduce_mean(logits, axis=1)


class Batch:
    """B utterances, their explained classes, and the activations of one pass of the model.

    Args:
        scorer: scorer of the run.
        utterances: results of `Scorer.normalize`.
        target: int (B,), the explained class of each utterance; by default the predicted class.
        watched: names of layers of the face tower, for `Tower.find_layer`, at which to compute the score's gradient.

    Attributes:
        inputs: inputs of the model.
        outputs: outputs of the model.
        logits: float32 (B, C).
        layers: the towers by modality, and their recorded layers (`is_recorded`) by name.
        activations: outputs of each of `layers`, call by call.
        features: output of each watched layer, and the score's gradient there.
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
            self.outputs = scorer.outputs(self.inputs)
            self.logits = np.asarray(self.outputs["logits"], np.float32)
            self.target = self.logits.argmax(axis=1) if target is None else np.asarray(target)
            score = scores(self.outputs["logits"], self.target)
        values = {name: into[0] for name, into in outputs.items()}
        gradients = tape.gradient(score, values, unconnected_gradients="zero")
        self.features = {name: (values[name], gradients[name]) for name in values}

    @contextlib.contextmanager
    def replayed(self, names: Sequence[str], rows: np.ndarray) -> Iterator[None]:
        """Inside the block, these layers do not run: they return their outputs for the utterances `rows` (R,)."""
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
        return scores(self.scorer.outputs(inputs)["logits"], self.target[rows])

    def _other_towers(self, modality: str) -> list[str]:
        return [name for name in self.towers if name != modality]

    def rows(self, rows: np.ndarray) -> dict[str, tf.Tensor]:
        """Returns the inputs of the utterances `rows`."""
        return {name: tf.gather(values, rows) for name, values in self.inputs.items()}

    def logits_of_texts(self, texts: Sequence[str], contexts: Sequence[Sequence[str]], rows: np.ndarray) -> np.ndarray:
        """Returns logits (R, C) of the utterances `rows` with other texts."""
        changed = [Utterance(text, (), context) for text, context in zip(texts, contexts, strict=True)]
        parts = [np.zeros((0, self.logits.shape[1]), np.float32)]
        for i in range(0, len(changed), ROWS):
            with self.replayed(self._other_towers(TEXT), rows[i : i + ROWS]):
                outputs = self.scorer.outputs(self.scorer.inputs(changed[i : i + ROWS]))
            parts.append(np.asarray(outputs["logits"]))
        return np.concatenate(parts)

    def logits_of_faces(self, faces: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Returns logits (R, C) of the utterances `rows` with other crops, uint8 (R, T, H, W, 3)."""
        parts = []
        for i in range(0, len(rows), ROWS):
            part = rows[i : i + ROWS]
            inputs = self.rows(part) | {"faces": tf.constant(faces[i : i + ROWS])}
            with self.replayed(self._other_towers(FACE), part):
                parts.append(np.asarray(self.scorer.outputs(inputs)["logits"]))
        return np.concatenate(parts)


def is_recorded(layer: keras.layers.Layer) -> bool:
    """Whether a `Batch` records the outputs of a layer: ends of integration paths, and attention weights."""
    return isinstance(layer, (keras.layers.Embedding, HubEncoder, FoldFrames, AttentionWeights))
