"""Attributions inside a graph that is exported: what is explained, and how, is as in `text` and `face`.

Words: integrated gradients from zeros at all places at which the text enters the models together: the word embedding,
and BERT's output (its module hides its embeddings: there a number tells which word carries the evidence, not which word
brought it there). Faces: Grad-CAM at the layer that the page shows first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import words_in_place
from emotion_tf.interpret.batch import FACE, TEXT, embedded_inputs, scores
from emotion_tf.interpret.face import cam_layers
from emotion_tf.models.activations import intercept, record, replay
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.two_tower import TwoTower

STEPS = 16
Tensors = dict[str, tf.Tensor]


class Explained:
    """A model, what makes its inputs, and the inputs of B utterances; then what its layers return, call by call.

    Attributes:
        entries: the layers at which the text enters the model.
        face: the face tower.
        activations: what the entries and the face tower return, call by call.
        map: what the layer of Grad-CAM returns; nothing without a face tower.
    """

    def __init__(self, model: TwoTower, preprocess: Preprocessor, inputs: Tensors) -> None:
        self.preprocess, self.inputs = preprocess, inputs
        self.text, self.face = model.towers.get(TEXT), model.towers.get(FACE)
        self.entries: list[keras.layers.Layer] = []
        if self.text is not None:
            self.entries = [*self.text.layers_of(keras.layers.Embedding), *self.text.layers_of(HubEncoder)]
        self.cam, self.at_pixels = None, False
        if self.face is not None:
            names = cam_layers(self.face)
            # a network that is a SavedModel has no layers to name: gradient times input there
            self.cam = self.face.find_layer(names[0]) if names else self.face.layers_of(FoldFrames)[0]
            self.at_pixels = not names
        recorded = [*self.entries, *([] if self.face is None else [self.face])]
        self.activations: dict[keras.layers.Layer, list[Any]] = {layer: [] for layer in recorded}
        self.map: list[tf.Tensor] = []

    def watch(self, stack: contextlib.ExitStack, tape: tf.GradientTape) -> None:
        """Until the stack closes, records what the layers return, and lets the face's gradient be taken."""
        for layer, outputs in self.activations.items():
            stack.enter_context(record(layer, outputs))
        if self.cam is not None:
            stack.enter_context(
                intercept(self.cam, lambda call, *args, **options: self._watched(call(*args, **options), tape))
            )

    def _watched(self, value: Any, tape: tf.GradientTape) -> Any:
        value = tf.cast(value, tf.float32) if self.at_pixels else value
        tape.watch(value)
        self.map.append(value)
        return value


def attributions(
    models: Sequence[Explained],
    answer: Callable[[Sequence[Tensors]], Tensors],
    utterance: tf.Tensor,
    crops: tf.Tensor,
    side: int,
) -> Tensors:
    """The answer to B utterances and what moved it, for `schema.EXPLAIN_OUTPUTS`.

    Args:
        models: those that answer together.
        answer: their inputs to logits (B, C), probabilities and more.
        utterance: string (B,), as the models read it.
        crops: shape (2,) of the pictures, B and K.
        side: of a crop in pixels.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape, contextlib.ExitStack() as stack:
        for model in models:
            model.watch(stack, tape)
        found = answer([model.inputs for model in models])
        target = tf.argmax(found["probabilities"], axis=1)
        score = scores(found["logits"], target)
    watched = [model for model in models if model.map]
    gradients = tape.gradient(score, [model.map[0] for model in watched], unconnected_gradients="zero")
    faces = [_cam(model, gradient, crops, side) for model, gradient in zip(watched, gradients, strict=True)]
    words, starts = words_in_place(utterance)
    by_word = _words(models, answer, target, utterance, starts)
    shape = tf.concat([crops, [side, side]], axis=0)
    return found | {
        "words": words.to_tensor(""),
        "word_attributions": by_word,
        "face_attributions": tf.add_n(faces) if faces else tf.zeros(shape),
    }


def _cam(model: Explained, gradient: tf.Tensor, crops: tf.Tensor, side: int) -> tf.Tensor:
    """Maps of the crops (B, K, side, side); zero where there is no face. See `face.grad_cam`."""
    feature, gradient = tf.cast(model.map[0], tf.float32), tf.cast(gradient, tf.float32)
    weights = gradient if model.at_pixels else tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    cam = tf.nn.relu(tf.reduce_sum(weights * feature, axis=-1, keepdims=True))
    cam = tf.image.resize(cam, (side, side))[..., 0]
    where = tf.where(model.inputs["face_mask"])
    # a batch without any face has one black crop in its place, which is none of anybody's
    return tf.scatter_nd(where, cam[: tf.shape(where)[0]], tf.cast(tf.concat([crops, [side, side]], 0), tf.int64))


def _words(
    models: Sequence[Explained],
    answer: Callable[[Sequence[Tensors]], Tensors],
    target: tf.Tensor,
    utterance: tf.Tensor,
    starts: tf.RaggedTensor,
) -> tf.Tensor:
    """Integrated gradients of the words, float32 (B, W)."""
    values = [[_value(call) for entry in model.entries for call in model.activations[entry]] for model in models]
    flat = [value for of_model in values for value in of_model]
    if not flat:
        return tf.zeros(tf.shape(starts.to_tensor()))
    count, alphas = STEPS + 1, tf.linspace(0.0, 1.0, STEPS + 1)
    points = [tf.concat([alpha * value for alpha in tf.unstack(alphas)], axis=0) for value in flat]

    def tiled(value: tf.Tensor) -> tf.Tensor:
        return tf.tile(value, [count] + [1] * (value.shape.rank - 1))

    with tf.GradientTape(watch_accessed_variables=False) as tape, contextlib.ExitStack() as stack:
        tape.watch(points)
        rest = iter(points)
        for model in models:
            for entry in model.entries:
                calls = [_output_at(next(rest), call) for call in model.activations[entry]]
                stack.enter_context(replay(entry, calls))
            if model.face is not None:
                face = [tf.nest.map_structure(tiled, call) for call in model.activations[model.face]]
                stack.enter_context(replay(model.face, face))
        logits = answer([{name: tiled(value) for name, value in model.inputs.items()} for model in models])["logits"]
        score = scores(logits, tf.tile(target, [count]))
    gradients = tape.gradient(score, points, unconnected_gradients="zero")
    weights = tf.concat([[0.5], tf.ones(STEPS - 1), [0.5]], 0) / STEPS  # the trapezoidal rule
    by_position = []
    for value, gradient in zip(flat, gradients, strict=True):
        along = tf.reshape(gradient, tf.concat([[count], tf.shape(value)], 0))
        by_position.append(tf.reduce_sum(value * tf.tensordot(weights, along, 1), axis=-1))
    found, at = tf.zeros(tf.shape(starts.to_tensor())), 0
    for model in models:
        for entry in model.entries:
            own = by_position[at : at + len(model.activations[entry])]
            at += len(own)
            if isinstance(entry, HubEncoder):
                found += _by_piece(own[0], model.preprocess, utterance, starts)
            elif model.text is not None:
                found += _by_word(own[embedded_inputs(model.text).index("word_ids")], starts)
    return found


def _value(call: Any) -> tf.Tensor:
    return tf.cast(call["sequence_output"] if isinstance(call, dict) else call, tf.float32)


def _output_at(point: tf.Tensor, call: Any) -> Any:
    """Returns what the layer returns at a point of the path."""
    if isinstance(call, dict):
        return {"pooled_output": point[:, 0], "sequence_output": point}
    return tf.cast(point, call.dtype)


def _by_word(values: tf.Tensor, starts: tf.RaggedTensor) -> tf.Tensor:
    """Of positions that are words (B, L): the first `max_words`, padded."""
    width = tf.shape(starts.to_tensor())[1]
    values = values[:, :width]
    values = tf.pad(values, [[0, 0], [0, width - tf.shape(values)[1]]])
    return tf.where(tf.sequence_mask(starts.row_lengths(), width), values, 0.0)


def _by_piece(values: tf.Tensor, preprocess: Preprocessor, utterance: tf.Tensor, starts: tf.RaggedTensor) -> tf.Tensor:
    """Of positions that are [CLS], the utterance's pieces, and more (B, L): each word has those that start in it."""
    if preprocess.pieces is None:
        raise ValueError("Word pieces need the run's tokenizer.")
    pieces = preprocess.pieces.starts(utterance)[:, : preprocess.text.max_tokens - 2]
    width = tf.shape(starts.to_tensor())[1]
    first = starts.to_tensor(default_value=tf.int64.max)
    at = tf.searchsorted(first, pieces.to_tensor(), side="right") - 1
    own = values[:, 1 : 1 + tf.shape(at)[1]]
    real = tf.sequence_mask(pieces.row_lengths(), tf.shape(at)[1])
    one_hot = tf.one_hot(tf.where(real, at, -1), width)
    return tf.einsum("blw,bl->bw", one_hot, own)
