"""Configuration of the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError


@dataclass(frozen=True)
class Loss:
    """A loss, which is the function of the same name in `training/losses.py`.

    Attributes:
        about: description.
        options: argument of the function -> option of `--train` that sets it.
    """

    about: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class Optimizer:
    """An optimizer of Keras.

    Attributes:
        about: description.
        constructor: name in `keras.optimizers`.
        options: argument of the constructor -> option of `--train` that sets it.
    """

    about: str
    constructor: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


LOSSES = {
    "cross_entropy": Loss(
        "-log p of the true class, with --train.label-smoothing (Szegedy 2016)",
        {"smoothing": "label_smoothing"},
    ),
    "focal": Loss(
        "cross-entropy times (1 - p)^--train.focal-gamma, which down-weights easy examples (Lin 2017, without alpha)",
        {"gamma": "focal_gamma"},
    ),
}
OPTIMIZERS = {
    "adamw": Optimizer(
        "Adam with decoupled weight decay (Loshchilov and Hutter 2019)", "AdamW", {"weight_decay": "weight_decay"}
    ),
    "adam": Optimizer("adaptive moments, without weight decay (Kingma and Ba 2015)", "Adam"),
    "rmsprop": Optimizer(
        "gradients divided by the root of their mean square, without weight decay (Tieleman and Hinton 2012)", "RMSprop"
    ),
    "sgd": Optimizer(
        "gradient descent with --train.momentum (Polyak 1964) and decoupled weight decay",
        "SGD",
        {"momentum": "momentum", "weight_decay": "weight_decay"},
    ),
}
CLASS_WEIGHTS = {
    "none": "only the weights of the utterances count",
    "balanced": "inversely proportional to the class frequencies",
}
SCHEDULES = {
    "linear": "linear decay to 0 at the last step (Devlin 2019)",
    "cosine": "cosine decay to 0 at the last step (Loshchilov and Hutter 2017, without restarts)",
    "constant": "peak rate until the last step",
}
PRECISIONS = {
    "float32": "single precision",
    "bfloat16": "mixed precision: layers compute in bfloat16, weights and logits are float32 (Micikevicius 2018)",
    "auto": "bfloat16 where it is faster (NVIDIA Ampere and later; Keras Applications on a CPU with AMX; face towers "
    "of cnn, VGG or ResNet alone on a CPU with AVX512-BF16), else float32",
}


def _effective(choice: str, table: Mapping[str, Loss | Optimizer]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns the options of a table's rows: option -> (`choice`, the names of the rows that have it)."""
    options = dict.fromkeys(option for row in table.values() for option in row.options.values())
    return {
        option: (choice, tuple(name for name, row in table.items() if option in row.options.values()))
        for option in options
    }


EFFECTIVE = {**_effective("loss", LOSSES), **_effective("optimizer", OPTIMIZERS)}
"""Options with an effect for some choices only: option -> (the option that chooses, the choices)."""


@dataclass(frozen=True)
class TrainConfig:
    """The training: optimisation, loss, schedule, early stopping and reproducibility."""

    epochs: Annotated[int, Range(1, 100_000)] = 15
    """Maximum number of passes over the training split."""
    batch_size: Annotated[int, Range(1, 65_536)] = 32
    """Number of utterances per batch."""
    accumulate: Annotated[int, Range(1, 4096)] = 1
    """Number of batches whose gradients are accumulated for one update. Batch norm sees each batch by itself."""
    optimizer: Annotated[str, rules.names(OPTIMIZERS)] = "adamw"
    """Optimizer of Keras that updates the weights."""
    learning_rate: Annotated[float, Range(0, 1000, above=True)] = 1e-3
    """Peak learning rate of all but pretrained branches."""
    pretrained_rate: Annotated[float, rules.SHARE] = 0.05
    """Learning rate of pretrained branches and initialised towers, as a multiple of --train.learning-rate."""
    schedule: Annotated[str, rules.names(SCHEDULES)] = "linear"
    """Learning rate schedule after the warm-up."""
    warmup: Annotated[float, rules.SHARE] = 0.1
    """Share of the updates in which the learning rate rises linearly from 0 to its peak."""
    momentum: Annotated[float, rules.RATE] = 0.9
    """Momentum of sgd."""
    weight_decay: Annotated[float, Range(0, 1000)] = 0.01
    """Decoupled weight decay of adamw and sgd. Biases, norms and other vectors do not decay."""
    clip_norm: Annotated[float, Range(0, 1_000_000_000, above=True)] = 1.0
    """Maximum global norm of the gradients; larger ones are clipped."""
    loss: Annotated[str, rules.names(LOSSES)] = "cross_entropy"
    """Loss function on the logits."""
    focal_gamma: Annotated[float, Range(0, 100)] = 2.0
    """Focusing parameter of the focal loss: larger values down-weight easy examples more. 0 is cross-entropy."""
    label_smoothing: Annotated[float, rules.RATE] = 0.0
    """Label smoothing of cross_entropy: share of each target that is spread over all classes (Szegedy 2016)."""
    class_weights: Annotated[str, rules.names(CLASS_WEIGHTS)] = "none"
    """Weights of the classes in the loss."""
    logit_adjustment: Annotated[float, Range(0, 100)] = 0.0
    """Factor of log(class frequency), which training adds to the logits (Menon 2021). 0: none."""
    auxiliary_weight: Annotated[float, Range(0, 1000)] = 0.0
    """Weight of the auxiliary losses on linear heads of the towers, which only training has. Needs several towers."""
    ema: Annotated[float, rules.RATE] = 0.0
    """Momentum of the exponential moving average of the weights, which is evaluated and saved. 0: none."""
    precision: Annotated[str, rules.names(PRECISIONS)] = "float32"
    """Precision of the computation."""
    cache_features: bool = True
    """Compute the outputs of frozen networks once, and read them from the cache in later epochs and runs."""
    freeze_epochs: Annotated[int, Range(0, 100_000)] = 0
    """Number of initial epochs in which pretrained branches are frozen."""
    patience: Annotated[int, Range(1, 100_000)] = 4
    """Number of epochs without a better weighted F1 on dev after which training stops."""
    steps_per_epoch: Annotated[int, Range(0, 10_000_000)] = 0
    """Number of updates per epoch. 0: the whole split."""
    seed: Annotated[int, rules.SEED] = 0
    """Seed of initial weights, dropout, shuffling and augmentation."""
    deterministic: bool = False
    """Make training reproducible to the bit (TensorFlow's op determinism; slower)."""
    threads: Annotated[int, Range(0, 1024)] = 0
    """Number of threads of one operation; the last digits of sums depend on it. 0: one per processor."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        for name, table in NAMES.items():
            rules.one_of(f"train.{name}", getattr(self, name), table)
        rules.check_fields(self, "train")
        self._check_effects()

    def _check_effects(self) -> None:
        """Raises UserError for an option without effect, unless it is 0 or has its default."""
        for field in dataclasses.fields(self):
            if field.name in EFFECTIVE and getattr(self, field.name) not in (field.default, 0):
                option, names = EFFECTIVE[field.name]
                rules.effect_of_choice(
                    f"train.{field.name}", getattr(self, field.name), f"train.{option}", getattr(self, option), names
                )
        if self.logit_adjustment and self.class_weights == "balanced":
            raise UserError(
                "Invalid `train.logit_adjustment`. Expected 0 with --train.class-weights balanced: each of them "
                f"compensates for the class frequencies. Received: {self.logit_adjustment}."
            )


NAMES = {
    "loss": {name: loss.about for name, loss in LOSSES.items()},
    "class_weights": CLASS_WEIGHTS,
    "optimizer": {name: optimizer.about for name, optimizer in OPTIMIZERS.items()},
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
}
"""Options that take names -> names with their descriptions."""
