"""The utterances around one: what a model reads beside the utterance itself, in training and served alike."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary


def line(speaker: str, utterance: str) -> str:
    """An utterance of the context as a model is given it: `Speaker: utterance`, or without a speaker the utterance."""
    return f"{speaker}: {utterance}" if speaker and utterance else utterance


def line_of(utterance: tf.Tensor, speaker: tf.Tensor) -> tf.Tensor:
    """`line` of each in the graph: two of string (N,) -> string (N,)."""
    said = tf.where(speaker == "", "", speaker + ": ") + utterance
    return tf.where(utterance == "", "", said)


def lines(utterance: tf.RaggedTensor, speaker: tf.RaggedTensor) -> tf.RaggedTensor:
    """The same of two of string (B, None)."""
    return utterance.with_flat_values(line_of(utterance.flat_values, speaker.flat_values))


def before(rows: Sequence[tuple[str, str, str]], count: int) -> list[list[str]]:
    """The at most `count` lines before each of (dialogue, speaker, utterance), oldest first, of the same dialogue.

    An empty utterance is no line: as `nearest` has it.
    """
    past: dict[str, list[str]] = {}
    found = []
    for dialogue, speaker, utterance in rows:
        said = past.setdefault(dialogue, [])
        found.append(said[max(0, len(said) - count) :])
        if utterance:
            said.append(line(speaker, utterance))
    return found


def nearest(context: tf.RaggedTensor, count: int, past: bool) -> tf.RaggedTensor:
    """The `count` lines nearest to the utterance, nearest first, without empty ones: string (B, None).

    Args:
        context: string (B, None) in order of speaking; empty: no line.
        count: how many.
        past: whether the lines come before the utterance.
    """
    context = tf.ragged.boolean_mask(context, context != "")
    return tf.reverse(context[:, -count:], [1]) if past else context[:, :count]


def segment(context: tf.RaggedTensor, pieces: WordPieceTokenizer, limit: int) -> tf.RaggedTensor:
    """Word pieces of lines, nearest first, cut to `limit` with the [SEP] that ends them: int64 (B, None).

    What is cut is the end of the farthest; a row without a line has no [SEP] either.
    """
    words = context.with_values(pieces.pieces(context.flat_values)).merge_dims(1, 2)[:, : limit - 1]
    ends = tf.cast(words.row_lengths() > 0, tf.int64)
    separators = tf.fill([tf.reduce_sum(ends)], tf.constant(pieces.sep_id, tf.int64))
    return tf.concat([words, tf.RaggedTensor.from_row_lengths(separators, ends)], axis=1)


def word_ids(context: tf.RaggedTensor, words: WordVocabulary, limit: int) -> tf.RaggedTensor:
    """Word ids of lines, nearest first, at most `limit`: int64 (B, None)."""
    return context.with_values(words.ids(context.flat_values)).merge_dims(1, 2)[:, :limit]
