"""The ops of what an export and an encoder may consist of."""

import keras
import numpy as np
import tensorflow as tf
from helpers import ops_of, saved_ops
from keras import layers

from emotion_tf.evaluation.vote import Vote
from emotion_tf.models.hub_interface import INPUT_NAMES

ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_tanh", "leaky_relu", "linear", "log_sigmoid"),
    *("log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
)


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
    """Returns the ops of encoders of TF-Hub, saved into a folder."""
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
    """Returns the ops of a network of many layers, with gradients, which the explanation of an export computes."""
    network = keras_network()

    def explain(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = network(images, training=False)
            best = tf.reduce_max(outputs, axis=1)
        return outputs, tape.gradient(best, images)

    return traced_ops(explain, tf.TensorSpec((None, 32, 32, 3), tf.float32))


def vote_ops():
    """Returns the ops of the votes of ensembles, and of their gradients."""
    stacked = Vote("stacking", coefficients=np.zeros((2, 7, 7)), bias=np.zeros(7))
    return _vote_ops(stacked) | _vote_ops(Vote("weighted", weights=np.array([0.5, 0.5])))


def _vote_ops(vote):
    def explained(probabilities):
        with tf.GradientTape() as tape:
            tape.watch(probabilities)
            logits = vote.logits(probabilities, keras.ops)
        return logits, tape.gradient(logits, probabilities)

    return traced_ops(explained, tf.TensorSpec((2, None, 7), tf.float32))
