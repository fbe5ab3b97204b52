"""Whole words of a text, and what the numbers of a model's positions (words, word pieces) are for each of them."""

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
    """A word of a text: its place, in characters."""

    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Positions:
    """Which word each position of a model's input belongs to.

    Attributes:
        word: int (L,), index into the spans; -1: none, as [CLS].
        words: number of spans.
    """

    word: np.ndarray
    words: int

    def sums(self, values: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
        """Values (L',), L' <= L or longer by padding, to their sums of each word, the sum of all others, and which
        words the model has read."""
        at = self.word[: len(values)]
        found = np.zeros(self.words)
        np.add.at(found, at[at >= 0], values[: len(at)][at >= 0])
        read = np.isin(np.arange(self.words), at)
        return found, float(values.sum() - found.sum()), read


def spans(lines: Sequence[str]) -> list[Span]:
    """The words of texts as the model's own word splitter sees them, at their places in the original strings."""
    return [
        Span(n, start, end)
        for n, (line, tokens) in enumerate(zip(lines, _tokens(lines), strict=True))
        for start, end in _places(line, tokens)
    ]


def _tokens(lines: Sequence[str]) -> list[list[str]]:
    if not lines:
        return []
    return [[word.decode("utf-8", "replace") for word in row] for row in split_words(tf.constant(list(lines))).numpy()]


def _places(line: str, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """Where the tokens of a line, lower case and in its order, lie in it."""
    found, at = [], 0
    for token in tokens:
        while at < len(line) and line[at].isspace() and not token[0].isspace():
            at += 1
        start, rest = at, len(token)
        while rest > 0 and at < len(line):
            rest -= len(line[at].lower())  # a capital may be two characters in lower case
            at += 1
        found.append((start, at))
    return found


def without(line: str, words: Sequence[Span]) -> str:
    """A text without some of its words."""
    for word in sorted(words, key=lambda word: -word.start):
        line = f"{line[: word.start]} {line[word.end :]}"
    return " ".join(line.split())


def word_positions(found: Sequence[Span], config: TextConfig) -> dict[str, Positions]:
    """Of the inputs `word_ids` and `context_word_ids`: the first line is the utterance, the others were said before,
    nearest first."""
    own = [i for i, span in enumerate(found) if span.line == 0][: config.max_words]
    around = [i for i, span in enumerate(found) if span.line > 0][: config.context_tokens]
    at = {"word_ids": own, "context_word_ids": around}
    return {name: Positions(np.array(word, int), len(found)) for name, word in at.items()}


def piece_positions(lines: Sequence[str], found: Sequence[Span], preprocess: Preprocessor) -> Positions:
    """Of BERT's word pieces: [CLS] utterance [SEP] lines around it, nearest first [SEP]."""
    text = preprocess.text
    pieces = _piece_words(lines, found, preprocess)
    around = [word for line in pieces[1:] for word in line][: text.context_tokens - 1]
    at = [-1, *pieces[0][: text.max_tokens - 2], -1, *around, *([-1] if around else [])]
    return Positions(np.array(at, int), len(found))


def _piece_words(lines: Sequence[str], found: Sequence[Span], preprocess: Preprocessor) -> list[list[int]]:
    """The word of each piece of each line: the one in which the piece starts."""
    if preprocess.pieces is None:
        raise ValueError("Word pieces need the run's tokenizer.")
    starts = preprocess.pieces.offsets(tf.constant(list(lines))).to_list()
    made = []
    for n, line in enumerate(lines):
        own = [(i, span) for i, span in enumerate(found) if span.line == n]
        first = np.array([len(line[: span.start].encode()) for _, span in own], int)  # the tokenizer counts bytes
        nearest = np.searchsorted(first, starts[n], side="right") - 1
        made.append([own[max(0, k)][0] if own else -1 for k in nearest])
    return made
