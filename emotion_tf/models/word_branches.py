"""The branches that read words: a shared word embedding, and a GRU, an LSTM or convolutions over it.

Each is built once and may be called on several id tensors: those of the utterance, and those of context and future.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from emotion_tf.config import TextConfig
from emotion_tf.schema import PADDING_ID, UNKNOWN_WORD_ID


class BranchOutputs(NamedTuple):
    """The outputs of a branch: `pooled` (B, D), and the `sequence` (B, L, D') behind it with its `mask` (B, L)."""

    pooled: keras.KerasTensor
    sequence: keras.KerasTensor
    mask: keras.KerasTensor


class WordBranches:
    """The branches of a text tower that read words, with their shared embedding.

    Args:
        config: the tower's configuration.
        embedding_shape: rows (padding and unknown included) and width of the embedding.
        frequencies: number of occurrences of each word in the training split.
    """

    def __init__(self, config: TextConfig, embedding_shape: tuple[int, int], frequencies: Sequence[int] = ()) -> None:
        self.embedding = layers.Embedding(*embedding_shape, trainable=config.train_embeddings, name="word_embedding")
        self.dropout = layers.Dropout(config.dropout, name="word_dropout")
        self.branches = [BRANCHES[name](config) for name in config.branches if name in BRANCHES]
        self.word_replacement = WordReplacement(frequencies, trainable=config.train_embeddings, name="word_replacement")

    def __call__(self, ids: keras.KerasTensor) -> list[BranchOutputs]:
        """Applies the branches to word ids int (B, W); 0 is padding."""
        mask = IsWord()(ids)
        embedded = self.dropout(self.embedding(self.word_replacement(ids)))
        outputs = [branch([embedded, mask]) for branch in self.branches]
        return [BranchOutputs(pooled, sequence, mask) for pooled, sequence in outputs]


CELLS = {"gru": layers.GRU, "lstm": layers.LSTM}


@keras.saving.register_keras_serializable("emotion_tf")
class IsWord(keras.layers.Layer):
    """Mask of the real words: ids (B, W) -> bool (B, W)."""

    def call(self, ids: Any) -> Any:
        return ops.not_equal(ids, PADDING_ID)


@keras.saving.register_keras_serializable("emotion_tf")
class WordReplacement(keras.layers.Layer):
    """Replaces words by the unknown word, in training: ids (B, W) -> (B, W).

    A word that occurs n times in the training split is replaced with probability 0.25 / (0.25 + n) (Kiperwasser and
    Goldberg 2016, "Simple and Accurate Dependency Parsing", section 4.1). Without it, the vector of the unknown word
    never trains when the vocabulary holds every word of the training split. A frozen layer replaces no word: it stands
    before a frozen embedding, in which the unknown word does not learn.

    Args:
        frequencies: n of each word, from id 2 on. Without them, the layer draws no random number.
    """

    ALPHA = 0.25

    def __init__(self, frequencies: Sequence[int] = (), **options: Any) -> None:
        super().__init__(**options)
        self.frequencies = list(frequencies)
        rates = self.ALPHA / (self.ALPHA + np.array(frequencies, np.float32))
        self.rates = np.concatenate([np.zeros(UNKNOWN_WORD_ID + 1, np.float32), rates])
        self.seed_generator = keras.random.SeedGenerator() if len(frequencies) else None

    def call(self, ids: Any, training: bool = False) -> Any:
        if not (training and self.trainable and self.seed_generator):
            return ids
        is_replaced = keras.random.uniform(ops.shape(ids), seed=self.seed_generator) < ops.take(self.rates, ids)
        return ops.where(is_replaced, ops.cast(UNKNOWN_WORD_ID, ids.dtype), ids)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "frequencies": self.frequencies}


@keras.saving.register_keras_serializable("emotion_tf")
class RecurrentBranch(keras.layers.Layer):
    """Bidirectional GRU or LSTM: ((B, W, E), mask (B, W)) -> last states (B, 2 units), all states (B, W, 2 units).

    GRU: Cho 2014; LSTM: Hochreiter and Schmidhuber 1997; both directions: Schuster and Paliwal 1997.

    Training uses cuDNN on a GPU, which needs padding at the end and refuses a row of padding alone: the first step of
    each row runs, and the result of such a row is set to zero. Inference does not use cuDNN, because an export that
    contains its op cannot run on a CPU.
    """

    OUTPUTS = BranchOutputs._fields[:2]

    def __init__(self, cell: str, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.cell, self.units = cell, units

    def build(self, input_shape: Any) -> None:
        inner = CELLS[self.cell](self.units, return_sequences=True, return_state=True, dtype=self.dtype_policy)
        self.both = layers.Bidirectional(inner, name="both", dtype=self.dtype_policy)
        self.both.build(input_shape[0])

    def call(self, inputs: list[Any], training: bool = False) -> tuple[Any, Any]:
        embedded, mask = inputs
        for direction in (self.both.forward_layer, self.both.backward_layer):
            direction.use_cudnn = "auto" if training else False
        is_first = ops.equal(ops.arange(ops.shape(mask)[1]), 0)
        sequence, *states = self.both(embedded, mask=ops.logical_or(mask, is_first))
        forward, backward = states[0], states[len(states) // 2]  # an LSTM also returns cell states
        real = ops.cast(mask, sequence.dtype)
        pooled = ops.concatenate([forward, backward], axis=-1) * ops.max(real, axis=1)[:, None]
        return pooled, sequence * real[:, :, None]

    def compute_output_spec(
        self, inputs: list[keras.KerasTensor], training: bool = False
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        # without it, Keras traces both loops each time that a model is built or opened
        batch, length, _ = inputs[0].shape
        width, dtype = 2 * self.units, self.compute_dtype
        return keras.KerasTensor((batch, width), dtype), keras.KerasTensor((batch, length, width), dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cell": self.cell, "units": self.units}


@keras.saving.register_keras_serializable("emotion_tf")
class Convolutions(keras.layers.Layer):
    """Convolutions of several widths, ReLU, maximum over time (Kim 2014, "Convolutional Neural Networks for Sentence
    Classification"): ((B, W, E), mask (B, W)) -> (B, F), and before the maximum (B, W, F); F is filters x widths.

    Unlike Kim's, they are padded with zeros at both ends: a text may be shorter than a filter.
    """

    OUTPUTS = BranchOutputs._fields[:2]

    def __init__(self, filters: int, widths: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.filters, self.widths = filters, tuple(widths)

    def build(self, input_shape: Any) -> None:
        self.convolutions = [
            layers.Conv1D(
                self.filters, width, padding="same", activation="relu", name=f"width_{width}", dtype=self.dtype_policy
            )
            for width in self.widths
        ]
        for convolution in self.convolutions:
            convolution.build(input_shape[0])

    def call(self, inputs: list[Any]) -> tuple[Any, Any]:
        embedded, mask = inputs
        real = ops.cast(ops.expand_dims(mask, -1), embedded.dtype)
        # padding is zero before and after the convolutions, so its embedding and length have no influence
        sequence = ops.concatenate([convolve(embedded * real) for convolve in self.convolutions], axis=-1) * real
        return ops.max(sequence, axis=1), sequence  # after ReLU nothing is below the zeros of padding

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "widths": self.widths}


BRANCHES: dict[str, Callable[[TextConfig], keras.layers.Layer]] = {
    "gru": lambda config: RecurrentBranch("gru", config.gru_units, name="gru"),
    "lstm": lambda config: RecurrentBranch("lstm", config.lstm_units, name="lstm"),
    "cnn": lambda config: Convolutions(config.cnn_filters, config.cnn_widths, name="word_cnn"),
}
