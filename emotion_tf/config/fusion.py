"""How the towers are joined."""

from __future__ import annotations

from dataclasses import dataclass

from emotion_tf.config import rules
from emotion_tf.errors import UserError

KINDS = {
    "concat": "side by side",
    "sum": "the sum of both, brought to one width",
    "weighted": "late: a learned mean of each tower's own logits",
    "gated": "a gate for each number chooses between the towers (Arevalo 2017)",
    "lowrank": "low-rank bilinear (Liu 2018)",
    "cross_attention": "word pieces and words attend to crops, crops to them (Tsai 2019)",
}


@dataclass(frozen=True)
class FusionConfig:
    """How the towers are joined; then dropout, dense layers, logits."""

    kind: str = "concat"
    """How both towers become one vector (weighted: one set of logits)."""
    width: int = 128
    """Width that all but concat and weighted bring both towers to."""
    rank: int = 4
    """Rank of lowrank."""
    heads: int = 4
    """Heads of cross_attention; they share the width."""
    modality_dropout: float = 0.0
    """Share of utterances whose text, and whose face, training takes for absent; only with both towers."""
    dense_units: tuple[int, ...] = (128,)
    """Width of each dense layer after the towers are joined (weighted: of each tower's own); none: logits at once."""
    dropout: float = 0.3
    """Share of units dropped before each dense layer and before the logits."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.one_of("fusion.kind", self.kind, KINDS)
        rules.share("fusion.modality_dropout", self.modality_dropout)
        rules.share("fusion.dropout", self.dropout)
        for name in ("width", "rank", "heads"):
            rules.number(f"fusion.{name}", getattr(self, name), 1)
        for units in self.dense_units:
            rules.number("fusion.dense_units", units, 1)
        if self.kind == "cross_attention" and self.width % self.heads:
            raise UserError(
                f"Invalid `fusion.heads`. Expected a divisor of --fusion.width {self.width}. Received: {self.heads}."
            )
