"""The whole configuration of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from emotion_tf.config import rules
from emotion_tf.config.face import FaceConfig
from emotion_tf.config.fusion import FusionConfig
from emotion_tf.config.text import TextConfig
from emotion_tf.config.train import TrainConfig
from emotion_tf.errors import UserError

TOWERS = {
    "text": "the text tower alone",
    "face": "the face tower alone",
    "both": "both, joined by the fusion",
}


@dataclass(frozen=True)
class Config:
    """Everything that makes a run what it is."""

    data: str = "tfrecords/demo"
    """Data set, as `prepare` wrote it."""
    towers: str = "both"
    """text, face, or both."""
    text: TextConfig = field(default_factory=TextConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Refuses what makes no sense together; each part has refused what makes none in itself."""
        rules.one_of("towers", self.towers, TOWERS)
        if self.fusion.modality_dropout and self.towers != "both":
            raise UserError(
                "Invalid `fusion.modality_dropout`. Expected 0 with one tower: without its only modality an utterance "
                f"teaches nothing. Received: {self.fusion.modality_dropout}."
            )
        if self.train.auxiliary_weight and self.towers != "both":
            raise UserError(
                "Invalid `train.auxiliary_weight`. Expected 0 with one tower: the loss on its logits is a loss on that "
                f"tower already. Received: {self.train.auxiliary_weight}."
            )

    @property
    def uses_text(self) -> bool:
        """Whether the model has a text tower."""
        return self.towers != "face"

    @property
    def uses_face(self) -> bool:
        """Whether the model has a face tower."""
        return self.towers != "text"

    @property
    def uses_bert(self) -> bool:
        """Whether the model has a BERT branch."""
        return self.uses_text and "bert" in self.text.branches
