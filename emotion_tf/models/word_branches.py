"""The branches that read words: one word embedding, and a GRU, an LSTM or convolutions over it.

Each is made once and may be called on several id tensors: the utterance, and what was said around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers, ops

from emotion_tf.config import TextConfig


class Read(NamedTuple):
    """What a branch makes of a text: `pooled` (B, D), and the `sequence` (B, L, D') with its `mask` (B, L)."""

    pooled: keras.KerasTensor
    sequence: keras.KerasTensor
    mask: keras.KerasTensor


class WordBranches:
    """The branches of a text tower that read words, with the embedding that they share.

    Args:
        config: the tower's configuration.
        words: rows of the embedding (padding and unknown included).
    """

    def __init__(self, config: TextConfig, words: int) -> None:
        self.embedding = layers.Embedding(
            words, config.word_dim, trainable=config.train_embeddings, name="word_embedding"
        )
        self.dropout = layers.Dropout(config.dropout, name="word_dropout")
        self.branches = [BRANCHES[name](config) for name in config.branches if name in BRANCHES]

    def __call__(self, ids: keras.KerasTensor) -> list[Read]:
        """Word ids (B, W), 0 is padding, to what each branch reads."""
        mask = IsWord()(ids)
        embedded = self.dropout(self.embedding(ids))
        found = [branch([embedded, mask]) for branch in self.branches]
        return [Read(pooled, sequence, mask) for pooled, sequence in found]


CELLS = {"gru": layers.GRU, "lstm": layers.LSTM}


@keras.saving.register_keras_serializable("emotion_tf")
class IsWord(keras.layers.Layer):
    """Ids (B, W) -> bool (B, W): not padding."""

    def call(self, ids: Any) -> Any:
        """Compares with 0."""
        return ops.not_equal(ids, 0)


@keras.saving.register_keras_serializable("emotion_tf")
class RecurrentBranch(keras.layers.Layer):
    """Bidirectional GRU or LSTM: ((B, W, E), mask (B, W)) -> last states (B, 2 units), all states (B, W, 2 units).

    GRU: Cho 2014; LSTM: Hochreiter and Schmidhuber 1997; both directions: Schuster and Paliwal 1997.
    """

    OUTPUTS = Read._fields[:2]

    def __init__(self, cell: str, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.cell, self.units = cell, units

    def build(self, input_shape: Any) -> None:
        """Makes both directions."""
        inner = CELLS[self.cell](self.units, return_sequences=True, return_state=True, dtype=self.dtype_policy)
        self.both = layers.Bidirectional(inner, name="both", dtype=self.dtype_policy)
        self.both.build(input_shape[0])

    def call(self, inputs: list[Any]) -> tuple[Any, Any]:
        """Runs over `inputs[0]`, past steps where `inputs[1]` is false."""
        embedded, mask = inputs
        sequence, *states = self.both(embedded, mask=mask)
        forward, backward = states[0], states[len(states) // 2]  # an LSTM has a cell state beside each
        real = ops.cast(ops.expand_dims(mask, -1), sequence.dtype)
        return ops.concatenate([forward, backward], axis=-1), sequence * real

    def get_config(self) -> dict[str, Any]:
        """With cell and units."""
        return {**super().get_config(), "cell": self.cell, "units": self.units}


@keras.saving.register_keras_serializable("emotion_tf")
class Convolutions(keras.layers.Layer):
    """Convolutions of several widths, ReLU, maximum over time (Kim 2014, "Convolutional Neural Networks for Sentence
    Classification"): ((B, W, E), mask (B, W)) -> (B, F), and before the maximum (B, W, F); F is filters x widths.

    Unlike Kim's they also start before the first word and end behind the last, on zeros: a text may be shorter than a
    filter is wide.
    """

    OUTPUTS = Read._fields[:2]

    def __init__(self, filters: int, widths: tuple[int, ...], **options: Any) -> None:
        super().__init__(**options)
        self.filters, self.widths = filters, tuple(widths)

    def build(self, input_shape: Any) -> None:
        """Makes a convolution of each width."""
        self.convolutions = [
            layers.Conv1D(
                self.filters, width, padding="same", activation="relu", name=f"width_{width}", dtype=self.dtype_policy
            )
            for width in self.widths
        ]
        for convolution in self.convolutions:
            convolution.build(input_shape[0])

    def call(self, inputs: list[Any]) -> tuple[Any, Any]:
        """Convolves `inputs[0]` where `inputs[1]` is true."""
        embedded, mask = inputs
        real = ops.cast(ops.expand_dims(mask, -1), embedded.dtype)
        # padding is zero before and after: neither its embedding nor how much of it there is matters
        sequence = ops.concatenate([convolve(embedded * real) for convolve in self.convolutions], axis=-1) * real
        return ops.max(sequence, axis=1), sequence  # ReLU: nothing is below the zero of padding

    def get_config(self) -> dict[str, Any]:
        """With filters and widths."""
        return {**super().get_config(), "filters": self.filters, "widths": self.widths}


BRANCHES: dict[str, Callable[[TextConfig], keras.layers.Layer]] = {
    "gru": lambda config: RecurrentBranch("gru", config.gru_units, name="gru"),
    "lstm": lambda config: RecurrentBranch("lstm", config.lstm_units, name="lstm"),
    "cnn": lambda config: Convolutions(config.cnn_filters, config.cnn_widths, name="word_cnn"),
}
