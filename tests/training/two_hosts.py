"""Twenty updates of a small model by one process, or by one of two: a script, since each process has its own devices.

    python two_hosts.py DATA OUT

With TF_CONFIG, it is one of the processes. Without, it makes the updates of two processes alone: it reads the share of
each. It writes the NumPy file OUT, with the keys CASE/KEY.
"""

import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig, TrainConfig
from emotion_tf.data import pipeline
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.share import Share
from emotion_tf.models.pretrained import PretrainedFiles
from emotion_tf.models.word_branches import WordReplacement
from emotion_tf.training.checkpoint import Checkpoints
from emotion_tf.training.outputs import input_spec
from emotion_tf.training.phases import begin_phase, collect_dev, phases
from emotion_tf.training.replicas import batches_for_all, of_first_replica, rows_of_replica
from emotion_tf.training.setup import TrainingData, build_setup
from emotion_tf.training.step import Update, replica_sums, zero_sums
from emotion_tf.training.strategies import connect

HOSTS, STEPS = 2, 20
SGD = TrainConfig(
    optimizer="sgd", momentum=0.9, weight_decay=0.01, learning_rate=0.1, batch_size=16, epochs=4, clip_norm=0.5,
    ema=0.9, auxiliary_weight=0.5, schedule="constant", warmup=0.0, threads=1, cache_features=False,
)  # fmt: skip
BASE = Config(
    text=TextConfig(branches=("cnn",), word_dim=4, cnn_filters=3, dropout=0.0),
    face=FaceConfig(cnn_filters=(3, 4), dropout=0.0, augment=False),
    fusion=FusionConfig(dense_units=(4,), dropout=0.0),
    train=SGD,
)
CASES = {
    # 73 rows: the last of 5 updates has 9, of which the second host has one; 68: four, and the second has none
    "sgd": (BASE, 73),
    "empty": (BASE, 68),
    "accumulate": (dataclasses.replace(BASE, train=dataclasses.replace(SGD, batch_size=8, accumulate=2)), 80),
    "adamw": (dataclasses.replace(BASE, train=dataclasses.replace(SGD, optimizer="adamw", learning_rate=1e-3)), 73),
}


def train(config, rows, data):
    """Makes the updates; returns the gradients of the first, the losses, and the weights after the last."""
    dataset = Dataset.open(data)
    train = dataset.rows("train").select(range(rows))
    training_data = TrainingData(dataset, train, dataset.rows("dev"))
    config = dataclasses.replace(config, data=str(data))
    setup = build_setup(config, training_data, PretrainedFiles(), lambda line: None)
    checkpoints = Checkpoints(data / "unused", setup.variables, writes=False)
    stage = begin_phase(setup, phases(setup)[0], checkpoints)
    results, losses = {}, []
    strategy, batches_of = tf.distribute.get_strategy(), epoch_batches(stage)
    for epoch in range(config.train.epochs):
        for batch in batches_of(epoch):
            if not losses:
                results |= gradients(stage, batch, strategy)
            losses.append(stage.update(zero_sums(), *batch).mean_loss)
    outputs = collect_dev(stage)
    weights = {f"weights/{v.path}": v.numpy() for v in setup.network.variables}
    means = {f"means/{v.path}": mean.numpy() for mean, v in setup.average.pairs}
    return {**results, **weights, **means, "losses": losses, "dev": outputs.logits, "labels": outputs.label}


def gradients(stage, batch, strategy):
    """Returns the mean gradients of a batch, before clipping."""
    update = Update(stage.network, stage.setup.objective, stage.optimizer, clip_norm=1.0)

    def of_replica():
        sums = replica_sums(update, rows_of_replica(batch))
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, sums)

    sums = tf.function(lambda: of_first_replica(strategy.run(of_replica)), autograph=False)()
    return {f"gradients/{i}": (gradient / sums.rows).numpy() for i, gradient in enumerate(sums.gradients)}


def epoch_batches(stage):
    """Returns the function from an epoch to batches of this process: of two its share, of one the shares of both."""
    if tf.distribute.has_strategy():
        return stage.train_batches
    setup = stage.setup
    makes = [
        pipeline.train_batches(setup.data.train, stage.preprocess, setup.update_rows, None, share=Share(host, HOSTS))
        for host in range(HOSTS)
    ]

    def batches_of(epoch):
        order = pipeline.EpochOrder(setup.config.train.seed, epoch)
        parts = [batches_for_all(make(order), setup.steps, input_spec(stage.network)) for make in makes]
        for batches in zip(*parts, strict=True):
            yield join(batches, setup.config.train.accumulate)

    return batches_of


def join(batches, accumulate):
    """Returns the batch of one process: for each part of the update, the rows of both."""
    rows = []
    for number in range(accumulate):
        for batch in batches:
            size = -(-len(batch[1]) // accumulate)
            rows.append(tf.nest.map_structure(lambda x: x[number * size : (number + 1) * size].numpy(), batch))
    width = {name: max(x[0][name].shape[1:] for x in rows) for name in rows[0][0]}
    inputs = {name: np.concatenate([fit(x[0][name], width[name]) for x in rows]) for name in width}
    return inputs, np.concatenate([x[1] for x in rows]), np.concatenate([x[2] for x in rows])


def fit(values, width):
    """Pads values (B, ...) with zeros to the shape (B, *width)."""
    return np.pad(values, [(0, 0), *((0, b - a) for a, b in zip(values.shape[1:], width, strict=True))])


def main(data, out):
    """Makes the updates of every case, and writes what they return."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    cluster = connect("multiworker" if "TF_CONFIG" in os.environ else "none")
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # takes longer than the updates
    WordReplacement.ALPHA = 0.0  # replaced words are drawn on each host
    results = {}
    for case, (config, rows) in CASES.items():
        with cluster.scope():
            results |= {f"{case}/{key}": value for key, value in train(config, rows, data).items()}
    np.savez(out, **results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
