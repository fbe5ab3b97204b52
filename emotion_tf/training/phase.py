"""Where a training stands, and what it trains at a stretch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import keras
import tensorflow as tf

from emotion_tf.data.cached_features import CachedFeatures
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.training.feature_cache import FeatureCache
from emotion_tf.training.fitting import Average, FitModel
from emotion_tf.training.outputs import inference


@dataclass
class State:
    """Where a training stands."""

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    best_start: int = -1
    """First epoch of the phase that the best epoch's partial checkpoint completes; -1: it is whole."""


@dataclass
class Phase:
    """A stretch of epochs in which the same layers are trained.

    Attributes:
        first: its first epoch.
        fitted: what is trained: the whole model, or what reads the features of its frozen networks.
        optimizer: of this phase alone.
        preprocess: makes the inputs that `fitted` reads from the records.
        train, dev: features of the frozen networks; None: these are run.
        cache: where those of other rows can be had.
    """

    first: int
    fitted: FitModel
    optimizer: keras.Optimizer
    preprocess: Preprocessor
    train: CachedFeatures | None
    dev: CachedFeatures | None
    cache: FeatureCache | None

    @cached_property
    def infer(self) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
        """Inputs to logits."""
        return inference(keras.Model(self.fitted.input, self.fitted.output["logits"]))

    def changing(self, average: Average | None) -> set[int] | None:
        """`id` of the variables that it changes; None: all."""
        if self.train is None:
            return None
        means = [mean for mean, _ in average.pairs] if average else []
        return {id(v) for v in (*self.fitted.variables, *means)}
