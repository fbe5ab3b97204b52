"""Utterances inside a model: what it scores them, what its layers make of them, and what it scores changed ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.data import raw
from emotion_tf.models.reach import has_layer, inner_layer, tapped
from emotion_tf.training.outputs import pattern_of
from emotion_tf.training.run_folder import RunFolder

ROWS = 64
"""Rows that go through the model at once."""
TEXT, FACE, CONTEXT = "text", "face", "context"


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

    def __init__(self, run: RunFolder) -> None:
        self.run, self.model = run, run.model
        self.preprocess = run.preprocessor(self.model)
        self._pattern = pattern_of(self.model)

    @cached_property
    def modalities(self) -> tuple[str, ...]:
        """Which of text, face and context the run reads."""
        reads = {
            TEXT: has_layer(self.model, "text_tower"),
            FACE: has_layer(self.model, "face_tower"),
            CONTEXT: "context" in self.preprocess.around,
        }
        return tuple(name for name, does in reads.items() if does)

    @cached_property
    def embedded(self) -> tuple[str, ...]:
        """Which input each call of the word embedding reads, in the order in which the tower makes them."""
        return embedded_inputs(self.model.get_layer("text_tower"))

    def keep(self, utterance: Utterance) -> Utterance:
        """What the run reads of an utterance: crops as JPEGs, the nearest lines of its context.

        Raises:
            UserError: a picture that cannot be read.
        """
        count = self.run.config.text.context
        return Utterance(
            utterance.text if TEXT in self.modalities and utterance.text.strip() else "",
            raw.crops(list(utterance.faces), self.run.spec.face_size) if FACE in self.modalities else (),
            [line for line in utterance.context if line.strip()][-count:] if CONTEXT in self.modalities else (),
            utterance.id,
            utterance.label,
        )

    def inputs(self, utterances: Sequence[Utterance]) -> dict[str, tf.Tensor]:
        """The model's inputs, each (B, ...), of utterances as `keep` gives them."""
        return self.preprocess(
            tf.constant([one.text for one in utterances]),
            raw.padded([one.faces for one in utterances], b""),
            context=raw.padded([one.context for one in utterances], ""),
        )

    def logits(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Logits float32 (N, C) of any number of utterances."""
        return np.concatenate([logits for logits, _ in self._passes(utterances)])

    def probabilities(self, utterances: Sequence[Utterance]) -> np.ndarray:
        """Probabilities float32 (N, C) of any number of utterances, as `predict` gives them."""
        return np.concatenate([self.calibrated(*found) for found in self._passes(utterances)])

    def calibrated(self, logits: np.ndarray, inputs: dict[str, tf.Tensor]) -> np.ndarray:
        """Logits (B, C) of inputs to probabilities float32 (B, C)."""
        return self.run.choice.temperatures.probabilities(logits, self._pattern(inputs).numpy())

    def _passes(self, utterances: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, dict[str, tf.Tensor]]]:
        for i in range(0, len(utterances), ROWS):
            inputs = self.inputs(utterances[i : i + ROWS])
            # without a tf.function: to trace a large network takes longer than to explain one utterance
            yield np.asarray(self.model(inputs, training=False)), inputs


def embedded_inputs(tower: keras.Model) -> tuple[str, ...]:
    """Which input each call of a text tower's word embedding reads, in the order in which the tower makes them."""
    widths = {name: 1 + (name != "word_ids") for name in tower.input}
    calls: list[Any] = []
    with tf.init_scope(), recorded(tower.get_layer("word_embedding"), calls):
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
        watch: layers of the face tower, by the names that `inner_layer` takes, at which the score's gradient is wanted.

    Attributes:
        inputs: the model's.
        logits: float32 (B, C).
        seen: what the towers, BERT and the attention layers gave, by layer, call by call.
        watched: of each layer in `watch`, what it gave and the score's gradient there.
    """

    def __init__(
        self,
        scorer: Scorer,
        utterances: Sequence[Utterance],
        target: np.ndarray | None = None,
        watch: Sequence[str] = (),
    ) -> None:
        self.scorer, self.utterances = scorer, list(utterances)
        self.inputs = scorer.inputs(self.utterances)
        self.text_tower, self.face_tower = (
            scorer.model.get_layer(name) if has_layer(scorer.model, name) else None
            for name in ("text_tower", "face_tower")
        )
        self.layers = {layer.name: layer for layer in (self.text_tower, self.face_tower) if layer is not None}
        for tower in list(self.layers.values()):
            self.layers |= {layer.name: layer for layer in tower.layers if keeps(layer)}
        self.seen: dict[str, list[Any]] = {name: [] for name in self.layers}
        features: dict[str, list[Any]] = {name: [] for name in watch}
        with tf.GradientTape(watch_accessed_variables=False) as tape, contextlib.ExitStack() as stack:
            for name, layer in self.layers.items():
                stack.enter_context(recorded(layer, self.seen[name]))
            for name, into in features.items():
                stack.enter_context(recorded(inner_layer(self.face_tower, name), into, tape.watch))
            logits = scorer.model(self.inputs, training=False)
            self.logits = np.asarray(logits, np.float32)
            self.target = self.logits.argmax(axis=1) if target is None else np.asarray(target)
            score = scores(logits, self.target)
        given = {name: into[0] for name, into in features.items()}
        gradients = tape.gradient(score, given, unconnected_gradients="zero")
        self.watched = {name: (given[name], gradients[name]) for name in given}

    @contextlib.contextmanager
    def held(self, names: Sequence[str], rows: np.ndarray) -> Iterator[None]:
        """While it is open, those layers are not run: they give again what they gave for the utterances `rows` (R,)."""
        with contextlib.ExitStack() as stack:
            for name in names:
                if name in self.layers:
                    kept = [tf.nest.map_structure(lambda x: tf.gather(x, rows), call) for call in self.seen[name]]
                    stack.enter_context(given(self.layers[name], kept))
            yield

    def score(self, inputs: Mapping[str, tf.Tensor], rows: np.ndarray) -> tf.Tensor:
        """The score (R,) of inputs (R, ...) that belong to the utterances `rows` (R,)."""
        return scores(self.scorer.model(inputs, training=False), self.target[rows])

    def rows(self, rows: np.ndarray) -> dict[str, tf.Tensor]:
        """The inputs of the utterances `rows`."""
        return {name: tf.gather(values, rows) for name, values in self.inputs.items()}

    def logits_of_texts(self, texts: Sequence[str], contexts: Sequence[Sequence[str]], rows: np.ndarray) -> np.ndarray:
        """Logits (R, C) of utterances with other words and the same faces."""
        made = [Utterance(text, (), context) for text, context in zip(texts, contexts, strict=True)]
        found = [np.zeros((0, self.logits.shape[1]), np.float32)]
        for i in range(0, len(made), ROWS):
            with self.held(["face_tower"], rows[i : i + ROWS]):
                found.append(np.asarray(self.scorer.model(self.scorer.inputs(made[i : i + ROWS]), training=False)))
        return np.concatenate(found)

    def logits_of_faces(self, faces: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Logits (R, C) of utterances with other crops, uint8 (R, T, H, W, 3), and the same words."""
        found = []
        for i in range(0, len(rows), ROWS):
            at = rows[i : i + ROWS]
            inputs = self.rows(at) | {"faces": tf.constant(faces[i : i + ROWS])}
            with self.held(["text_tower"], at):
                found.append(np.asarray(self.scorer.model(inputs, training=False)))
        return np.concatenate(found)


def keeps(layer: keras.layers.Layer) -> bool:
    """Whether what a tower's layer gives is kept: where paths start, and the weights of attention."""
    return layer.name in ("word_embedding", "bert", "fold_frames") or layer.name.endswith("_attention")


def recorded(
    layer: keras.layers.Layer, into: list[Any], watch: Callable[[Any], None] | None = None
) -> contextlib.AbstractContextManager[None]:
    """While it is open, what the layer gives is put into a list, call by call, and shown to `watch`."""

    def through(call: Any, *args: Any, **options: Any) -> Any:
        into.append(call(*args, **options))
        if watch is not None:
            watch(into[-1])
        return into[-1]

    return tapped(layer, through)


def given(layer: keras.layers.Layer, values: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """While it is open, the layer is not run: it gives these values, call by call."""
    rest = iter(values)
    return tapped(layer, lambda call, *args, **options: next(rest))
