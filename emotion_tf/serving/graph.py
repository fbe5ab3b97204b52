"""The graph from raw inputs to probabilities, which `predict` runs and `export` writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from emotion_tf import schema
from emotion_tf.data.images import decode_pictures
from emotion_tf.evaluation.vote import Vote
from emotion_tf.interpret.signature import RecordedModel, attributions
from emotion_tf.modalities import MODALITIES
from emotion_tf.models.two_tower import presence_pattern
from emotion_tf.runs.run import Run

Tensors = dict[str, tf.Tensor]
FULL = {feature.name: schema.tensor_spec(feature) for feature in schema.SERVING_FULL_INPUTS}
MAX_TEXT_BYTES = 4096
"""Longer texts are truncated. A model reads a few hundred bytes at most."""


class Member:
    """One model of the graph: the run's, or an ensemble member's.

    Attributes:
        name: name of its run.
        model: the model, which returns logits.
        preprocess: makes the model's inputs from raw strings and decoded pictures.
    """

    def __init__(self, run: Run) -> None:
        self.name, self.model = run.path.name, run.model
        self.preprocess = run.preprocessor(self.model)
        self._temperatures = run.calibration.temperatures

    def __call__(self, inputs: Tensors) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
        """Returns logits (B, C), calibrated probabilities (B, C), and the presence of each modality, bool (B,)."""
        outputs = self.model(inputs, training=False)
        logits, pattern = outputs["logits"], presence_pattern(outputs)
        absent = tf.zeros_like(pattern, tf.bool)
        present = {modality: outputs.get(f"{modality}/present", absent) for modality in MODALITIES}
        return logits, tf.nn.softmax(self._temperatures.scale(logits, pattern, tf.gather)), present


class ServingGraph:
    """The functions behind the signatures: `full`, `explain` and `tensors`.

    Args:
        runs: one run, or the members of an ensemble.
        labels: C class names.
        face_size: side of the face crops in pixels.
        vote: combines the probabilities of an ensemble's members; None for a single run.
    """

    def __init__(self, runs: Sequence[Run], labels: Sequence[str], face_size: int, vote: Vote | None) -> None:
        self.members = [Member(run) for run in runs]
        self.labels, self.face_size, self.vote = tuple(labels), face_size, vote
        self.reads_faces = any(member.preprocess.reads_faces for member in self.members)

    # Each function is traced once, and a runtime prepares it once, however many signatures call it: it is not inlined.

    @cached_property
    def inputs(self) -> Callable[[Tensors], tuple[Tensors, tf.Tensor]]:
        """From the inputs of `serve_full` to those of `tensors`, and the utterances as the models read them."""
        return _shared(self._inputs).get_concrete_function(FULL)

    @cached_property
    def tensors(self) -> Callable[[Tensors], Tensors]:
        """`serve_tensors`: the models' inputs, named as in `tensor_names`, to `schema.SERVING_OUTPUTS`."""
        return _shared(self._tensors).get_concrete_function(self._tensor_specs())

    @cached_property
    def explain(self) -> Callable[[Tensors], Tensors]:
        """`full` with `schema.EXPLAIN_OUTPUTS`, for the label of each utterance."""
        return tf.function(self._explain, autograph=False).get_concrete_function(FULL)

    def full(self, raw: Tensors) -> Tensors:
        """`serve_full`: utterance (B,), context (B, N), face_jpeg (B, K), all string, to `schema.SERVING_OUTPUTS`."""
        tensors, _ = self.inputs(raw)
        return self.tensors(tensors)

    def _inputs(self, raw: Tensors) -> tuple[Tensors, tf.Tensor]:
        decoded = self.decode(raw)
        inputs = zip(self.preprocess(decoded), self.tensor_names, strict=True)
        return {key: own[name] for own, keys in inputs for name, key in keys.items()}, decoded["utterance"]

    def _tensors(self, tensors: Tensors) -> Tensors:
        return self.predict(self._by_member(tensors))

    def _explain(self, raw: Tensors) -> Tensors:
        tensors, utterance = self.inputs(raw)
        inputs = self._by_member(tensors)
        models = [
            RecordedModel(member.model, member.preprocess, own)
            for member, own in zip(self.members, inputs, strict=True)
        ]
        return attributions(models, self.predict, utterance, tf.shape(raw["face_jpeg"]), self.face_size)

    def _by_member(self, tensors: Tensors) -> list[Tensors]:
        return [{name: tensors[key] for name, key in keys.items()} for keys in self.tensor_names]

    def decode(self, raw: Tensors) -> Tensors:
        """Returns raw features with valid, truncated texts and decoded pictures."""
        texts = {name: truncate(raw[name]) for name in ("utterance", "context")}
        faces = decode_pictures(raw["face_jpeg"], self.face_size) if self.reads_faces else {}
        return raw | texts | faces

    def preprocess(self, decoded: Tensors) -> list[Tensors]:
        """Returns each model's inputs, from the output of `decode`."""
        return [member.preprocess(decoded) for member in self.members]

    def predict(self, inputs: Sequence[Tensors]) -> Tensors:
        """Returns `schema.SERVING_OUTPUTS`, from each model's inputs."""
        outputs = [member(own) for member, own in zip(self.members, inputs, strict=True)]
        logits, probabilities, _ = outputs[0]
        if self.vote is not None:
            logits = self.vote.logits(tf.stack([p for _, p, _ in outputs]), keras.ops)
            probabilities = tf.nn.softmax(logits)
        return {
            "probabilities": probabilities,
            "logits": logits,
            "label": tf.gather(tf.constant(self.labels), tf.argmax(logits, axis=1)),
            **{
                f"{modality}_present": tf.reduce_any(tf.stack([present[modality] for _, _, present in outputs]), axis=0)
                for modality in MODALITIES
            },
        }

    @property
    def signatures(self) -> dict[str, tuple[Callable[..., Tensors], Any]]:
        """Each signature's function and `input_signature`, by name."""

        def serving_default(raw: Tensors) -> Tensors:
            rows = tf.shape(raw["utterance"])[0]
            absent = {name: tf.zeros((rows, 0), spec.dtype) for name, spec in FULL.items() if name not in raw}
            return self.full({**absent, **raw, "face_jpeg": raw["face_jpeg"][:, tf.newaxis]})

        def serve_bytes(raw: Tensors) -> Tensors:
            return serving_default({"utterance": raw["utterance"], "face_jpeg": raw["face_jpeg_bytes"]})

        strings = {
            "serving_default": (serving_default, schema.SERVING_INPUTS),
            "serve_full": (self.full, schema.SERVING_FULL_INPUTS),
            "serve_bytes": (serve_bytes, schema.SERVING_BYTES_INPUTS),
            "explain": (lambda raw: self.explain(raw), schema.SERVING_FULL_INPUTS),
        }
        signatures = {
            name: (serve, [{feature.name: schema.tensor_spec(feature) for feature in inputs}])
            for name, (serve, inputs) in strings.items()
        }
        return signatures | {"serve_tensors": (lambda tensors: self.tensors(tensors), [self._tensor_specs()])}

    @property
    def tensor_names(self) -> list[dict[str, str]]:
        """For each model, the names of its inputs and their names in `serve_tensors`.

        An input that all members preprocess alike keeps its name. Otherwise each member has its own, `MEMBER.NAME`.
        """
        names = sorted({name for member in self.members for name in member.model.input})
        variants = {
            name: {str(m.preprocess.for_inputs([name]).cache_key) for m in self.members if name in m.model.input}
            for name in names
        }
        return [
            {name: name if len(variants[name]) == 1 else f"{member.name}.{name}" for name in member.model.input}
            for member in self.members
        ]

    def _tensor_specs(self) -> dict[str, tf.TensorSpec]:
        return {
            key: tf.TensorSpec((None, *member.model.input[name].shape[1:]), member.model.input[name].dtype, name=key)
            for member, keys in zip(self.members, self.tensor_names, strict=True)
            for name, key in keys.items()
        }


def _shared(function: Callable[..., Any]) -> Any:
    return tf.function(function, autograph=False)


def truncate(text: tf.Tensor) -> tf.Tensor:
    """Truncates texts to `MAX_TEXT_BYTES`, between two characters, and drops bytes that are not UTF-8.

    A zero byte becomes a space: TensorFlow's string ops treat it as the end of a string.
    """
    head = tf.strings.substr(text, 0, MAX_TEXT_BYTES)
    valid = tf.strings.unicode_transcode(head, "UTF-8", "UTF-8", errors="ignore")
    return tf.strings.regex_replace(valid, r"\x00", " ")
