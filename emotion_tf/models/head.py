"""The head of a tower: from the outputs of its branches to its embedding."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from emotion_tf.models.layers import MaskWherePresent, MissingEmbedding, ModalityDropout
from emotion_tf.models.word_branches import BranchOutputs

Tensors = dict[str, keras.KerasTensor]


def build_head(
    modality: str,
    inputs: Tensors,
    branches: Sequence[BranchOutputs],
    present: keras.KerasTensor,
    dropout: float,
    modality_dropout: float,
    sequences: bool,
) -> keras.Model:
    """Builds the head: concatenated branches, a learned vector for rows without the modality, dropout.

    Args:
        modality: name of the modality, prefix of the layer names.
        inputs: the inputs of `branches` and `present`: outputs of trunks, and raw inputs.
        branches: pooled (B, D_i), and sequences.
        present: bool (B,), whether a row has the modality.
        dropout: share of the embedding's units dropped in training.
        modality_dropout: share of the rows whose modality is dropped in training.
        sequences: whether the branches' sequences are outputs, too.

    Returns:
        Functional model to the outputs of `Tower`.
    """
    pooled = [branch.pooled for branch in branches]
    joined = layers.Concatenate(name=f"{modality}_concat")(pooled) if len(pooled) > 1 else pooled[0]
    available = ModalityDropout(modality_dropout, name=f"{modality}_modality_dropout")(present)
    drop = layers.Dropout(dropout, name=f"{modality}_embedding")
    outputs = {
        "embedding": drop(MissingEmbedding(name=f"{modality}_missing")([joined, available])),
        "present": present,
    }
    for i, branch in enumerate(branches if sequences else ()):
        mask = MaskWherePresent(name=f"{modality}_mask_{i}")([branch.mask, available])
        outputs |= {f"sequence_{i}": branch.sequence, f"mask_{i}": mask}
    return keras.Model(inputs, outputs, name=f"{modality}_head")


def feature_input(name: str, trunk: keras.Model) -> keras.KerasTensor:
    """Returns the input of a head for the output of a trunk."""
    return keras.Input(trunk.output.shape[1:], dtype=trunk.output.dtype, name=name)
