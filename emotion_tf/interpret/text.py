"""Attributions of the words of an utterance and its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from emotion_tf.interpret.batch import FACE, TEXT, Batch, scores
from emotion_tf.interpret.explanation import Completeness, WordAttributions
from emotion_tf.interpret.gradients import embedding_line
from emotion_tf.interpret.integrated_gradients import MAX_STEPS, Path, integrate
from emotion_tf.interpret.words import Span, piece_positions, remove_words, word_positions, word_spans

PATH_ROWS = 128
TITLES = {
    "gradients": "integrated gradients at the word embedding",
    "occlusion": "occlusion, the loss of the score without the word",
    "contextual": "integrated gradients at BERT's output (contextual: each position has seen all others)",
    "pooling": "weights of the attention pooling (shares, contextual)",
    "attention": "attention rollout through BERT's layers (shares)",
}


@dataclass(frozen=True)
class Text:
    """The lines of an utterance (itself, then its context, nearest line first) and their words."""

    lines: tuple[str, ...]
    spans: tuple[Span, ...]


def split_texts(batch: Batch) -> list[Text]:
    """Splits the lines of each utterance into words."""
    lines = [(utterance.text, *reversed(utterance.context)) for utterance in batch.utterances]
    return [Text(of_row, tuple(word_spans(of_row))) for of_row in lines]


def word_attributions(batch: Batch, max_steps: int = MAX_STEPS) -> list[list[WordAttributions]]:
    """Returns the attributions of each utterance, the headline first; none without a word.

    With a BERT branch the headline is occlusion, because BERT's SavedModel hides its embeddings.

    Args:
        batch: the utterances.
        max_steps: maximum number of steps of integrated gradients.
    """
    if TEXT not in batch.towers:
        return [[] for _ in batch.utterances]
    texts = split_texts(batch)
    methods = [headline_attributions(batch, texts, max_steps)]
    if "bert" in batch.layers:
        if "word_embedding" in batch.layers:
            methods.append(word_gradients(batch, texts, max_steps))
        methods.append(contextual_gradients(batch, texts, max_steps))
        methods += [pooling_weights(batch, texts), attention_rollout(batch, texts)]
    return [[method[n] for method in methods if method] if text.spans else [] for n, text in enumerate(texts)]


def headline_attributions(batch: Batch, texts: Sequence[Text], max_steps: int = MAX_STEPS) -> list[WordAttributions]:
    """Returns the headline attributions of each utterance."""
    return occlusion(batch, texts) if "bert" in batch.layers else word_gradients(batch, texts, max_steps)


def occlusion(batch: Batch, texts: Sequence[Text]) -> list[WordAttributions]:
    """Returns the score with the text minus the score without the word, for each word.

    Zeiler 2014, section 4.2; for words Li 2016, "Understanding Neural Networks through Representation Erasure".
    """
    rows, changed = [], []
    for n, text in enumerate(texts):
        for span in text.spans:
            lines = list(text.lines)
            lines[span.line] = remove_words(lines[span.line], [span])
            rows.append(n)
            changed.append(lines)
    owner = np.array(rows, int)
    logits = batch.logits_of_texts([lines[0] for lines in changed], [lines[:0:-1] for lines in changed], owner)
    score = np.asarray(scores(batch.logits, batch.target))
    loss = score[owner] - np.asarray(scores(logits, batch.target[owner]))
    return [_make("occlusion", text, loss[owner == n], np.ones(len(text.spans), bool)) for n, text in enumerate(texts)]


def word_gradients(batch: Batch, texts: Sequence[Text], max_steps: int = MAX_STEPS) -> list[WordAttributions]:
    """Returns integrated gradients at the word embedding from zeros, summed over the width of the embedding."""
    layer, owner = batch.layers["word_embedding"], np.arange(len(batch.utterances))
    lines = [embedding_line(layer, output) for output in batch.activations["word_embedding"]]
    integral = integrate(Path(batch, lines, [owner] * len(lines), (FACE, "bert"), PATH_ROWS), max_steps)
    attributions = []
    for n, text in enumerate(texts):
        values, read, rest = np.zeros(len(text.spans)), np.zeros(len(text.spans), bool), 0.0
        positions = word_positions(text.spans, batch.scorer.run.config.text)
        for of_line, name in zip(integral.values, batch.scorer.embedded_inputs, strict=True):
            sums, others, is_read = positions[name].sum_by_word(of_line[n].sum(axis=-1))
            values, read, rest = values + sums, read | is_read, rest + others
        attributions.append(_make("gradients", text, values, read, rest, completeness=integral.completeness(n)))
    return attributions


def contextual_gradients(batch: Batch, texts: Sequence[Text], max_steps: int = MAX_STEPS) -> list[WordAttributions]:
    """Returns integrated gradients at BERT's `sequence_output` from zeros."""
    (output,) = batch.activations["bert"]
    line, owner = embedding_line(batch.layers["bert"], output), np.arange(len(batch.utterances))
    integral = integrate(Path(batch, [line], [owner], (FACE,), PATH_ROWS), max_steps)
    values = integral.values[0].sum(axis=-1)
    return [
        _sum_pieces("contextual", batch, text, values[n], completeness=integral.completeness(n))
        for n, text in enumerate(texts)
    ]


def pooling_weights(batch: Batch, texts: Sequence[Text]) -> list[WordAttributions]:
    """Returns the weights of attention pooling over the word pieces; nothing if the tower has another pooling."""
    if "bert_attention" not in batch.layers:
        return []
    weights = np.asarray(tf.cast(batch.activations["bert_attention"][0], tf.float32))
    return [_sum_pieces("pooling", batch, text, weights[n], signed=False) for n, text in enumerate(texts)]


def attention_rollout(batch: Batch, texts: Sequence[Text]) -> list[WordAttributions]:
    """Returns the attention of the utterance's positions to each word, through all of BERT's layers.

    Attention rollout (Abnar 2020, "Quantifying Attention Flow in Transformers", section 3); nothing if the module does
    not return its attention.
    """
    attention = batch.layers["bert"].attention(batch.inputs)
    if attention is None:
        return []
    mask, types = (np.asarray(batch.inputs[name]) for name in ("input_mask", "input_type_ids"))
    total = rollout(np.asarray(attention))
    own = (mask * (types == 0)).astype(np.float32)  # positions of the utterance
    mean = np.einsum("bq,bqk->bk", own / np.maximum(own.sum(axis=1, keepdims=True), 1), total)
    return [_sum_pieces("attention", batch, text, mean[n], signed=False) for n, text in enumerate(texts)]


def rollout(attention: np.ndarray) -> np.ndarray:
    """Combines the attention of each layer (N, B, L, L), whose rows sum to 1, into that through all layers (B, L, L).

    The residual connection counts as half of each layer.
    """
    total = np.broadcast_to(np.eye(attention.shape[-1], dtype=attention.dtype), attention.shape[1:])
    for layer in attention:
        total = (0.5 * layer + 0.5 * np.eye(layer.shape[-1], dtype=layer.dtype)) @ total
    return total


def _sum_pieces(
    key: str,
    batch: Batch,
    text: Text,
    values: np.ndarray,
    signed: bool = True,
    completeness: Completeness | None = None,
) -> WordAttributions:
    positions = piece_positions(text.lines, text.spans, batch.scorer.preprocess)
    sums, rest, read = positions.sum_by_word(values)
    return _make(key, text, sums, read, rest, signed, completeness)


def _make(
    key: str,
    text: Text,
    values: np.ndarray,
    read: np.ndarray,
    rest: float = 0.0,
    signed: bool = True,
    completeness: Completeness | None = None,
) -> WordAttributions:
    return WordAttributions(key, TITLES[key], text.lines, text.spans, values, read, rest, signed, completeness)
