"""The utterances before and after an utterance, as a model reads them; the same code for training and serving."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from emotion_tf.data.tokenizer import WordPieceTokenizer, WordVocabulary


def format_line(speaker: str, utterance: str) -> str:
    """Returns `Speaker: utterance`, or the utterance alone without a speaker; empty for an empty utterance."""
    return f"{speaker}: {utterance}" if speaker and utterance else utterance


def format_lines(utterance: tf.Tensor, speaker: tf.Tensor) -> tf.Tensor:
    """`format_line` inside the graph, for two tensors string (N,). Returns string (N,)."""
    lines = tf.where(speaker == "", "", speaker + ": ") + utterance
    return tf.where(utterance == "", "", lines)


def format_ragged_lines(utterance: tf.RaggedTensor, speaker: tf.RaggedTensor) -> tf.RaggedTensor:
    """`format_lines` for two ragged tensors string (B, None)."""
    return utterance.with_flat_values(format_lines(utterance.flat_values, speaker.flat_values))


def previous_lines(rows: Sequence[tuple[str, str, str]], count: int) -> list[list[str]]:
    """Returns, for each row, the last `count` lines before it in its dialogue, oldest first.

    Empty utterances are skipped, as `nearest_lines` skips them.

    Args:
        rows: (dialogue, speaker, utterance), in order of speaking.
        count: largest number of lines.
    """
    lines_of: dict[str, list[str]] = {}
    previous = []
    for dialogue, speaker, utterance in rows:
        lines = lines_of.setdefault(dialogue, [])
        previous.append(lines[max(0, len(lines) - count) :])
        if utterance:
            lines.append(format_line(speaker, utterance))
    return previous


def nearest_lines(context: tf.RaggedTensor, count: int, past: bool) -> tf.RaggedTensor:
    """Returns the `count` lines nearest to the utterance, nearest first, string (B, None). Empty lines are skipped.

    Args:
        context: string (B, None), in order of speaking.
        count: largest number of lines.
        past: whether the lines precede the utterance.
    """
    context = tf.ragged.boolean_mask(context, context != "")
    return tf.reverse(context[:, -count:], [1]) if past else context[:, :count]


def context_pieces(context: tf.RaggedTensor, pieces: WordPieceTokenizer, limit: int) -> tf.RaggedTensor:
    """Returns the word pieces of lines, nearest first, and a final [SEP], int64 (B, None).

    The farthest lines are truncated so that the row has at most `limit` ids. A row without lines has no [SEP].
    """
    words = context.with_values(pieces.pieces(context.flat_values)).merge_dims(1, 2)[:, : limit - 1]
    ends = tf.cast(words.row_lengths() > 0, tf.int64)
    separators = tf.fill([tf.reduce_sum(ends)], tf.constant(pieces.sep_id, tf.int64))
    return tf.concat([words, tf.RaggedTensor.from_row_lengths(separators, ends)], axis=1)


def context_word_ids(context: tf.RaggedTensor, words: WordVocabulary, limit: int) -> tf.RaggedTensor:
    """Returns the word ids of lines, nearest first, at most `limit` of them, int64 (B, None)."""
    return context.with_values(words.ids(context.flat_values)).merge_dims(1, 2)[:, :limit]
