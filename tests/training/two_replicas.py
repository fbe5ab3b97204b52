"""Updates of a small model on one device and on two: a script, since the devices come before TensorFlow starts.

    python two_replicas.py OUT

It writes the NumPy file OUT: `1/KEY` on one device and `2/KEY` on two, the values on each device (D, ...). After the
updates with sgd, it makes one with adamw (`adamw/KEY`), and draws with dropout (`dropout`).
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.models.two_tower import build_model
from emotion_tf.run_info import DataSpec
from emotion_tf.training.auxiliary import auxiliary_loss, build_heads, training_network
from emotion_tf.training.average import Average
from emotion_tf.training.dropout_seeds import separate_seeds
from emotion_tf.training.losses import build_loss
from emotion_tf.training.optimizers import build_optimizer
from emotion_tf.training.schedules import WarmupSchedule
from emotion_tf.training.step import Update, apply_update, replica_sums

ROWS, FIRST = 8, 5  # rows of an update, and how many of them the first of two devices has
CLIP_NORM, RATE, MOMENTUM = 0.5, 0.1, 0.9
SPEC = DataSpec(("a", "b", "c"), face_size=8, max_faces=2, lower_case=True, tokenizer="learned", tokenizer_sha256="")
CONFIG = Config(
    text=TextConfig(branches=("cnn",), word_dim=4, cnn_filters=3, dropout=0.0),
    face=FaceConfig(cnn_filters=(3, 4), dropout=0.0),
    fusion=FusionConfig(dense_units=(4,), dropout=0.0),
    train=TrainConfig(optimizer="sgd", momentum=0.5, weight_decay=0.01),
)


def build_batch(last=ROWS):
    """Inputs, labels and weights of 8 rows with repeated words; one has no text, and one has no face.

    `last` is the first row of those without a face.
    """
    rng = np.random.default_rng(0)
    inputs = {
        "word_ids": rng.integers(1, 9, (ROWS, 5)).astype(np.int32),
        "faces": rng.integers(0, 255, (ROWS, 2, 8, 8, 3)).astype(np.uint8),
        "face_mask": rng.random((ROWS, 2)) < 0.7,
    }
    inputs["word_ids"][3], inputs["face_mask"][6], inputs["face_mask"][last:] = 0, False, False
    return inputs, rng.integers(0, 3, ROWS), (0.5 + rng.random(ROWS)).astype(np.float32)


def build_update(weights, train=CONFIG.train):
    """Returns the update of a model with auxiliary heads, batch norm over all replicas, and averages."""
    keras.utils.set_random_seed(0)
    model = build_model(CONFIG, SPEC, (9, CONFIG.text.word_dim))
    network = training_network(model.input, model.output, build_heads(model.towers, len(SPEC.labels)))
    network.set_weights(weights or network.get_weights())
    loss = build_loss(CONFIG.train, np.array([5, 3, 2]))
    slower = [(variable, 0.5) for variable in model.towers["face"].trainable_variables]
    schedule = WarmupSchedule("constant", RATE, 0, 10)
    return Update(
        network,
        lambda y_true, outputs: loss(y_true, outputs["logits"]) + 0.5 * auxiliary_loss(loss, y_true, outputs),
        build_optimizer(train, network.trainable_variables, slower, schedule),
        CLIP_NORM,
        average=Average(network.weights).pairs,
        momentum=MOMENTUM,
    )


def make_update(update, batch):
    """Makes an update as `Update` does; also returns the gradients that it applies, and their norm before clipping."""
    sums = replica_sums(update, batch)
    reduced = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)
    gradients, norm = tf.clip_by_global_norm([gradient / reduced.rows for gradient in reduced.gradients], CLIP_NORM)
    return apply_update(update, sums)._replace(gradients=[]), gradients, norm


def run(strategy, batches, weights=None, train=CONFIG.train):
    """Makes an update of each batch, of which each device has a part; returns the first weights and all by key."""

    def on_devices(value):
        return np.stack([x.numpy() for x in strategy.experimental_local_results(value)])

    with strategy.scope():
        update = build_update(weights, train)
    network, start = update.network, update.network.get_weights()
    batches = [
        strategy.experimental_distribute_values_from_function(lambda context: parts[context.replica_id_in_sync_group])
        for parts in batches
    ]
    step = tf.function(lambda batch: strategy.run(make_update, args=(update, batch)), autograph=False)
    results = {"clip_norm": CLIP_NORM}
    for number, batch in enumerate(batches, start=1):
        sums, gradients, norm = step(batch)
        if number == 1:
            results |= {f"gradients/{i}": on_devices(gradient) for i, gradient in enumerate(gradients)}
            results["norm"] = on_devices(norm)[0]
        trained = {id(v) for v in network.trainable_weights}
        changed = {
            "sums": {name: getattr(sums, name) for name in ("rows", "loss", "weight", "correct")},
            "weights": dict(enumerate(v.value for v in network.weights if id(v) in trained)),
            "statistics": dict(enumerate(v.value for v in network.weights if id(v) not in trained)),
            "averages": dict(enumerate(mean for mean, _ in update.average)),
            "slots": dict(enumerate(v.value for v in update.optimizer.variables)),
        }
        results |= {f"{number}/{kind}/{k}": on_devices(v) for kind, of in changed.items() for k, v in of.items()}
    return start, results


def draw(strategy):
    """Returns what dropout makes of ones on each device (D, 1, 64), in two consecutive steps."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((64,))
        network = keras.Model(inputs, keras.layers.Dropout(0.5)(inputs))
        separate_seeds(network)
    step = tf.function(lambda: strategy.run(lambda: network(tf.ones((1, 64)), training=True)), autograph=False)
    return [np.stack([x.numpy() for x in strategy.experimental_local_results(step())]) for _ in range(2)]


def _divide(batch, parts):
    return [tf.nest.map_structure(lambda x: tf.constant(x[at]), batch) for at in parts]


def main(out):
    """Configures two devices, and writes the results of one and of two."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # takes longer than the updates
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    batches = [build_batch(), build_batch(FIRST), build_batch(0)]  # without a face on the second device, then on both
    weights, one = run(tf.distribute.get_strategy(), [_divide(batch, [slice(None)]) for batch in batches])
    halves = [_divide(batch, [slice(FIRST), slice(FIRST, None)]) for batch in batches]
    strategies = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    _, two = run(strategies[1], halves, weights)
    adamw = TrainConfig(optimizer="adamw", weight_decay=0.01)
    wholes = [_divide(batch, [slice(None)]) for batch in batches]
    for results, strategy, parts in zip((one, two), strategies, (wholes, halves), strict=True):
        _, of_adamw = run(strategy, parts[:2], weights, adamw)
        results |= {f"adamw/{key}": value for key, value in of_adamw.items()}
        results |= {f"dropout/{i}": values for i, values in enumerate(draw(strategy))}
    np.savez(out, **{f"1/{k}": v for k, v in one.items()}, **{f"2/{k}": v for k, v in two.items()})


if __name__ == "__main__":
    main(sys.argv[1])
