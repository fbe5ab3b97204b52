"""How a model is fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError


@dataclass(frozen=True)
class Loss:
    """A loss, which is the function of its name in `training/losses.py`.

    Attributes:
        about: what it is.
        options: argument of the function -> option of `--train` that sets it.
    """

    about: str
    options: Mapping[str, str]


LOSSES = {
    "cross_entropy": Loss(
        "-log p of the true class; --train.label-smoothing spreads a share over all (Szegedy 2016)",
        {"smoothing": "label_smoothing"},
    ),
    "focal": Loss(
        "cross-entropy times (1 - p)^--train.focal-gamma: easy rows count less (Lin 2017, without its alpha)",
        {"gamma": "focal_gamma"},
    ),
}
CLASS_WEIGHTS = {
    "none": "each utterance counts by its own weight",
    "balanced": "inverse to the frequency of its class",
}
OPTIMIZERS = {
    "adamw": "Adam with decoupled weight decay (Loshchilov and Hutter 2019)",
    "adam": "adaptive moments, without weight decay (Kingma and Ba 2015)",
    "rmsprop": "gradients over the root of their mean square, without weight decay (Tieleman and Hinton 2012)",
    "sgd": "gradient descent with --train.momentum (Polyak 1964) and decoupled decay (Loshchilov and Hutter 2019)",
}
SCHEDULES = {
    "linear": "linearly to 0 at the last step (Devlin 2019)",
    "cosine": "half a cosine to 0 at the last step (Loshchilov and Hutter 2017, without restarts)",
    "constant": "the peak rate to the end",
}
PRECISIONS = {
    "float32": "everything in 32 bits",
    "bfloat16": "layers compute in bfloat16, weights and logits stay float32 (mixed precision: Micikevicius 2018)",
    "auto": "bfloat16 where it gains (NVIDIA Ampere and later; Keras Applications on a CPU with AMX; a face tower of "
    "cnn, VGG or ResNet alone on one with AVX512-BF16); else float32",
}
EFFECTIVE = {
    **{option: ("loss", (name,)) for name, loss in LOSSES.items() for option in loss.options.values()},
    "momentum": ("optimizer", ("sgd",)),
    "weight_decay": ("optimizer", ("adamw", "sgd")),
}
"""Options that act only beside some names: option -> (the option that takes the names, the names)."""


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 15
    """Most passes over the training split."""
    batch_size: int = 32
    """Utterances in a batch."""
    accumulate: int = 1
    """Batches whose gradients make one update together: as one large batch, but batch norm sees the small ones."""
    optimizer: str = "adamw"
    """adamw, adam (no decay), rmsprop (no decay), sgd (with momentum)."""
    learning_rate: float = 1e-3
    """Peak learning rate of everything but pretrained branches."""
    pretrained_rate: float = 0.05
    """Pretrained branches (bert, networks, towers of another run) learn at this multiple of the learning rate."""
    schedule: str = "linear"
    """After the warm-up: linear or cosine (both to 0), or constant."""
    warmup: float = 0.1
    """Share of all updates in which the rate rises from 0; after it, it follows the schedule."""
    momentum: float = 0.9
    """Share of its last step that sgd adds to the next."""
    weight_decay: float = 0.01
    """Decoupled decay of adamw and sgd (not on biases, norms and embeddings' scale)."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to."""
    loss: str = "cross_entropy"
    """cross_entropy, or focal (Lin 2017)."""
    focal_gamma: float = 2.0
    """How fast focal's weight falls as the true class grows probable; 0 is cross-entropy."""
    label_smoothing: float = 0.0
    """Share of each target spread over all classes (Szegedy 2016); only with cross_entropy."""
    class_weights: str = "none"
    """none, or balanced (weight of a class inverse to its frequency)."""
    logit_adjustment: float = 0.0
    """Training adds this times log(class frequency) to the logits (Menon 2021); the model gives plain ones. 0: off."""
    auxiliary_weight: float = 0.0
    """Weight of the mean of the towers' own losses, by linear heads that only training has; needs several. 0: off."""
    ema: float = 0.0
    """Evaluate and keep an exponential moving average of the weights, with this momentum after a start; 0: off."""
    precision: str = "float32"
    """float32, bfloat16 (mixed), or auto (bfloat16 where it gains)."""
    cache_features: bool = True
    """Compute the outputs of frozen networks once, keep them in the cache, and read them in place of the networks."""
    freeze_epochs: int = 0
    """First epochs in which those pretrained branches stay frozen."""
    patience: int = 4
    """Stop after so many epochs without a better validation weighted F1."""
    steps_per_epoch: int = 0
    """End an epoch after so many updates; 0: the whole split."""
    seed: int = 0
    """Seed of weights, dropout, order and augmentation."""
    deterministic: bool = False
    """Repeat bit for bit (TensorFlow's op determinism; slower)."""
    threads: int = 0
    """Processors that one operation is spread over, on which the last digits of a sum depend; 0: all there are."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        for name, table in NAMES.items():
            rules.one_of(f"train.{name}", getattr(self, name), table)
        for name in ("learning_rate", "clip_norm"):
            rules.number(f"train.{name}", getattr(self, name), 0, open_below=True)
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            rules.number(f"train.{name}", getattr(self, name), 1)
        for name in ("weight_decay", "focal_gamma", "logit_adjustment", "auxiliary_weight"):
            rules.number(f"train.{name}", getattr(self, name), 0)
        for name in ("freeze_epochs", "steps_per_epoch", "seed", "threads"):
            rules.number(f"train.{name}", getattr(self, name), 0)
        for name in ("pretrained_rate", "warmup"):
            rules.share(f"train.{name}", getattr(self, name), closed=True)
        for name in ("momentum", "label_smoothing", "ema"):
            rules.share(f"train.{name}", getattr(self, name))
        if self.seed >= 2**32:
            raise UserError(f"Invalid `train.seed`. Expected a number below 2**32. Received: {self.seed}.")
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuses an option that was changed (to another value than its default or 0) and would do nothing."""
        for field in dataclasses.fields(self):
            if field.name in EFFECTIVE and getattr(self, field.name) not in (field.default, 0):
                choice, names = EFFECTIVE[field.name]
                rules.acts(
                    f"train.{field.name}", getattr(self, field.name), f"train.{choice}", getattr(self, choice), names
                )
        if self.logit_adjustment and self.class_weights == "balanced":
            raise UserError(
                "Invalid `train.logit_adjustment`. Expected 0 with --train.class-weights balanced: both undo the "
                f"classes' frequencies, together they turn them round. Received: {self.logit_adjustment}."
            )


NAMES = {
    "loss": {name: loss.about for name, loss in LOSSES.items()},
    "class_weights": CLASS_WEIGHTS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}
"""The options of this part that take names, with their tables."""
