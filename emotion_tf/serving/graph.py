"""What a run, or an ensemble, makes of raw inputs: the one graph that `predict` runs and `export` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.images import decode_pictures
from emotion_tf.evaluation.votes import FLOOR, Vote
from emotion_tf.interpret.signature import RecordedModel, attributions
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.runs.run import Run

Tensors = dict[str, tf.Tensor]
FULL = [schema.tensor_spec(feature) for feature in schema.SERVING_FULL_INPUTS]
MOST_BYTES = 4096
"""Of a text; what is behind them is not read. A model reads some hundred at most."""


class Part:
    """One model of those that answer together.

    Attributes:
        name: of its run.
        model: gives logits.
        preprocess: makes its inputs.
    """

    def __init__(self, run: Run) -> None:
        self.name, self.model = run.path.name, run.model
        self.preprocess = run.preprocessor(self.model)
        self._temperatures = run.calibration.temperatures

    def __call__(self, inputs: Tensors) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns logits (B, C), calibrated probabilities (B, C), and each row's pattern of presence (B,)."""
        outputs = self.model(inputs, training=False)
        logits, pattern = outputs["logits"], presence_pattern(outputs)
        return logits, tf.nn.softmax(self._temperatures.scale(logits, pattern, tf.gather)), pattern


class Graph:
    """The functions behind the signatures: `full`, `explain` and `tensors`.

    Args:
        runs: one, or the members of an ensemble.
        labels: class names.
        face_size: side of the face crops in pixels.
        vote: how the members' probabilities become one; None for a single run.
    """

    def __init__(self, runs: Sequence[Run], labels: Sequence[str], face_size: int, vote: Vote | None) -> None:
        self.parts = [Part(run) for run in runs]
        self.labels, self.face_size, self.vote = tuple(labels), face_size, vote
        self.reads_faces = any(part.preprocess.reads_faces for part in self.parts)

    # Concrete functions: traced once each, however many signatures call them and however often these are traced.

    @cached_property
    def full(self) -> Callable[..., Tensors]:
        """`serve_full`: utterance (B,), context (B, N), face_jpeg (B, K), all string, to `schema.SERVING_OUTPUTS`."""
        return tf.function(self._full, autograph=False).get_concrete_function(*FULL)

    @cached_property
    def explain(self) -> Callable[..., Tensors]:
        """The same with `schema.EXPLAIN_OUTPUTS`, of the most probable class of each utterance."""
        return tf.function(self._explain, autograph=False).get_concrete_function(*FULL)

    @cached_property
    def tensors(self) -> Callable[..., Tensors]:
        """The models' inputs, as `tensor_names` calls them, to `schema.SERVING_OUTPUTS`."""
        return tf.function(self._tensors, autograph=False).get_concrete_function(self._tensor_specs())

    def _full(self, utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> Tensors:
        return self.answer(self.inputs(*self.read(utterance, context, face_jpeg)))

    def _explain(self, utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> Tensors:
        utterance, context, faces = self.read(utterance, context, face_jpeg)
        given = self.inputs(utterance, context, faces)
        models = [
            RecordedModel(part.model, part.preprocess, inputs) for part, inputs in zip(self.parts, given, strict=True)
        ]
        return attributions(models, self.answer, utterance, tf.shape(face_jpeg), self.face_size)

    def _tensors(self, tensors: Tensors) -> Tensors:
        return self.answer([{name: tensors[key] for name, key in keys.items()} for keys in self.tensor_names])

    def read(
        self, utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        """Texts that are valid and not too long, and decoded pictures."""
        faces = decode_pictures(face_jpeg, self.face_size) if self.reads_faces else {}
        return cut(utterance), cut(context), faces

    def inputs(self, utterance: tf.Tensor, context: tf.Tensor, faces: Tensors) -> list[Tensors]:
        """Each model's inputs of what `read` gave."""
        return [part.preprocess({"utterance": utterance, "context": context, **faces}) for part in self.parts]

    def answer(self, inputs: Sequence[Tensors]) -> Tensors:
        """Each model's inputs to `schema.SERVING_OUTPUTS`."""
        found = [part(given) for part, given in zip(self.parts, inputs, strict=True)]
        logits, probabilities, _ = found[0]
        if self.vote is not None:
            probabilities = combine(self.vote, tf.stack([p for _, p, _ in found]))
            logits = tf.math.log(tf.maximum(probabilities, FLOOR))
        return {
            "probabilities": probabilities,
            "logits": logits,
            "label": tf.gather(tf.constant(self.labels), tf.argmax(probabilities, axis=1)),
            "text_present": tf.reduce_any(tf.stack([pattern % 2 == 1 for _, _, pattern in found]), axis=0),
            "face_present": tf.reduce_any(tf.stack([pattern >= 2 for _, _, pattern in found]), axis=0),
        }

    @property
    def signatures(self) -> dict[str, tuple[Callable[..., Tensors], Any]]:
        """Name of each signature, its function and the function's `input_signature`."""

        def serving_default(utterance: tf.Tensor, face_jpeg: tf.Tensor) -> Tensors:
            return self.full(utterance, tf.zeros_like(utterance)[:, tf.newaxis], face_jpeg[:, tf.newaxis])

        def serve_bytes(utterance: tf.Tensor, face_jpeg_bytes: tf.Tensor) -> Tensors:
            return serving_default(utterance, face_jpeg_bytes)

        def serve_full(utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> Tensors:
            return self.full(utterance, context, face_jpeg)

        def explain(utterance: tf.Tensor, context: tf.Tensor, face_jpeg: tf.Tensor) -> Tensors:
            return self.explain(utterance, context, face_jpeg)

        strings = {
            "serving_default": (serving_default, schema.SERVING_INPUTS),
            "serve_full": (serve_full, schema.SERVING_FULL_INPUTS),
            "serve_bytes": (serve_bytes, schema.SERVING_BYTES_INPUTS),
            "explain": (explain, schema.SERVING_FULL_INPUTS),
        }
        found = {
            name: (serve, [schema.tensor_spec(one) for one in inputs]) for name, (serve, inputs) in strings.items()
        }
        return found | {"serve_tensors": (lambda tensors: self.tensors(tensors), [self._tensor_specs()])}

    @property
    def tensor_names(self) -> list[dict[str, str]]:
        """Of each model, its inputs' names and what `serve_tensors` calls them.

        An input that all members make alike has its own name; else each member's is called `MEMBER.NAME`.
        """
        names = sorted({name for part in self.parts for name in part.model.input})
        made = {
            name: {str(p.preprocess.for_inputs([name]).cache_key) for p in self.parts if name in p.model.input}
            for name in names
        }
        return [
            {name: name if len(made[name]) == 1 else f"{part.name}.{name}" for name in part.model.input}
            for part in self.parts
        ]

    def _tensor_specs(self) -> dict[str, tf.TensorSpec]:
        return {
            key: tf.TensorSpec((None, *part.model.input[name].shape[1:]), part.model.input[name].dtype, name=key)
            for part, keys in zip(self.parts, self.tensor_names, strict=True)
            for name, key in keys.items()
        }


def combine(vote: Vote, probabilities: tf.Tensor) -> tf.Tensor:
    """`Vote.combine` in the graph: float32 (M, B, C) -> (B, C)."""
    if vote.weights is not None:
        return tf.tensordot(tf.constant(vote.weights, tf.float32), probabilities, 1)
    coefficients, bias = tf.constant(vote.coefficients, tf.float32), tf.constant(vote.bias, tf.float32)
    return tf.nn.softmax(tf.einsum("mbc,mck->bk", tf.math.log(tf.maximum(probabilities, FLOOR)), coefficients) + bias)


def cut(text: tf.Tensor) -> tf.Tensor:
    """Texts at most `MOST_BYTES` long, cut between two characters, without bytes that are no UTF-8.

    A zero byte becomes a space: TensorFlow's own string ops take it for the end.
    """
    whole = tf.strings.unicode_transcode(tf.strings.substr(text, 0, MOST_BYTES), "UTF-8", "UTF-8", errors="ignore")
    return tf.strings.regex_replace(whole, r"\x00", " ")
