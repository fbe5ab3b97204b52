"""Attributions in the graph of an export: the `explain` signature.

Words: integrated gradients from zeros, at once at all layers through which the text enters the models: the word
embedding, and the output of BERT, whose SavedModel hides its embeddings. There a value tells which position carries the
evidence, not which word brought it there. Faces: Grad-CAM at the layer that the page shows first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import split_words_with_offsets
from emotion_tf.interpret.batch import FACE, TEXT, embedded_inputs, scores
from emotion_tf.interpret.face import default_cam_layers
from emotion_tf.interpret.gradients import (
    class_activation_map,
    embedding_line,
    line_gradients,
    resize_maps,
    trapezoid_sum,
    watch,
)
from emotion_tf.models.activations import record, replay
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FoldFrames
from emotion_tf.models.two_tower import TwoTower

STEPS = 16
Tensors = dict[str, tf.Tensor]
Answer = Callable[[Sequence[Tensors]], Tensors]
"""From the inputs of each model to logits (B, C), probabilities and more."""


class RecordedModel:
    """A model with the inputs of B utterances, and what its layers return for them.

    Args:
        model: the model.
        preprocess: maps raw inputs to the model's inputs.
        inputs: the model's inputs.

    Attributes:
        embeddings: the layers through which the text enters the model.
        activations: outputs of the embeddings and of the face tower, call by call.
        cam_layer: the layer of Grad-CAM; None without a face tower.
        at_pixels: whether `cam_layer` returns pixels: a network that is a SavedModel has no layers to name.
        feature: the output of `cam_layer`, in a list of one item.
    """

    def __init__(self, model: TwoTower, preprocess: Preprocessor, inputs: Tensors) -> None:
        self.preprocess, self.inputs = preprocess, inputs
        self.text, self.face = model.towers.get(TEXT), model.towers.get(FACE)
        self.embeddings: list[keras.layers.Layer] = []
        if self.text is not None:
            self.embeddings = [*self.text.layers_of(keras.layers.Embedding), *self.text.layers_of(HubEncoder)]
        self.cam_layer, self.at_pixels = None, False
        if self.face is not None:
            names = default_cam_layers(self.face)
            self.cam_layer = self.face.find_layer(names[0]) if names else self.face.layers_of(FoldFrames)[0]
            self.at_pixels = not names
        recorded = [*self.embeddings, *([] if self.face is None else [self.face])]
        self.activations: dict[keras.layers.Layer, list[Any]] = {layer: [] for layer in recorded}
        self.feature: list[tf.Tensor] = []

    @contextlib.contextmanager
    def recording(self, tape: tf.GradientTape) -> Iterator[None]:
        """Inside the block, records the layers' outputs; the tape watches that of `cam_layer`."""
        with contextlib.ExitStack() as stack:
            for layer, outputs in self.activations.items():
                stack.enter_context(record(layer, outputs))
            if self.cam_layer is not None:
                stack.enter_context(watch(self.cam_layer, self.feature, tape))
            yield


def attributions(
    models: Sequence[RecordedModel],
    answer: Answer,
    utterance: tf.Tensor,
    crops: tf.Tensor,
    side: int,
) -> Tensors:
    """Returns the answer to B utterances and their attributions, as `schema.EXPLAIN_OUTPUTS` lists them.

    Args:
        models: the models that answer together.
        answer: their function.
        utterance: string (B,), as the models read it.
        crops: shape (2,) of the pictures, B and K.
        side: of a crop, in pixels.
    """
    with tf.GradientTape(watch_accessed_variables=False) as tape, contextlib.ExitStack() as stack:
        for model in models:
            stack.enter_context(model.recording(tape))
        answers = answer([model.inputs for model in models])
        target = tf.argmax(answers["logits"], axis=1)
        score = scores(answers["logits"], target)
    with_faces = [model for model in models if model.feature]
    gradients = tape.gradient(score, [model.feature[0] for model in with_faces], unconnected_gradients="zero")
    maps = [_face_maps(model, gradient, crops, side) for model, gradient in zip(with_faces, gradients, strict=True)]
    words, starts = split_words_with_offsets(utterance)
    return answers | {
        "words": words.to_tensor(""),
        "word_attributions": _word_attributions(models, answer, target, utterance, starts),
        "face_attributions": tf.add_n(maps) if maps else tf.zeros(tf.concat([crops, [side, side]], axis=0)),
    }


def _face_maps(model: RecordedModel, gradient: tf.Tensor, crops: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the maps of the crops (B, K, side, side); zero where there is no face."""
    maps = resize_maps(class_activation_map(model.feature[0], gradient, pool=not model.at_pixels), side)
    where = tf.where(model.inputs["face_mask"])
    # a batch without any face has one black crop in its place, which belongs to no utterance
    return tf.scatter_nd(where, maps[: tf.shape(where)[0]], tf.cast(tf.concat([crops, [side, side]], 0), tf.int64))


def _word_attributions(
    models: Sequence[RecordedModel],
    answer: Answer,
    target: tf.Tensor,
    utterance: tf.Tensor,
    starts: tf.RaggedTensor,
) -> tf.Tensor:
    """Returns the integrated gradients of the words, float32 (B, W)."""
    by_word = tf.zeros(tf.shape(starts.to_tensor()))
    entries = [(model, layer) for model in models for layer in model.embeddings]
    lines = [embedding_line(layer, output) for model, layer in entries for output in model.activations[layer]]
    if not lines:
        return by_word
    alphas = np.linspace(0, 1, STEPS + 1).tolist()

    def repeated(value: tf.Tensor) -> tf.Tensor:
        return tf.tile(value, [len(alphas)] + [1] * (value.shape.rank - 1))

    def score() -> tf.Tensor:
        inputs = [{name: repeated(value) for name, value in model.inputs.items()} for model in models]
        return scores(answer(inputs)["logits"], repeated(target))

    with contextlib.ExitStack() as stack:
        for model in models:
            if model.face is not None:
                outputs = [tf.nest.map_structure(repeated, output) for output in model.activations[model.face]]
                stack.enter_context(replay(model.face, outputs))
        _, gradients = line_gradients(lines, alphas, score)
    by_position = iter(
        tf.reduce_sum(line.value * trapezoid_sum(of_line), axis=-1) / STEPS
        for line, of_line in zip(lines, gradients, strict=True)
    )
    for model, layer in entries:
        values = [next(by_position) for _ in model.activations[layer]]
        if isinstance(layer, HubEncoder):
            by_word += _sum_pieces(values[0], model.preprocess, utterance, starts)
        elif model.text is not None:
            by_word += _align_words(values[embedded_inputs(model.text).index("word_ids")], starts)
    return by_word


def _align_words(values: tf.Tensor, starts: tf.RaggedTensor) -> tf.Tensor:
    """Returns the values (B, W) of words, padded, from those of the word ids' positions (B, L)."""
    width = tf.shape(starts.to_tensor())[1]
    values = values[:, :width]
    values = tf.pad(values, [[0, 0], [0, width - tf.shape(values)[1]]])
    return tf.where(tf.sequence_mask(starts.row_lengths(), width), values, 0.0)


def _sum_pieces(
    values: tf.Tensor, preprocess: Preprocessor, utterance: tf.Tensor, starts: tf.RaggedTensor
) -> tf.Tensor:
    """Returns the values (B, W) of words: sums over the word pieces that start in each.

    The positions of `values` (B, L) are [CLS], the word pieces of the utterance, and others.
    """
    if preprocess.pieces is None:
        raise ValueError("Word pieces need the run's tokenizer.")
    pieces = preprocess.pieces.offsets(utterance)[:, : preprocess.text.max_tokens - 2]
    width = tf.shape(starts.to_tensor())[1]
    first = starts.to_tensor(default_value=tf.int64.max)
    word = tf.searchsorted(first, pieces.to_tensor(), side="right") - 1
    values = values[:, 1 : 1 + tf.shape(word)[1]]
    is_piece = tf.sequence_mask(pieces.row_lengths(), tf.shape(word)[1])
    one_hot = tf.one_hot(tf.where(is_piece, word, -1), width)
    return tf.einsum("blw,bl->bw", one_hot, values)
