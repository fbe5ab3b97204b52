"""How a model is fitted."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError

CLASS_WEIGHTS = {
    "none": "each utterance counts by its own weight",
    "balanced": "inverse to the frequency of its class",
}


@dataclass(frozen=True)
class TrainConfig:
    """How the model is fitted."""

    epochs: int = 15
    """Most passes over the training split."""
    batch_size: int = 32
    """Utterances in a batch."""
    learning_rate: float = 1e-3
    """Peak learning rate of everything that starts from scratch."""
    pretrained_rate: float = 0.05
    """Pretrained branches learn at this multiple of the learning rate."""
    warmup: float = 0.1
    """Share of all steps in which the rate rises from 0; after it, it falls linearly to 0."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay (not on biases, norms and embeddings' scale)."""
    clip_norm: float = 1.0
    """Global norm that gradients are clipped to."""
    class_weights: str = "none"
    """none, or balanced (weight of a class inverse to its frequency)."""
    freeze_epochs: int = 0
    """First epochs in which pretrained branches stay frozen."""
    patience: int = 4
    """Stop after so many epochs without a better validation weighted F1."""
    steps_per_epoch: int = 0
    """End an epoch after so many batches; 0: the whole split."""
    seed: int = 0
    """Seed of weights, dropout, order and augmentation."""
    deterministic: bool = False
    """Repeat bit for bit (TensorFlow's op determinism; slower)."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.one_of("train.class_weights", self.class_weights, CLASS_WEIGHTS)
        for name in ("learning_rate", "clip_norm"):
            rules.number(f"train.{name}", getattr(self, name), 0, open_below=True)
        for name in ("epochs", "batch_size", "patience"):
            rules.number(f"train.{name}", getattr(self, name), 1)
        for name in ("weight_decay", "freeze_epochs", "steps_per_epoch", "seed"):
            rules.number(f"train.{name}", getattr(self, name), 0)
        for name in ("pretrained_rate", "warmup"):
            rules.share(f"train.{name}", getattr(self, name), closed=True)
        if self.seed >= 2**32:
            raise UserError(f"Invalid `train.seed`. Expected a number below 2**32. Received: {self.seed}.")
