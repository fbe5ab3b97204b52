"""Configuration of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.face import FaceConfig
from emotion_tf.config.fusion import FusionConfig
from emotion_tf.config.text import TextConfig
from emotion_tf.config.train import TrainConfig
from emotion_tf.errors import UserError
from emotion_tf.modalities import FACE, MODALITIES, TEXT, in_order


@dataclass(frozen=True)
class Config:
    """Configuration of a run: data set, towers, fusion and training."""

    data: Annotated[str, rules.value("DATASET")] = "tfrecords/demo"
    """Folder of the data set, written by `prepare`, or its URL in object storage."""
    towers: Annotated[tuple[str, ...], rules.names(MODALITIES, several=True)] = tuple(MODALITIES)
    """Towers of the model. The fusion joins several."""
    text: TextConfig = field(default_factory=TextConfig)
    face: FaceConfig = field(default_factory=FaceConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Raises UserError for values that exclude each other. Each section checks its own values."""
        rules.several_of("towers", self.towers, MODALITIES)
        rules.check_path("data", self.data)
        object.__setattr__(self, "towers", in_order(self.towers))  # the order of the model, whatever was typed
        if self.fusion.modality_dropout and len(self.towers) == 1:
            raise UserError(
                "Invalid `fusion.modality_dropout`. Expected 0 with one tower, whose only modality cannot be dropped. "
                f"Received: {self.fusion.modality_dropout}."
            )
        if self.train.auxiliary_weight and len(self.towers) == 1:
            raise UserError(
                "Invalid `train.auxiliary_weight`. Expected 0 with one tower, whose own loss is the loss of the model. "
                f"Received: {self.train.auxiliary_weight}."
            )

    @property
    def uses_text(self) -> bool:
        """Whether the model has a text tower."""
        return TEXT in self.towers

    @property
    def uses_face(self) -> bool:
        """Whether the model has a face tower."""
        return FACE in self.towers

    @property
    def uses_bert(self) -> bool:
        """Whether the model has a BERT branch."""
        return self.uses_text and "bert" in self.text.branches
