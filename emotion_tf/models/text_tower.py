"""The text tower: branches side by side, concatenated."""

from __future__ import annotations

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FirstToken, HasMore, MaskedMean, OrAbsent


def build_text_tower(config: TextConfig, encoder: str | None, words: int, drop: float = 0.0) -> keras.Model:
    """Utterance -> text_embedding.

    Args:
        config: the tower's configuration.
        encoder: path of the TF-Hub SavedModel for the bert branch.
        words: rows of the word embedding (padding and unknown included).
        drop: share of utterances that training takes for absent.

    Returns:
        Model from {input_word_ids, input_mask, input_type_ids (B, L), word_ids (B, W)}, as far as its branches
        read them, to text_embedding (B, D); a learned vector for an empty utterance.
    """
    inputs: dict[str, keras.KerasTensor] = {}
    outputs = []
    for branch in config.branches:
        if branch == "bert":
            inputs |= _inputs(schema.TEXT_INPUTS)
            outputs.append(_bert(inputs, config, str(encoder)))
        else:
            inputs |= _inputs(schema.WORD_INPUTS)
            outputs.append(_gru(inputs["word_ids"], config, words))
    joined = layers.Concatenate(name="text_concat")(outputs) if len(outputs) > 1 else outputs[0]
    embedding = layers.Dropout(config.dropout, name="text_embedding")(
        OrAbsent(drop, name="no_text")([joined, _present(inputs)])
    )
    return keras.Model(inputs, embedding, name="text_tower")


def _present(inputs: dict[str, keras.KerasTensor]) -> keras.KerasTensor:
    """Whether there is a text at all."""
    if "input_mask" in inputs:
        return HasMore(2, name="has_text")(inputs["input_mask"])  # [CLS] and [SEP] are always there
    return HasMore(0, name="has_text")(inputs["word_ids"])


def _inputs(features: tuple[schema.Feature, ...]) -> dict[str, keras.KerasTensor]:
    return {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in features}


def _bert(inputs: dict[str, keras.KerasTensor], config: TextConfig, encoder: str) -> keras.KerasTensor:
    features = {f.name: inputs[f.name] for f in schema.TEXT_INPUTS}
    sequence = HubEncoder(encoder, trainable=config.train_encoder, name="bert")(features)["sequence_output"]
    if config.pooling == "cls":
        return FirstToken(name="bert_cls")(sequence)
    return MaskedMean(name="bert_mean")([sequence, inputs["input_mask"]])


def _gru(word_ids: keras.KerasTensor, config: TextConfig, words: int) -> keras.KerasTensor:
    x = layers.Embedding(words, config.word_dim, mask_zero=True, name="word_embedding")(word_ids)
    x = layers.Dropout(config.dropout, name="word_dropout")(x)
    return layers.Bidirectional(layers.GRU(config.gru_units), name="gru")(x)
