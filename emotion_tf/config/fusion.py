"""How the towers are joined."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from emotion_tf.config import rules
from emotion_tf.errors import UserError

FUSIONS = Path(__file__).parents[1] / "models" / "fusions.py"


def _first_lines(source: str) -> dict[str, str]:
    """Returns the public functions of a module, each with the first line of its docstring.

    The source is parsed and not imported: importing it would start TensorFlow.
    """
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return {
        node.name: (ast.get_docstring(node) or "").split("\n")[0].rstrip(".")
        for node in functions
        if not node.name.startswith("_")
    }


KINDS = _first_lines(FUSIONS.read_text(encoding="utf-8"))
"""A fusion is one function in `models/fusions.py`: its name, and what it does."""


@dataclass(frozen=True)
class FusionConfig:
    """How the towers are joined; then dropout, dense layers, logits."""

    kind: str = "concat"
    """How the towers become one vector (weighted: one set of logits)."""
    width: int = 128
    """Width that all but concat and weighted bring the towers to."""
    rank: int = 4
    """Rank of lowrank."""
    heads: int = 4
    """Heads of cross_attention; they share the width."""
    modality_dropout: float = 0.0
    """Share of utterances whose text, and whose face, training takes for absent; only with several towers."""
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
