"""Words of a text, and sums over the positions of a model's input (words, word pieces) that belong to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import split_words


@dataclass(frozen=True)
class Span:
    """A word of a text: line, and first and last (exclusive) character."""

    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Positions:
    """The words that the positions of a model's input belong to.

    Attributes:
        word: int (L,), index into the spans; -1 for no word, such as [CLS].
        words: number of spans.
    """

    word: np.ndarray
    words: int

    def sum_by_word(self, values: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Sums values (L',) by word; L' may be less than L, or more by padding.

        Returns:
            The sum of each word, the sum of all other positions, and whether the model reads each word.
        """
        word = self.word[: len(values)]
        sums = np.zeros(self.words)
        np.add.at(sums, word[word >= 0], values[: len(word)][word >= 0])
        return sums, float(values.sum() - sums.sum()), np.isin(np.arange(self.words), word)


def word_spans(lines: Sequence[str]) -> list[Span]:
    """Returns the words of texts as the model's own splitter finds them, as spans of the original strings."""
    return [
        Span(n, start, end)
        for n, (line, tokens) in enumerate(zip(lines, _tokens(lines), strict=True))
        for start, end in _locate(line, tokens)
    ]


def _tokens(lines: Sequence[str]) -> list[list[str]]:
    if not lines:
        return []
    return [[word.decode("utf-8", "replace") for word in row] for row in split_words(tf.constant(list(lines))).numpy()]


def _locate(line: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Returns start and end of the lower-case tokens in the line."""
    bounds, at = [], 0
    for token in tokens:
        while at < len(line) and line[at].isspace() and not token[0].isspace():
            at += 1
        start, rest = at, len(token)
        while rest > 0 and at < len(line):
            rest -= len(line[at].lower())  # a capital may be two characters in lower case
            at += 1
        bounds.append((start, at))
    return bounds


def remove_words(line: str, words: Sequence[Span]) -> str:
    """Returns a text without some of its words."""
    for word in sorted(words, key=lambda word: -word.start):
        line = f"{line[: word.start]} {line[word.end :]}"
    return " ".join(line.split())


def word_positions(spans: Sequence[Span], config: TextConfig) -> dict[str, Positions]:
    """Returns the positions of the inputs `word_ids` and `context_word_ids`.

    Line 0 is the utterance; the other lines are its context, nearest first.
    """
    utterance = [i for i, span in enumerate(spans) if span.line == 0][: config.max_words]
    context = [i for i, span in enumerate(spans) if span.line > 0][: config.context_tokens]
    words = {"word_ids": utterance, "context_word_ids": context}
    return {name: Positions(np.array(word, int), len(spans)) for name, word in words.items()}


def piece_positions(lines: Sequence[str], spans: Sequence[Span], preprocess: Preprocessor) -> Positions:
    """Returns the positions of BERT's word pieces: [CLS] utterance [SEP] context, nearest line first [SEP]."""
    text = preprocess.text
    pieces = _piece_words(lines, spans, preprocess)
    context = [word for line in pieces[1:] for word in line][: text.context_tokens - 1]
    word = [-1, *pieces[0][: text.max_tokens - 2], -1, *context, *([-1] if context else [])]
    return Positions(np.array(word, int), len(spans))


def _piece_words(lines: Sequence[str], spans: Sequence[Span], preprocess: Preprocessor) -> list[list[int]]:
    """Returns, for each piece of each line, the word in which the piece starts."""
    if preprocess.pieces is None:
        raise ValueError("Word pieces need the run's tokenizer.")
    starts = preprocess.pieces.offsets(tf.constant(list(lines))).to_list()
    words = []
    for n, line in enumerate(lines):
        of_line = [(i, span) for i, span in enumerate(spans) if span.line == n]
        first = np.array([len(line[: span.start].encode()) for _, span in of_line], int)  # the tokenizer counts bytes
        nearest = np.searchsorted(first, starts[n], side="right") - 1
        words.append([of_line[max(0, k)][0] if of_line else -1 for k in nearest])
    return words
