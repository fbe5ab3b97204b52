"""`graph_ops.txt` is exactly what exports and encoders consist of. `WRITE_GRAPH_OPS=1` writes it anew."""

import dataclasses
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ops_of, saved_ops
from keras import layers

from emotion_tf.config import FusionConfig
from emotion_tf.models.graph_safety import OPS, allowed_ops, nodes
from emotion_tf.models.hub_interface import INPUT_NAMES

ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_tanh", "leaky_relu", "linear", "log_sigmoid"),
    *("log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
)
HEAD = """\
# Ops that the graph of an export or an encoder may have; graph_safety.py refuses any other. One a line; each group
# leaves out what is in those above. Written by tests/models/test_graph_ops.py.
# None of them reads or writes a file, except for those of the saver, opens a connection or runs Python.
"""


def traced_ops(function, *specs):
    return ops_of(tf.function(function, autograph=False).get_concrete_function(*specs).graph.as_graph_def())


class PublishedBert(tf.Module):
    """What TF-Hub's BERT, ALBERT and ELECTRA encoders consist of (tensorflow/models, official/nlp, by Keras 2)."""

    def __init__(self):
        super().__init__()
        self.table = tf.Variable(tf.zeros((20, 8)))
        self.kernel = tf.Variable(tf.zeros((8, 2, 4)))
        self.pooler = tf.Variable(tf.zeros((8, 8)))
        self.scale = tf.Variable(tf.ones((8,)))

    @tf.function
    def __call__(self, inputs, training=False):
        ids, mask, types = (inputs[name] for name in INPUT_NAMES)
        x = tf.nn.embedding_lookup(self.table, ids) + tf.gather(self.table, tf.range(tf.shape(ids)[1]))
        x += tf.reshape(tf.matmul(tf.one_hot(tf.reshape(types, (-1,)), 20), self.table), tf.shape(x))
        x = self.norm(x)
        x = self.norm_unfused(tf.nn.dropout(x, 0.1) if training else x)
        query = tf.einsum("blh,hnd->blnd", x, self.kernel)
        scores = tf.einsum("bqnd,bknd->bnqk", tf.multiply(query, 0.5), query)
        wide = tf.cast(tf.expand_dims(mask, 1), tf.float32) * tf.ones([tf.shape(ids)[0], tf.shape(ids)[1], 1])
        scores += (1.0 - tf.cast(tf.expand_dims(wide, 1), tf.float32)) * -1e9
        attended = tf.einsum("bnqk,bknd->bqnd", tf.nn.softmax(scores - tf.reduce_max(scores)), query)
        x += tf.nn.bias_add(tf.reshape(attended, tf.shape(x)), self.scale)
        x += tf.nn.gelu(x, approximate=False) + tf.nn.gelu(x, approximate=True) + tf.nn.relu(x)
        x += x * 0.5 * (1.0 + tf.raw_ops.Add(x=tf.math.erf(x), y=x))  # before TensorFlow 2.13
        first = tf.squeeze(x[:, 0:1, :], axis=1)
        return {"pooled_output": tf.tanh(first @ self.pooler), "sequence_output": x}

    def norm(self, x):
        flat = tf.reshape(x, (1, -1, 8, 1))
        ones, zeros = tf.ones((tf.shape(flat)[1],)), tf.fill((tf.shape(flat)[1],), 0.0)
        moved = tf.transpose(flat, (0, 3, 2, 1))[..., :1]
        y, *_ = tf.compat.v1.nn.fused_batch_norm(moved, ones[:1], zeros[:1], epsilon=1e-3, data_format="NHWC")
        return x + tf.reduce_mean(y)

    def norm_unfused(self, x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.scale, self.scale, 1e-12) + tf.sqrt(
            tf.pow(tf.square(x), 2.0)
        )


class PublishedImages(tf.Module):
    """What TF-Hub's image modules consist of: MobileNet, Inception, ResNet, EfficientNet."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.zeros((3, 3, 3, 4)))
        self.deep = tf.Variable(tf.zeros((3, 3, 4, 1)))
        self.one = tf.Variable(tf.ones((4,)))

    @tf.function
    def __call__(self, images, training=False):
        x = tf.nn.conv2d(tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), self.kernel, 2, "VALID")
        y, mean, _ = tf.compat.v1.nn.fused_batch_norm(x, self.one, self.one, self.one, self.one, is_training=training)
        if training:
            self.one.assign_sub((self.one - mean) * 0.1)
            self.one.assign(self.one * 0.9)
        x = tf.nn.relu6(tf.nn.depthwise_conv2d(y, self.deep, (1, 1, 1, 1), "SAME"))
        x = tf.concat([tf.nn.max_pool2d(x, 2, 2, "SAME"), tf.nn.avg_pool2d(x, 2, 2, "SAME")], -1)
        x = x * tf.sigmoid(x) + tf.nn.swish(x) + tf.nn.relu6(x + 3.0) / 6.0
        return tf.reduce_mean(x, axis=(1, 2))


def published_ops(folder):
    spec, picture = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, 32, 32, 3), tf.float32)
    ops = set()
    for name, module, inputs in (
        ("bert", PublishedBert(), {key: spec for key in INPUT_NAMES}),
        ("images", PublishedImages(), picture),
    ):
        for training in (False, True):
            module.__call__.get_concrete_function(inputs, training=training)
        tf.saved_model.save(module, str(folder / name))
        ops |= saved_ops(folder / name)
    return ops


def keras_network():
    """A network of the layers that a person's own face network has (`--face.encoder x.keras`)."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=0.0, variance=1.0)(layers.Rescaling(1 / 255)(inputs))
    x = layers.ZeroPadding2D(1)(layers.Cropping2D(1)(layers.Resizing(32, 32)(x)))
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2, kernel_regularizer="l2")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(x)
    x = layers.SeparableConv2D(8, 3, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, padding="same")(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.LayerNormalization()(layers.BatchNormalization()(x))
    x = layers.GroupNormalization(2)(layers.UnitNormalization()(x))
    for name in ACTIVATIONS:
        y = layers.Activation(name)(x)
        x = layers.Add()([x, y])
    x = layers.PReLU()(layers.LeakyReLU()(x))
    x = layers.Subtract()([layers.Multiply()([x, x]), layers.Maximum()([x, layers.Minimum()([x, x])])])
    x = layers.Average()([x, layers.UpSampling2D(interpolation="bilinear")(layers.AveragePooling2D(2)(x))])
    x = layers.Concatenate()([x, layers.UpSampling2D()(layers.MaxPooling2D()(x))])
    x = layers.SpatialDropout2D(0.1)(layers.GaussianNoise(0.1)(layers.Dropout(0.1)(x)))
    tokens = layers.Permute((2, 1))(layers.Reshape((1024, 16))(x))
    tokens = layers.EinsumDense("abc,cd->abd", output_shape=(16, 8))(tokens)
    tokens = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    flat = [layers.Flatten()(tokens), layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    return keras.Model(inputs, layers.Dense(4, activation="relu")(layers.Concatenate()(flat)))


def explained_keras_ops():
    """With gradients, which the explanation of an export computes."""
    network = keras_network()

    def explain(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = network(images, training=False)
            best = tf.reduce_max(outputs, axis=1)
        return outputs, tape.gradient(best, images)

    return traced_ops(explain, tf.TensorSpec((None, 32, 32, 3), tf.float32))


@pytest.fixture
def whole(bert_config, initialised, tiny_bert):
    """A run with every kind of part whose ops differ from those of the others (see test_parts.py)."""
    text = dataclasses.replace(bert_config.text, branches=("bert", "gru", "lstm", "cnn"), pooling="attention")
    face = dataclasses.replace(
        bert_config.face, branches=("mobilenetv3small", "efficientnetv2b0", "cnn"), weights="none", frames="gru"
    )
    fusion = FusionConfig(kind="cross_attention", width=16, heads=2, dense_units=(8,))
    return initialised(dataclasses.replace(bert_config, text=text, face=face, fusion=fusion), encoder=tiny_bert)


def vote_ops(vote):
    def explained(probabilities):
        with tf.GradientTape() as tape:
            tape.watch(probabilities)
            logits = vote.logits(probabilities, keras.ops)
        return logits, tape.gradient(logits, probabilities)

    return traced_ops(explained, tf.TensorSpec((2, None, 7), tf.float32))


def export_ops(run, tmp_path):
    from emotion_tf.evaluation.calibration import Calibration, Temperatures, write_calibration
    from emotion_tf.evaluation.vote import Vote
    from emotion_tf.serving.predict import RunPredictor

    write_calibration(run.path, Calibration(Temperatures(3.0, {"text only": 2.0}, {})))
    graph = RunPredictor(run).graph
    archive = keras.export.ExportArchive()
    archive.track(graph.members[0].preprocess)
    for name, (serve, spec) in graph.signatures.items():
        archive.add_endpoint(name, serve, spec)
    archive.write_out(str(tmp_path / "export"), verbose=False)
    stacked = Vote("stacking", coefficients=np.zeros((2, 7, 7)), bias=np.zeros(7))
    voting = [vote_ops(vote) for vote in (Vote("weighted", weights=np.array([0.5, 0.5])), stacked)]
    return saved_ops(tmp_path / "export").union(*voting)


@pytest.mark.slow
def test_the_list_is_what_exports_and_encoders_have(whole, tiny_bert, tmp_path):
    from pathlib import Path

    groups = {
        "Exports: towers, fusions, votes, explanations, tokenizers, pictures; the saver": export_ops(whole, tmp_path),
        # encoders of version 0.1 draw their dropout by StatelessRandomUniformV2
        "Encoders that this program converts or builds (MiniLM)": saved_ops(Path(tiny_bert))
        | {"StatelessRandomUniformV2"},
        "Encoders of TF-Hub": published_ops(tmp_path),
        "Exports of a person's own face network, of the layers of Keras": explained_keras_ops(),
    }
    text, seen = HEAD, set()
    for title, ops in groups.items():
        text += "\n".join([f"# {title}", *sorted(ops - seen), ""])
        seen |= ops
    if os.environ.get("WRITE_GRAPH_OPS") == "1":
        OPS.write_text(text, encoding="utf-8")
    allowed_ops.cache_clear()
    assert sorted(seen - allowed_ops()) == [] and sorted(allowed_ops() - seen) == []
    assert OPS.read_text(encoding="utf-8") == text


def test_encoders_of_the_tests_keep_to_the_list(tiny_bert, tmp_path):
    from pathlib import Path

    assert saved_ops(Path(tiny_bert)) | published_ops(tmp_path) <= allowed_ops()
    assert len(allowed_ops()) < 250 and nodes


def test_no_op_of_the_list_reaches_out():
    """Names of ops with files, connections, Python, other graphs, printing."""
    words = {"File", "Dataset", "Py", "Summary", "Print", "Debug", "Rpc", "Send", "Recv", "Xla", "Reader", "Sql"}
    data = {"ConcatenateDataset", "DatasetToSingleElement", "IgnoreErrorsDataset", "MapDataset", "TakeDataset"}
    reaching = {op for op in allowed_ops() if any(word in op for word in words)}
    assert reaching == data | {"TensorDataset", "ShardedFilename"}
