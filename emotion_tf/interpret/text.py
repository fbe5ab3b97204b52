"""What the words of an utterance do for a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from emotion_tf.interpret.batch import FACE, TEXT, Batch, scores
from emotion_tf.interpret.gradients import embedding_line
from emotion_tf.interpret.integrated_gradients import MAX_STEPS, Integral, Path, integrate
from emotion_tf.interpret.kinds import Completeness, Strip
from emotion_tf.interpret.words import Positions, Span, piece_positions, spans, without, word_positions

PATH_ROWS = 128
TITLES = {
    "gradients": "integrated gradients at the word embedding",
    "occlusion": "occlusion: what the score loses without the word",
    "contextual": "contextual: integrated gradients at BERT's output, where each position has looked at all others",
    "pooling": "weights of the attention pooling (shares, contextual)",
    "attention": "BERT's own attention, rolled out through its layers (shares)",
}


@dataclass(frozen=True)
class Text:
    """The texts of one utterance: itself, then the lines before it, nearest first; and their words."""

    lines: tuple[str, ...]
    spans: tuple[Span, ...]


def texts(batch: Batch) -> list[Text]:
    """The texts of each utterance."""
    found = []
    for one in batch.utterances:
        lines = (one.text, *reversed(one.context))
        found.append(Text(lines, tuple(spans(lines))))
    return found


def strips(batch: Batch, max_steps: int = MAX_STEPS) -> list[list[Strip]]:
    """The strips of each utterance, the headline first; of one without any word none.

    Where BERT is read the headline is occlusion: its module is called with ids, and hides its embeddings.

    Args:
        batch: the utterances.
        max_steps: of integrated gradients.
    """
    if TEXT not in batch.towers:
        return [[] for _ in batch.utterances]
    read = texts(batch)
    found = [headline(batch, read, max_steps)]
    if "bert" in batch.layers:
        if "word_embedding" in batch.layers:
            found.append(word_gradients(batch, read, max_steps))
        found += [
            contextual_gradients(batch, read, max_steps),
            pooling_weights(batch, read),
            own_attention(batch, read),
        ]
    return [[each[n] for each in found if each] if text.spans else [] for n, text in enumerate(read)]


def headline(batch: Batch, read: Sequence[Text], max_steps: int = MAX_STEPS) -> list[Strip]:
    """The strip to look at first, of each utterance."""
    return occlusion(batch, read) if "bert" in batch.layers else word_gradients(batch, read, max_steps)


def occlusion(batch: Batch, read: Sequence[Text]) -> list[Strip]:
    """Score with the text minus score without the word, of each word (Zeiler 2014, section 4.2, for words Li 2016,
    "Understanding Neural Networks through Representation Erasure")."""
    rows, changed = [], []
    for n, text in enumerate(read):
        for span in text.spans:
            lines = list(text.lines)
            lines[span.line] = without(lines[span.line], [span])
            rows.append(n)
            changed.append(lines)
    owner = np.array(rows, int)
    logits = batch.logits_of_texts([lines[0] for lines in changed], [lines[:0:-1] for lines in changed], owner)
    before = np.asarray(scores(batch.logits, batch.target))
    lost = before[owner] - np.asarray(scores(logits, batch.target[owner]))
    return [_strip("occlusion", text, lost[owner == n], np.ones(len(text.spans), bool)) for n, text in enumerate(read)]


def word_gradients(batch: Batch, read: Sequence[Text], max_steps: int = MAX_STEPS) -> list[Strip]:
    """Integrated gradients at the word embedding, from vectors of zeros: sums over the width of the embedding."""
    layer, owner = batch.layers["word_embedding"], np.arange(len(batch.utterances))
    lines = [embedding_line(layer, output) for output in batch.activations["word_embedding"]]
    found = integrate(Path(batch, lines, [owner] * len(lines), (FACE, "bert"), PATH_ROWS), max_steps)
    made = []
    for n, text in enumerate(read):
        values, seen, rest = np.zeros(len(text.spans)), np.zeros(len(text.spans), bool), 0.0
        positions = word_positions(text.spans, batch.scorer.run.config.text)
        for call, name in zip(found.values, batch.scorer.embedded, strict=True):
            own, other, has_read = positions[name].sums(call[n].sum(axis=-1))
            values, seen, rest = values + own, seen | has_read, rest + other
        made.append(_strip("gradients", text, values, seen, rest, completeness=_completeness(found, n)))
    return made


def contextual_gradients(batch: Batch, read: Sequence[Text], max_steps: int = MAX_STEPS) -> list[Strip]:
    """Integrated gradients at BERT's `sequence_output`, from vectors of zeros."""
    (output,) = batch.activations["bert"]
    line, owner = embedding_line(batch.layers["bert"], output), np.arange(len(batch.utterances))
    found = integrate(Path(batch, [line], [owner], (FACE,), PATH_ROWS), max_steps)
    return [
        _by_piece("contextual", batch, text, found.values[0][n].sum(axis=-1), completeness=_completeness(found, n))
        for n, text in enumerate(read)
    ]


def pooling_weights(batch: Batch, read: Sequence[Text]) -> list[Strip]:
    """The weights (B, L) that attention pooling gave the word pieces; nothing where the tower pools otherwise."""
    if "bert_attention" not in batch.layers:
        return []
    weights = np.asarray(tf.cast(batch.activations["bert_attention"][0], tf.float32))
    return [_by_piece("pooling", batch, text, weights[n], signed=False) for n, text in enumerate(read)]


def own_attention(batch: Batch, read: Sequence[Text]) -> list[Strip]:
    """How much the utterance's positions look at each other position through all of BERT's layers.

    Attention rollout (Abnar 2020, "Quantifying Attention Flow in Transformers", section 3); nothing from a module that
    does not give its attention.
    """
    attention = batch.layers["bert"].attention(batch.inputs)
    if attention is None:
        return []
    mask, types = (np.asarray(batch.inputs[name]) for name in ("input_mask", "input_type_ids"))
    looked = rollout(np.asarray(attention))
    own = (mask * (types == 0)).astype(np.float32)
    seen = np.einsum("bq,bqk->bk", own / np.maximum(own.sum(axis=1, keepdims=True), 1), looked)
    return [_by_piece("attention", batch, text, seen[n], signed=False) for n, text in enumerate(read)]


def rollout(attention: np.ndarray) -> np.ndarray:
    """Attention of each layer (N, B, L, L), rows sum to 1, to that through all of them (B, L, L).

    Half of each layer's is the residual connection.
    """
    through = np.broadcast_to(np.eye(attention.shape[-1], dtype=attention.dtype), attention.shape[1:])
    for layer in attention:
        through = (0.5 * layer + 0.5 * np.eye(layer.shape[-1], dtype=layer.dtype)) @ through
    return through


def _by_piece(
    key: str,
    batch: Batch,
    text: Text,
    values: np.ndarray,
    signed: bool = True,
    completeness: Completeness | None = None,
) -> Strip:
    where: Positions = piece_positions(text.lines, text.spans, batch.scorer.preprocess)
    own, rest, seen = where.sums(values)
    return _strip(key, text, own, seen, rest, signed, completeness)


def _strip(
    key: str,
    text: Text,
    values: np.ndarray,
    read: np.ndarray,
    rest: float = 0.0,
    signed: bool = True,
    completeness: Completeness | None = None,
) -> Strip:
    return Strip(key, TITLES[key], text.lines, text.spans, values, read, rest, signed, completeness)


def _completeness(found: Integral, n: int) -> Completeness:
    return Completeness(float(found.total[n]), float(found.delta[n]), int(found.steps[n]), bool(found.complete[n]))
