"""Configuration of the fusion."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from emotion_tf.config import rules
from emotion_tf.config.rules import Range
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
"""Fusion -> description. A fusion is one public function of `models/fusions.py`; its docstring describes it."""


@dataclass(frozen=True)
class FusionConfig:
    """The fusion of the towers, and the dense layers from it to the logits."""

    kind: Annotated[str, rules.names(KINDS)] = "concat"
    """Fusion of the towers' embeddings to one vector (weighted: of their logits)."""
    width: Annotated[int, Range(1, 4096)] = 128
    """Dimension to which the embeddings are projected before the fusion (all kinds but concat and weighted)."""
    rank: Annotated[int, Range(1, 256)] = 4
    """Rank of the lowrank fusion."""
    heads: Annotated[int, Range(1, 256)] = 4
    """Number of attention heads of cross_attention. A divisor of the width."""
    modality_dropout: Annotated[float, rules.RATE] = 0.0
    """Probability of dropping each modality of an utterance in training. Needs several towers."""
    dense_units: Annotated[tuple[int, ...], Range(1, 8192)] = (128,)
    """Units of each dense layer after the fusion (weighted: after each tower). Empty: none."""
    dropout: Annotated[float, rules.RATE] = 0.3
    """Dropout rate before each dense layer and before the logits."""

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.one_of("fusion.kind", self.kind, KINDS)
        rules.check_fields(self, "fusion")
        if self.kind == "cross_attention" and self.width % self.heads:
            raise UserError(
                f"Invalid `fusion.heads`. Expected a divisor of --fusion.width {self.width}. Received: {self.heads}."
            )
