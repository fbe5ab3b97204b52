"""BERT as a `tf.Module` with the interface of TF-Hub's BERT encoders.

A saved `BertModule` is a valid TF-Hub handle. It differs from published modules in two ways: its dropout is stateless
(seed and counter are variables of the module, so a checkpoint holds them and interrupted training continues bit for
bit), and it can have any size, which tests need.

Architecture: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2019),
    https://arxiv.org/abs/1810.04805
Interface: https://www.tensorflow.org/hub/common_saved_model_apis/text (transformer encoders)
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.models.hub_interface import INPUT_NAMES

_EPSILON = 1e-12
_MASKED = -1e9


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder. The defaults are those of MiniLM-L6-H384.

    Attributes:
        vocab_size: number of word pieces.
        hidden: width H of the token vectors, a multiple of `heads`.
        layers: number of transformer layers.
        heads: attention heads.
        intermediate: width of the feed-forward layers.
        positions: maximum sequence length.
        types: number of segment ids.
        dropout: rate for the embeddings, the attention weights and both residual branches, rounded to 256ths.
    """

    vocab_size: int = 30522
    hidden: int = 384
    layers: int = 6
    heads: int = 12
    intermediate: int = 1536
    positions: int = 512
    types: int = 2
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise ValueError(f"`hidden` must be a multiple of `heads`. Received: {self.hidden} and {self.heads}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"`dropout` must be in [0, 1). Received: {self.dropout}")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each trainable variable by name. Query, key and value share a kernel: one product."""
        h, i = self.hidden, self.intermediate
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings/word": (self.vocab_size, h),
            "embeddings/position": (self.positions, h),
            "embeddings/type": (self.types, h),
            "embeddings/norm/gamma": (h,),
            "embeddings/norm/beta": (h,),
        }
        for n in range(self.layers):
            for part, (rows, columns) in {
                "attention/qkv": (h, 3 * h),
                "attention/output": (h, h),
                "feed_forward/in": (h, i),
                "feed_forward/out": (i, h),
            }.items():
                shapes[f"layer_{n}/{part}/kernel"] = (rows, columns)
                shapes[f"layer_{n}/{part}/bias"] = (columns,)
            for part in ("attention/norm", "feed_forward/norm"):
                shapes[f"layer_{n}/{part}/gamma"] = shapes[f"layer_{n}/{part}/beta"] = (h,)
        return {**shapes, "pooler/kernel": (h, h), "pooler/bias": (h,)}


class BertModule(tf.Module):
    """A BERT encoder.

    Args:
        config: sizes of the encoder.
        vocab_file: text file with one word piece per line, `config.vocab_size` of them. The SavedModel contains it.
        do_lower_case: whether the tokenizer has to lower-case text.
        seed: seed of the random initialisation and of dropout.
        weights: float32 arrays by the names of `BertConfig.shapes`. By default `random_weights(config, seed)`.

    Raises:
        ValueError: a weight is missing or has a wrong shape, or the vocabulary has a wrong size.
    """

    def __init__(
        self,
        config: BertConfig,
        vocab_file: str | Path,
        do_lower_case: bool = True,
        seed: int = 0,
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(name="bert")
        entries = len(Path(vocab_file).read_text(encoding="utf-8").splitlines())
        if entries != config.vocab_size:
            raise ValueError(
                f"Invalid vocabulary {vocab_file}. Expected {config.vocab_size} entries (`config.vocab_size`). "
                f"Received: {entries} entries."
            )
        self.config = config
        values = random_weights(config, seed) if weights is None else weights
        self.weights = {name: _variable(name, values, shape) for name, shape in config.shapes().items()}
        self.vocab_file = tf.saved_model.Asset(str(vocab_file))
        self.do_lower_case = tf.Variable(do_lower_case, trainable=False, dtype=tf.bool, name="do_lower_case")
        # A MirroredStrategy does not let its replicas update a variable that has no aggregation.
        self.dropout_seed, self.dropout_counter = (
            tf.Variable(
                value, trainable=False, dtype=tf.int64, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            for name, value in (("dropout_seed", seed), ("dropout_counter", 0))
        )

    @tf.function(autograph=False)  # there is no control flow on tensors; to look for it takes a second
    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes word pieces.

        Args:
            inputs: `input_word_ids`, `input_mask` (1 = real), `input_type_ids`, each int32 (B, L).
            training: Python bool. True applies dropout and increments its counter.

        Returns:
            `pooled_output` float32 (B, H); `sequence_output` float32 (B, L, H); `encoder_outputs`, a list with the
            output of each layer (the last one is `sequence_output`); and, in addition to TF-Hub's interface,
            `attention` float32 (layers, B, L, L), the attention weights averaged over the heads.
        """
        ids, mask, types = (inputs[name] for name in INPUT_NAMES)
        batch, length = tf.shape(ids)[0], tf.shape(ids)[1]
        drop = _Dropout(self, training)
        bias = (1.0 - tf.cast(mask, tf.float32))[:, tf.newaxis, tf.newaxis, :] * _MASKED
        x = self._embed(ids, types, drop)
        outputs: list[tf.Tensor] = []
        attention: list[tf.Tensor] = []
        for n in range(self.config.layers):
            x = self._layer(f"layer_{n}", x, bias, (batch, length), drop, attention)
            outputs.append(tf.reshape(x, (batch, length, self.config.hidden)))
        sequence = outputs[-1]
        pooled = tf.tanh(self._dense("pooler", sequence[:, 0, :]))
        return {
            "pooled_output": pooled,
            "sequence_output": sequence,
            "encoder_outputs": outputs,
            "attention": tf.stack(attention),
        }

    def _embed(self, ids: tf.Tensor, types: tf.Tensor, drop: _Dropout) -> tf.Tensor:
        """Returns the normalised sum of word, position and segment embeddings, flattened to (B * L, H)."""
        word = tf.gather(self.weights["embeddings/word"], ids)
        position = self.weights["embeddings/position"][: tf.shape(ids)[1]]
        # One-hot rows and a product: the gradient of a gather would be a scatter, which is slower for two rows.
        segment = tf.one_hot(types, self.config.types) @ self.weights["embeddings/type"]
        x = tf.reshape(word + position + segment, (-1, self.config.hidden))
        return drop(self._norm("embeddings/norm", x))

    def _layer(
        self,
        name: str,
        x: tf.Tensor,
        bias: tf.Tensor,
        size: tuple[tf.Tensor, tf.Tensor],
        drop: _Dropout,
        attention: list[tf.Tensor],
    ) -> tf.Tensor:
        mixed, weights = self._attend(name, x, bias, size, drop)
        attention.append(weights)
        attended = self._dense(f"{name}/attention/output", mixed)
        x = self._norm(f"{name}/attention/norm", x + drop(attended))
        inner = tf.nn.gelu(self._dense(f"{name}/feed_forward/in", x), approximate=False)
        return self._norm(f"{name}/feed_forward/norm", x + drop(self._dense(f"{name}/feed_forward/out", inner)))

    def _attend(
        self, name: str, x: tf.Tensor, bias: tf.Tensor, size: tuple[tf.Tensor, tf.Tensor], drop: _Dropout
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns multi-head attention, (B * L, H) from (B * L, H), and its weights averaged over heads, (B, L, L)."""
        heads, depth = self.config.heads, self.config.hidden // self.config.heads
        qkv = tf.reshape(self._dense(f"{name}/attention/qkv", x), (*size, 3, heads, depth))
        query, key, value = tf.unstack(tf.transpose(qkv, (2, 0, 3, 1, 4)))
        scores = tf.matmul(query * depth**-0.5, key, transpose_b=True) + bias
        weights = tf.nn.softmax(scores)
        mixed = tf.matmul(drop(weights), value)
        joined = tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), (-1, self.config.hidden))
        return joined, tf.reduce_mean(weights, axis=1)

    def _dense(self, name: str, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.bias_add(tf.matmul(x, self.weights[f"{name}/kernel"]), self.weights[f"{name}/bias"])

    def _norm(self, name: str, x: tf.Tensor) -> tf.Tensor:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + _EPSILON)
        return centred * scale * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]


class _Dropout:
    """Dropout for one call of the module. Each application draws from its own stateless stream.

    A unit is dropped if its byte is below `_dropped`; a number for each unit would take twice the time.
    """

    def __init__(self, module: BertModule, training: bool) -> None:
        rate = module.config.dropout if training else 0.0
        self._dropped = math.ceil(rate * 255)  # 26 of 256 for 0.1; no rate above 0 becomes none, none becomes all
        self._places = 0
        if self._dropped:
            sites = 1 + 3 * module.config.layers
            self._first = module.dropout_counter.assign_add(1, read_value=True) * sites
            self._seed = module.dropout_seed.read_value()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if not self._dropped:
            return x
        seed = tf.stack([self._seed, self._first + self._places])
        self._places += 1
        size = tf.size(x)
        numbers = tf.random.stateless_uniform(
            [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        draws = tf.reshape(tf.reshape(tf.bitcast(numbers, tf.uint8), (-1,))[:size], tf.shape(x))
        return tf.where(draws >= self._dropped, x * (256 / (256 - self._dropped)), 0.0)


def random_weights(config: BertConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns initial weights by name: kernels from a clipped normal (stddev 0.02, as BERT), gammas 1, the rest 0."""
    generator = np.random.default_rng(seed)
    values = {}
    for name, shape in config.shapes().items():
        if len(shape) == 1:
            value = np.full(shape, name.endswith("gamma"))
        else:
            value = np.clip(generator.standard_normal(shape, dtype=np.float32), -2.0, 2.0) * 0.02
        values[name] = value.astype(np.float32)
    return values


def _variable(name: str, values: dict[str, np.ndarray], shape: tuple[int, ...]) -> tf.Variable:
    if name not in values or tuple(values[name].shape) != shape:
        received = tuple(values[name].shape) if name in values else "nothing"
        raise ValueError(f"Invalid BERT weight {name!r}. Expected shape {shape}. Received: {received}.")
    return tf.Variable(np.asarray(values[name], np.float32), name=name)


class _Root(tf.Module):
    """The object that is saved. `tf.Module` lists variables by properties; a SavedModel keeps plain attributes only."""

    variables: Any = ()  # type: ignore[assignment]
    trainable_variables: Any = ()  # type: ignore[assignment]
    __call__: Any


def save_bert(module: BertModule, path: str | Path) -> None:
    """Saves `module` as a TF-Hub SavedModel in the folder `path`.

    The SavedModel has two traces (training and inference), both for any batch size and length, and the attributes of
    TF-Hub's BERT encoders: `variables`, `trainable_variables`, `vocab_file`, `do_lower_case`.
    """
    spec = tf.TensorSpec((None, None), tf.int32)
    for training in (False, True):
        module.__call__.get_concrete_function({name: spec for name in INPUT_NAMES}, training=training)
    root = _Root()
    root.__call__ = module.__call__
    root.trainable_variables = list(module.trainable_variables)
    root.variables = list(module.variables)
    root.vocab_file, root.do_lower_case = module.vocab_file, module.do_lower_case
    root.dropout_seed, root.dropout_counter = module.dropout_seed, module.dropout_counter
    tf.saved_model.save(root, str(path))
