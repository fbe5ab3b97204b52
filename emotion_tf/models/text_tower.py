"""The text tower: concatenated branches that read the utterance, its context and its future."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.errors import UserError
from emotion_tf.modalities import TEXT
from emotion_tf.models.head import build_head, feature_input
from emotion_tf.models.hub_encoder import HubEncoder
from emotion_tf.models.layers import FirstSegmentMask, HasMoreThan
from emotion_tf.models.parameter_groups import PretrainedLayer, initialized_layers
from emotion_tf.models.pooling import TRAINED_POOLINGS, pool
from emotion_tf.models.tower import Tower
from emotion_tf.models.word_branches import BranchOutputs, WordBranches

POOLINGS = {"cls": "first"}  # name in the configuration -> name in `pool`
SPECIAL_TOKENS = 2  # [CLS] and [SEP], also of an empty utterance

Tensors = dict[str, keras.KerasTensor]


def build_text_tower(
    config: TextConfig,
    encoder: str | None,
    embedding_shape: tuple[int, int],
    modality_dropout: float = 0.0,
    sequences: bool = False,
    frequencies: Sequence[int] = (),
) -> Tower:
    """Builds the tower. Its inputs are those that the branches read: word pieces (B, L), word ids of the utterance
    (B, W), and word ids of context and future (B, V).

    BERT is a trunk. Its output is the pooled vector, or the sequence if the pooling is trained or the fusion reads the
    sequence. Text is present if there are word pieces besides [CLS] and [SEP] (without BERT: words), in the utterance,
    its context or its future.

    Args:
        config: the tower's configuration.
        encoder: path of the TF-Hub SavedModel for the bert branch.
        embedding_shape: rows (padding and unknown included) and width of the word embedding.
        modality_dropout: share of the rows whose text is dropped in training.
        sequences: whether the fusion reads the sequences of the branches.
        frequencies: number of occurrences of each word in the training split.

    Raises:
        UserError: the encoder has fewer positions than the configuration needs.
    """
    trunks: dict[str, keras.Model] = {}
    networks: list[PretrainedLayer] = []
    inputs: Tensors = {}
    branches: list[BranchOutputs] = []
    if "bert" in config.branches:
        to_sequence = sequences or config.pooling in TRAINED_POOLINGS
        bert = _bert(config, str(encoder))
        if config.train_encoder:
            networks.append(PretrainedLayer(bert, layer_decay=config.layer_decay))
        trunks["bert"] = _bert_trunk(bert, config, to_sequence)
        inputs |= _inputs(tuple(f for f in schema.TEXT_INPUTS if f.name in _mask_names(config, to_sequence)))
        inputs["bert"] = feature_input("bert", trunks["bert"])
        pooled = _pool_bert(inputs["bert"], inputs, config) if to_sequence else inputs["bert"]
        branches.append(BranchOutputs(pooled, inputs["bert"], inputs["input_mask"]))
    if set(config.branches) - {"bert"}:
        words = WordBranches(config, embedding_shape, frequencies)
        inputs |= _inputs(schema.WORD_INPUTS)
        branches += words(inputs["word_ids"])
        if config.context or config.future:
            inputs |= _inputs(schema.CONTEXT_INPUTS)
            branches += words(inputs["context_word_ids"])
    head = build_head(TEXT, inputs, branches, _present(inputs), config.dropout, modality_dropout, sequences)
    tower = Tower(trunks, head, "input_mask", name="text_tower")
    if config.init:
        networks = list(initialized_layers(tower.layers_by_name.values(), networks))
    tower.pretrained = tuple(networks) if config.train_tower else ()
    if not config.train_tower:
        tower.trainable = False  # True would also train frozen layers inside
    return tower


def _inputs(features: tuple[schema.Feature, ...]) -> Tensors:
    return {f.name: keras.Input(f.shape, dtype=f.dtype, name=f.name) for f in features}


def _mask_names(config: TextConfig, to_sequence: bool) -> tuple[str, ...]:
    """Returns the inputs of BERT that the head reads beside the trunk's output."""
    has_context = bool(config.context or config.future)
    return ("input_mask", "input_type_ids") if to_sequence and has_context else ("input_mask",)


def _present(inputs: Tensors) -> keras.KerasTensor:
    if "input_mask" in inputs:
        return HasMoreThan(SPECIAL_TOKENS, name="text_present")(inputs["input_mask"])
    ids = [inputs[name] for name in ("word_ids", "context_word_ids") if name in inputs]
    return HasMoreThan(0, name="text_present")(layers.Concatenate(name="all_words")(ids) if len(ids) > 1 else ids[0])


def _bert(config: TextConfig, encoder: str) -> HubEncoder:
    # the output of the pooler is not used, so its weights do not train
    frozen = ("embeddings", "pooler") if config.freeze_embeddings else ("pooler",)
    bert = HubEncoder(encoder, trainable=config.train_encoder, frozen=frozen, name="bert")
    longest = config.max_tokens + config.context_tokens * (bool(config.context) + bool(config.future))
    if bert.positions is not None and longest > bert.positions:
        raise UserError(
            f"The encoder {config.encoder} reads at most {bert.positions} word pieces. Received --text.max-tokens "
            f"{config.max_tokens} and --text.context-tokens {config.context_tokens}: {longest} together."
        )
    return bert


def _bert_trunk(bert: HubEncoder, config: TextConfig, to_sequence: bool) -> keras.Model:
    inputs = _inputs(schema.TEXT_INPUTS)
    sequence = bert(dict(inputs))["sequence_output"]
    return keras.Model(inputs, sequence if to_sequence else _pool_bert(sequence, inputs, config), name="bert_trunk")


def _pool_bert(sequence: keras.KerasTensor, inputs: Tensors, config: TextConfig) -> keras.KerasTensor:
    mask = inputs["input_mask"]
    if config.context or config.future:
        # the utterance's tokens attend to its context; a mean over all tokens would mostly be that of the context
        mask = FirstSegmentMask(name="bert_utterance")([mask, inputs["input_type_ids"]])
    return pool(sequence, mask, POOLINGS.get(config.pooling, config.pooling), "bert")
