"""The face tower: its parts and their sizes."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError

BRANCHES = {
    "resnet50": "ResNet50 of Keras Applications (He 2016)",
    "cnn": "small, for crops of 48-112 px",
}
WEIGHTS = {
    "imagenet": "as Keras publishes them; downloaded once",
    "none": "random",
}


@dataclass(frozen=True)
class FaceConfig:
    """The face tower: branches side by side, concatenated, then the mean over the real crops."""

    branches: tuple[str, ...] = ("cnn",)
    """Parts of the tower: resnet50 (Keras Applications), cnn (small, for crops of 48-112 px)."""
    weights: str = "imagenet"
    """Weights that resnet50 starts from: imagenet (downloaded by Keras) or none (random)."""
    train_backbone: bool = True
    """Train resnet50; false keeps its weights and statistics as they are."""
    cnn_filters: tuple[int, ...] = (16, 32, 64, 128)
    """Filters of the cnn, one stage (convolutions, then halving) each."""
    dropout: float = 0.2
    """Share of the branch outputs' units dropped in training."""
    augment: bool = True
    """Flip, turn, shift, zoom and relight the crops in training."""
    init: str = ""
    """Run whose trained face tower this one starts from, as a pretrained branch; empty: none."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.several_of("face.branches", self.branches, BRANCHES)
        rules.one_of("face.weights", self.weights, WEIGHTS)
        rules.share("face.dropout", self.dropout)
        for filters in self.cnn_filters:
            rules.number("face.cnn_filters", filters, 1)
        if not self.cnn_filters:
            raise UserError("Invalid `face.cnn_filters`. Expected at least one number of filters. Received: none.")
