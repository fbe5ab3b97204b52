"""BERT as a plain `tf.Module` with the interface of TF-Hub's BERT encoders, and published weights turned into one.

A module that our code builds is a valid TF-Hub handle like any other, with two things foreign ones lack: its dropout is
stateless (seed and counter are variables of the module, so a checkpoint holds them and training can be continued bit
for bit), and it can be made as tiny as a test wants.

Architecture: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers" (2019),
    https://arxiv.org/abs/1810.04805
Interface: https://www.tensorflow.org/hub/common_saved_model_apis/text (transformer encoders)
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.errors import UserError

_EPSILON = 1e-12
_MASKED = -1e9
INPUT_NAMES = ("input_word_ids", "input_mask", "input_type_ids")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Size of a BERT encoder; the defaults are those of MiniLM-L6-H384.

    Attributes:
        vocab_size: number of word pieces.
        hidden: width of the token vectors; a multiple of `heads`.
        layers: number of transformer layers.
        heads: attention heads.
        intermediate: width inside the feed-forward part.
        positions: longest sequence.
        types: number of segments.
        dropout: rate on the embeddings, the attention weights and both residual branches.
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
        """Name -> shape of every trainable variable. Query, key and value share a matrix: one product, not three."""
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
        config: the sizes.
        vocab_file: one word piece per line, as many as `config.vocab_size`; it travels inside the SavedModel.
        do_lower_case: whether text is lower-cased before it is looked up in the vocabulary.
        seed: of the random initialisation (truncated normal, stddev 0.02, as in the paper's code) and of dropout.
        weights: name -> float32 array, as `BertConfig.shapes` names them; without it the module starts random.

    Raises:
        ValueError: a weight is missing or has another shape; the vocabulary has another size.
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
            raise ValueError(f"{vocab_file} has {entries} entries, `config.vocab_size` is {config.vocab_size}.")
        self.config = config
        values = random_weights(config, seed) if weights is None else weights
        self.weights = {name: _variable(name, values, shape) for name, shape in config.shapes().items()}
        self.vocab_file = tf.saved_model.Asset(str(vocab_file))
        self.do_lower_case = tf.Variable(do_lower_case, trainable=False, dtype=tf.bool, name="do_lower_case")
        # Replicas of a MirroredStrategy count together; without this aggregation they may not count at all.
        self.dropout_seed, self.dropout_counter = (
            tf.Variable(
                value, trainable=False, dtype=tf.int64, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
            )
            for name, value in (("dropout_seed", seed), ("dropout_counter", 0))
        )

    @tf.function
    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, tf.Tensor]:
        """Encodes word pieces.

        Args:
            inputs: `input_word_ids`, `input_mask` (1 = real), `input_type_ids`, each int32 (B, L).
            training: Python bool; True applies dropout and advances its counter by one.

        Returns:
            `pooled_output` float32 (B, H); `sequence_output` float32 (B, L, H); `encoder_outputs`, a list with the
            output of every layer, the last of them being `sequence_output`; and beyond the interface `attention`
            float32 (layers, B, L, L): how much each position looks at each other one, mean over the heads.
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
        """Word, position and segment vectors, summed and normalised; (B * L, H), so later products are plain 2-D."""
        word = tf.gather(self.weights["embeddings/word"], ids)
        position = self.weights["embeddings/position"][: tf.shape(ids)[1]]
        # A product with one-hot rows, not a gather: the gradient of two rows then needs no scatter.
        kind = tf.one_hot(types, self.config.types) @ self.weights["embeddings/type"]
        x = tf.reshape(word + position + kind, (-1, self.config.hidden))
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
        """Scaled dot-product attention of all heads at once; (B * L, H) in and out, beside its weights (B, L, L)."""
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
    """The dropout of one call: every place it is used at draws from its own stream of (seed, counter)."""

    def __init__(self, module: BertModule, training: bool) -> None:
        self._rate = module.config.dropout if training else 0.0
        self._places = 0
        if self._rate:
            sites = 1 + 3 * module.config.layers
            self._first = module.dropout_counter.assign_add(1, read_value=True) * sites
            self._seed = module.dropout_seed.read_value()

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if not self._rate:
            return x
        seed = tf.stack([self._seed, self._first + self._places])
        self._places += 1
        return tf.nn.experimental.stateless_dropout(x, self._rate, seed=seed, rng_alg="philox")


def random_weights(config: BertConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Name -> float32 array: kernels truncated normal with stddev 0.02 (BERT's own), norms one, biases zero."""
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
        found = tuple(values[name].shape) if name in values else "nothing"
        raise ValueError(f"BERT weight {name!r}: expected shape {shape}, received {found}.")
    return tf.Variable(np.asarray(values[name], np.float32), name=name)


class _Root(tf.Module):
    """What is saved: tf.Module's lists of variables are properties, and a SavedModel keeps only plain attributes."""

    variables: Any = ()  # type: ignore[assignment]
    trainable_variables: Any = ()  # type: ignore[assignment]
    __call__: Any


def save_bert(module: BertModule, path: str | Path) -> None:
    """Writes `module` as a TF-Hub SavedModel into the folder `path`.

    It has a trace with and one without training, both for any batch and any length, and carries what TF-Hub's BERT
    encoders
    carry: `variables`, `trainable_variables`, `vocab_file`, `do_lower_case`.
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


_SAFETENSORS_DTYPES = {"F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a `.safetensors` file (https://github.com/huggingface/safetensors#format).

    The format is a length, a JSON header and raw little-endian arrays: these lines spare every user a dependency.

    Raises:
        ValueError: the file is cut, or holds a dtype other than F32, F16 and I64.
    """
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise ValueError(f"{path} is not a safetensors file: its header is longer than the file.")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        if entry["dtype"] not in _SAFETENSORS_DTYPES or start + last > len(data):
            raise ValueError(f"{path}: cannot read tensor {name!r} ({entry['dtype']}, bytes {first} to {last}).")
        flat = np.frombuffer(data[start + first : start + last], _SAFETENSORS_DTYPES[entry["dtype"]])
        arrays[name] = flat.reshape(entry["shape"])
    return arrays


_RENAMED = {
    "attention/output": "attention.output.dense",
    "feed_forward/in": "intermediate.dense",
    "feed_forward/out": "output.dense",
}
_RENAMED_NORMS = {"attention/norm": "attention.output.LayerNorm", "feed_forward/norm": "output.LayerNorm"}


def rename_bert(published: dict[str, np.ndarray], config: BertConfig) -> dict[str, np.ndarray]:
    """Weights under the names of the published PyTorch BERT -> under ours; kernels turned, query, key and value joined.

    Raises:
        KeyError: a weight that `config` asks for is not there.
    """

    def norm(ours: str, theirs: str) -> dict[str, np.ndarray]:
        return {f"{ours}/gamma": published[f"{theirs}.weight"], f"{ours}/beta": published[f"{theirs}.bias"]}

    def dense(ours: str, *theirs: str) -> dict[str, np.ndarray]:
        kernel = np.concatenate([published[f"{name}.weight"].T for name in theirs], axis=1)
        return {
            f"{ours}/kernel": kernel,
            f"{ours}/bias": np.concatenate([published[f"{name}.bias"] for name in theirs]),
        }

    weights = {
        f"embeddings/{ours}": published[f"embeddings.{theirs}_embeddings.weight"]
        for ours, theirs in (("word", "word"), ("position", "position"), ("type", "token_type"))
    }
    weights |= norm("embeddings/norm", "embeddings.LayerNorm") | dense("pooler", "pooler.dense")
    for n in range(config.layers):
        ours, theirs = f"layer_{n}", f"encoder.layer.{n}"
        weights |= dense(f"{ours}/attention/qkv", *(f"{theirs}.attention.self.{p}" for p in ("query", "key", "value")))
        for part, name in _RENAMED.items():
            weights |= dense(f"{ours}/{part}", f"{theirs}.{name}")
        for part, name in _RENAMED_NORMS.items():
            weights |= norm(f"{ours}/{part}", f"{theirs}.{name}")
    return weights


# The three sentences and similarities that https://sbert.net/docs/quickstart.html prints for all-MiniLM-L6-v2.
REFERENCE_SENTENCES = (
    "the weather is lovely today .",
    "it ' s so sunny outside !",
    "he drove to the stadium .",
)
REFERENCE_SIMILARITY = np.array([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])


def convert_minilm(raw: Path, out: Path) -> None:
    """Turns the published all-MiniLM-L6-v2 into a TF-Hub SavedModel, and checks what was saved.

    Args:
        raw: folder with `config.json`, `model.safetensors` and `vocab.txt`.
        out: folder to write.

    Raises:
        UserError: the saved encoder does not give the published sentence similarities to 1e-3.
    """
    sizes = json.loads((raw / "config.json").read_text(encoding="utf-8"))
    config = BertConfig(
        vocab_size=sizes["vocab_size"],
        hidden=sizes["hidden_size"],
        layers=sizes["num_hidden_layers"],
        heads=sizes["num_attention_heads"],
        intermediate=sizes["intermediate_size"],
        positions=sizes["max_position_embeddings"],
        types=sizes["type_vocab_size"],
        dropout=sizes["hidden_dropout_prob"],
    )
    weights = rename_bert(read_safetensors(raw / "model.safetensors"), config)
    save_bert(BertModule(config, raw / "vocab.txt", do_lower_case=True, weights=weights), out)
    found = reference_similarity(out, raw / "vocab.txt")
    error = float(np.abs(found - REFERENCE_SIMILARITY).max())
    if not error < 1e-3:
        raise UserError(
            f"The converted MiniLM differs by {error:.4f} from the published sentence similarities; not kept."
        )


def reference_similarity(path: Path, vocab_file: Path) -> np.ndarray:
    """Cosine similarities (3, 3) of `REFERENCE_SENTENCES`, mean-pooled, by the SavedModel at `path`.

    The sentences consist of whole words of the vocabulary, so that looking them up needs no tokenizer.
    """
    index = {piece: n for n, piece in enumerate(vocab_file.read_text(encoding="utf-8").splitlines())}
    rows = [[index[piece] for piece in f"[CLS] {text} [SEP]".split()] for text in REFERENCE_SENTENCES]
    ids = tf.ragged.constant(rows, dtype=tf.int32).to_tensor()
    mask = tf.cast(ids > 0, tf.int32)
    inputs = dict(zip(INPUT_NAMES, (ids, mask, tf.zeros_like(ids)), strict=True))
    sequence = tf.saved_model.load(str(path))(inputs, training=False)["sequence_output"]
    total = tf.reduce_sum(sequence * tf.cast(mask, tf.float32)[..., tf.newaxis], axis=1)
    unit = tf.linalg.l2_normalize(total, axis=-1)
    return tf.matmul(unit, unit, transpose_b=True).numpy()
