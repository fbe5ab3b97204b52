"""The text tower: branches side by side, concatenated; each reads the utterance, and what was said around it."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.errors import UserError
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FirstSegment, HasMore, Keep, OrAbsent
from emotion_tf.models.pooling import pool
from emotion_tf.models.tower import tower
from emotion_tf.models.word_branches import Read, WordBranches

POOLINGS = {"cls": "first"}  # a name of the configuration that `pool` knows by another


def build_text_tower(
    config: TextConfig, encoder: str | None, words: int, drop: float = 0.0, sequences: bool = False
) -> keras.Model:
    """Utterance -> text_embedding.

    Args:
        config: the tower's configuration.
        encoder: path of the TF-Hub SavedModel for the bert branch.
        words: rows of the word embedding (padding and unknown included).
        drop: share of utterances that training takes for absent.
        sequences: give the branches' sequences too, as `tower_outputs` reads them.

    Returns:
        Model from {input_word_ids, input_mask, input_type_ids (B, L), word_ids (B, W), context_word_ids (B, V)}, as
        far as its branches read them, to text_embedding (B, D); a learned vector where there is no text at all.

    Raises:
        UserError: the encoder reads fewer word pieces than the configuration gives it.
    """
    inputs: dict[str, keras.KerasTensor] = {}
    reads: list[Read] = []
    if "bert" in config.branches:
        inputs |= _inputs(schema.TEXT_INPUTS)
        reads.append(_bert(inputs, config, str(encoder)))
    if set(config.branches) - {"bert"}:
        branches = WordBranches(config, words)
        inputs |= _inputs(schema.WORD_INPUTS)
        reads += branches(inputs["word_ids"])
        if config.context or config.future:
            inputs |= _inputs(schema.CONTEXT_INPUTS)
            reads += branches(inputs["context_word_ids"])
    pooled = [read.pooled for read in reads]
    joined = layers.Concatenate(name="text_concat")(pooled) if len(pooled) > 1 else pooled[0]
    present = Keep(drop, name="keep_text")(_present(inputs))
    embedding = layers.Dropout(config.dropout, name="text_embedding")(OrAbsent(name="no_text")([joined, present]))
    return tower(inputs, embedding, present, [(read.sequence, read.mask) for read in reads], sequences, "text_tower")


def _present(inputs: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
    """Whether there is a text at all: an utterance, or what was said around it."""
    if "input_mask" in inputs:
        return HasMore(2, name="has_text")(inputs["input_mask"])  # [CLS] and [SEP] are always there
    said = [inputs[name] for name in ("word_ids", "context_word_ids") if name in inputs]
    return HasMore(0, name="has_text")(layers.Concatenate(name="all_words")(said) if len(said) > 1 else said[0])


def _inputs(features: tuple[schema.Feature, ...]) -> dict[str, keras.KerasTensor]:
    return {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in features}


def _bert(inputs: dict[str, keras.KerasTensor], config: TextConfig, encoder: str) -> Read:
    # its pooler is never asked, so it is not counted as trained either
    frozen = ("embeddings", "pooler") if config.freeze_embeddings else ("pooler",)
    bert = HubEncoder(encoder, trainable=config.train_encoder, frozen=frozen, name="bert")
    longest = config.max_tokens + config.context_tokens * (bool(config.context) + bool(config.future))
    if bert.positions is not None and longest > bert.positions:
        raise UserError(
            f"The encoder {config.encoder} reads at most {bert.positions} word pieces. Received --text.max-tokens "
            f"{config.max_tokens} and --text.context-tokens {config.context_tokens}: {longest} together."
        )
    sequence = bert({f.name: inputs[f.name] for f in schema.TEXT_INPUTS})["sequence_output"]
    mask = said = inputs["input_mask"]
    if config.context or config.future:
        # the tokens of the utterance have looked at its context; a mean over both would be mostly the context's
        said = FirstSegment(name="bert_utterance")([mask, inputs["input_type_ids"]])
    return Read(pool(sequence, said, POOLINGS.get(config.pooling, config.pooling), "bert"), sequence, mask)
