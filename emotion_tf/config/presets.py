"""Presets: named configurations to start from."""

from __future__ import annotations

import dataclasses

from emotion_tf.config import rules
from emotion_tf.config.config import Config
from emotion_tf.config.face import FaceConfig
from emotion_tf.config.fusion import FusionConfig
from emotion_tf.config.text import TextConfig
from emotion_tf.config.train import TrainConfig

PRESETS: dict[str, Config] = {
    # The generated faces vary enough: augmentation only slows the training.
    "demo": Config(
        face=FaceConfig(cnn_filters=(8, 16, 32, 64), dropout=0.1, augment=False),
        fusion=FusionConfig(dropout=0.2),
        train=TrainConfig(epochs=10, learning_rate=3e-3),
    ),
    "minilm": Config(
        text=TextConfig(branches=("bert", "gru")),
        train=TrainConfig(epochs=3, patience=3),
    ),
    "base": Config(
        text=TextConfig(
            branches=("bert", "gru"), encoder="https://tfhub.dev/tensorflow/bert_en_uncased_L-12_H-768_A-12/4"
        ),
        face=FaceConfig(branches=("resnet50", "cnn")),
        train=TrainConfig(epochs=4, patience=4, learning_rate=6e-4),
    ),
}
"""Preset -> configuration: demo (seconds on a CPU), minilm (minutes on a CPU), base (for a GPU)."""
SMOKE_ROWS = 64
"""Utterances of each split that `--smoke` evaluates."""


def preset(name: str) -> Config:
    """Returns the configuration of a preset. Raises UserError for an unknown name."""
    rules.one_of("--preset", name, PRESETS)
    return PRESETS[name]


def smoke(config: Config) -> Config:
    """Returns the configuration with one epoch of four small batches, which takes seconds."""
    train = dataclasses.replace(config.train, epochs=1, steps_per_epoch=4, batch_size=8, freeze_epochs=0)
    return dataclasses.replace(config, train=train)


def is_smoke(config: Config) -> bool:
    """Whether a configuration is one of `smoke`, whose results say nothing about the model."""
    return smoke(config) == config
