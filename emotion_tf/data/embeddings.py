"""Reads published word embeddings: GloVe text files, word2vec text and binary files.

gensim's `KeyedVectors` would load the whole file (several GB for a vocabulary of a few thousand words), and its errors
do not name the line.

Every line is checked, including those of words that are not in the vocabulary, because a damaged file is seldom damaged
in one place only.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from emotion_tf import files
from emotion_tf.config.text import MAX_WORD_DIM
from emotion_tf.errors import UserError
from emotion_tf.wording import plural

MAX_WORD_BYTES = 1000  # a file without a space within this distance is not a word2vec file
MAX_LINE_BYTES = MAX_WORD_BYTES + 32 * MAX_WORD_DIM
MAX_BYTES = 1 << 40
NUMBER_CHARACTERS = b"0123456789+-.eE"
# The tokenizer of GloVe's corpus splits contractions: do n't, i 'm (Pennington 2014, section 4.2).
CONTRACTION = re.compile(r"(.+)(n't|'(?:s|m|d|re|ve|ll))")


@dataclass(frozen=True)
class Embeddings:
    """Word vectors of a vocabulary of W words.

    Attributes:
        vectors: float32 (W, D), zero for unknown words.
        known: bool (W,), whether the file has the word.
    """

    vectors: np.ndarray
    known: np.ndarray


def read_embeddings(path: Path, words: Sequence[str]) -> Embeddings:
    """Reads the vectors of `words`.

    A word that the file has only with capitals takes the first such vector. A contraction that the file has only in two
    parts (`do n't` for "don't") takes the mean of the parts.

    Raises:
        UserError: the file is not readable, or damaged. The message names the line or, in a binary file, the byte.
    """
    contractions = {word: match.groups() for word in words if (match := CONTRACTION.fullmatch(word))}
    vector_of = _read_vectors(path, {*words, *itertools.chain.from_iterable(contractions.values())})
    whole = {word: vector_of[word] for word in words if word in vector_of}
    halves = {word: [vector_of[part] for part in parts if part in vector_of] for word, parts in contractions.items()}
    known = {word: np.mean(vectors, axis=0) for word, vectors in halves.items() if len(vectors) == 2} | whole
    if not known:
        raise UserError(
            f"{path}: It has none of the {plural(len(words), 'word')} of the training split. Expected word embeddings "
            "of its language: GloVe's .txt, or word2vec's .txt or .bin."
        )
    unknown = np.zeros_like(next(iter(known.values())))
    vectors = np.array([known.get(word, unknown) for word in words], np.float32)
    return Embeddings(vectors, np.array([word in known for word in words]))


def _read_vectors(path: Path, words: set[str]) -> dict[str, np.ndarray]:
    """Reads the whole file; returns the vectors of `words`."""
    exact: set[str] = set()
    vectors: dict[str, np.ndarray] = {}
    for encoded, vector in _read_binary(path) if path.suffix == ".bin" else _read_text(path):
        word = _decode(encoded, vector.where)
        lower = word.lower()
        if word in words and word not in exact:
            exact.add(word)
            vectors[word] = vector.parse()
        elif word not in words and lower in words and lower not in vectors:
            vectors[lower] = vector.parse()
        elif not vector.is_plausible:
            vector.parse()
    return vectors


def _open(path: Path) -> BinaryIO:
    return files.open_regular(path, MAX_BYTES, "word embeddings", "GloVe's .txt, or word2vec's .txt or .bin")


def _decode(word: bytes, where: str) -> str:
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: Expected a word in UTF-8. Received: {word[:50]!r}.") from None


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _UnparsedVector:
    """A vector that is parsed only if its word is in the vocabulary."""

    def __init__(self, where: str, values: bytes | list[bytes]) -> None:
        self.where, self.values = where, values

    @property
    def is_plausible(self) -> bool:
        """Whether the values look like finite numbers; parsing them would take 14 times as long."""
        if isinstance(self.values, bytes):
            return bool(np.isfinite(np.frombuffer(self.values, "<f4")).all())
        return all(self.values) and not b"".join(self.values).translate(None, NUMBER_CHARACTERS)

    def parse(self) -> np.ndarray:
        try:
            vector = (
                np.frombuffer(self.values, "<f4")
                if isinstance(self.values, bytes)
                else np.array(self.values, dtype="S").astype(np.float32)
            )
        except ValueError:
            raise UserError(
                f"{self.where}: Expected numbers after the word. Received: {self.values[:3]!r} ..."
            ) from None
        if not np.isfinite(vector).all():
            raise UserError(f"{self.where}: Expected finite numbers. Received: {vector[~np.isfinite(vector)][0]}.")
        return vector


def _read_text(path: Path) -> Iterator[tuple[bytes, _UnparsedVector]]:
    """Yields word and vector of each line of GloVe's format, or of word2vec's, which begins with two counts."""
    with _open(path) as file:
        first = file.readline(MAX_LINE_BYTES).split()
        header = _are_counts(first)
        width = int(first[1]) if header else _width(first)
        if not 1 <= width <= MAX_WORD_DIM:
            raise UserError(
                f"{path}: line 1: Expected a word and 1 to {MAX_WORD_DIM} numbers, or word2vec's two counts. Received: "
                f"{first[:3]!r}."
            )
        count, line = 0, int(header)
        file.seek(0)
        if header:
            file.readline()
        for row in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
            line += 1
            # split from the end, because a word of GloVe may contain spaces
            cells = row.rstrip().rsplit(b" ", width)
            # no word with spaces ends with a number
            too_many = b" " in cells[0] and _is_number(cells[0].rsplit(b" ", 1)[1])
            if len(cells) != width + 1 or not cells[0] or too_many:
                raise UserError(
                    f"{path}: line {line}: Expected a word and {width} numbers. Received: {len(row.split())} cells."
                )
            count += 1
            yield cells[0], _UnparsedVector(f"{path}: line {line}", cells[1:])
        if header and count != int(first[0]):
            words = plural(int(first[0]), "word")
            raise UserError(f"{path}: line {line}: Expected {words} as in line 1. Received: {count}. Copy it again.")


def _are_counts(cells: list[bytes]) -> bool:
    return len(cells) == 2 and all(cell.isdigit() and len(cell) < 20 for cell in cells)


def _width(cells: list[bytes]) -> int:
    """Returns how many numbers follow the word, which may be several cells or itself a number."""
    numbers = itertools.takewhile(_is_number, reversed(cells[1:]))
    return sum(1 for _ in numbers)


def _read_binary(path: Path) -> Iterator[tuple[bytes, _UnparsedVector]]:
    with _open(path) as file:
        first = file.readline(MAX_WORD_BYTES).split()
        if not _are_counts(first) or not 1 <= int(first[1]) <= MAX_WORD_DIM:
            raise UserError(
                f"{path}: byte 0: Expected word2vec's two counts, of words and of 1 to {MAX_WORD_DIM} numbers a word. "
                f"Received: {first[:3]!r}."
            )
        count, size = int(first[0]), 4 * int(first[1])
        start = file.tell()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for n in range(count):
                end = data.find(b" ", start, start + MAX_WORD_BYTES)
                if end < 0 or end + 1 + size > len(data):
                    raise UserError(
                        f"{path}: byte {start}: Expected word {n + 1} of {count} and {size // 4} numbers of 4 bytes. "
                        "Received: something else, or the end of the file. Copy it again."
                    )
                where = f"{path}: byte {start}"
                yield data[start:end].lstrip(b"\n"), _UnparsedVector(where, data[end + 1 : end + 1 + size])
                start = end + 1 + size
            if data[start:].strip(b"\n "):
                raise UserError(
                    f"{path}: byte {start}: Expected the end after {plural(count, 'word')}, as byte 0 says. "
                    "Received: more. Copy it again."
                )


def format_coverage(known: np.ndarray, counts: np.ndarray) -> str:
    """Formats the coverage: `1,234 of 1,500 words known (82.3 %; 95.1 % of the running words)`.

    Args:
        known: bool (W,), whether each word has a vector.
        counts: int (W,), occurrences of each word in the training split.
    """
    share, running = 100 * known.mean(), 100 * counts[known].sum() / max(1, counts.sum())
    return f"{known.sum():,} of {len(known):,} words known ({share:.1f} %; {running:.1f} % of the running words)"
