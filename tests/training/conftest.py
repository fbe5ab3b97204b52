"""A model of a few units, its update, and a batch of random rows."""

import dataclasses

import numpy as np
import pytest

from emotion_tf.config import Config, FaceConfig, FusionConfig, TextConfig
from emotion_tf.run_info import DataSpec

ROWS, WORDS = 20, 9


@pytest.fixture(scope="session")
def tiny_spec():
    return DataSpec(
        ("a", "b", "c"), face_size=8, max_faces=1, lower_case=True, tokenizer="learned", tokenizer_sha256=""
    )


@pytest.fixture(scope="session")
def tiny_config():
    """Configuration of a GRU and a CNN without dropout."""
    return Config(
        text=TextConfig(word_dim=4, gru_units=3, dropout=0.0),
        face=FaceConfig(cnn_filters=(3,), dropout=0.0),
        fusion=FusionConfig(dense_units=(4,), dropout=0.0),
    )


@pytest.fixture(scope="session")
def batch():
    """Inputs, labels and weights of 20 rows; some have no face, one has no text."""
    rng = np.random.default_rng(0)
    inputs = {
        "word_ids": rng.integers(1, WORDS, (ROWS, 5)).astype(np.int32),
        "faces": rng.integers(0, 255, (ROWS, 1, 8, 8, 3)).astype(np.uint8),
        "face_mask": rng.random((ROWS, 1)) < 0.7,
    }
    inputs["word_ids"][3] = 0
    return inputs, rng.integers(0, 3, ROWS), rng.random(ROWS).astype(np.float32)


@pytest.fixture(scope="session")
def build_update(tiny_spec):
    """Function from a configuration to a small model, with the same weights each time, and its update."""
    from emotion_tf.models.two_tower import build_model
    from emotion_tf.training.auxiliary import auxiliary_loss, build_heads, training_network
    from emotion_tf.training.average import Average
    from emotion_tf.training.losses import build_loss
    from emotion_tf.training.optimizers import build_optimizer
    from emotion_tf.training.schedules import WarmupSchedule
    from emotion_tf.training.step import Update

    def build(config):
        import keras

        keras.utils.set_random_seed(1)
        train = dataclasses.replace(config.train, optimizer="sgd", momentum=0.0, weight_decay=0.0)
        model = build_model(config, tiny_spec, (WORDS, config.text.word_dim))
        heads = build_heads(model.towers, len(tiny_spec.labels)) if train.auxiliary_weight else {}
        network = training_network(model.input, model.output, heads)
        loss = build_loss(train, np.array([5, 3, 2]))
        update = Update(
            network,
            lambda y_true, outputs: (
                loss(y_true, outputs["logits"]) + train.auxiliary_weight * auxiliary_loss(loss, y_true, outputs)
            ),
            build_optimizer(train, network.trainable_variables, [], WarmupSchedule("constant", 0.1, 0, 10)),
            train.clip_norm,
            train.batch_size if train.accumulate > 1 else None,
            Average(model.weights).pairs if train.ema else (),
            train.ema,
        )
        return model, update

    return build
