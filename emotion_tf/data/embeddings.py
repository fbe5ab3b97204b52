"""Published word embeddings: GloVe's text files, word2vec's text and binary files.

Read here and not by gensim, whose `KeyedVectors` loads the whole file (several GB for a vocabulary of some thousand
words) and whose errors name no line.

Every line is checked, also of words that nobody wants: what is broken in one place is seldom right in the others.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_tf.errors import UserError

LONGEST_WORD = 1000  # bytes; what has no space for so long is no word2vec file
OF_NUMBERS = b"0123456789+-.eE"
# do n't, i 'm: so the tokenizer of GloVe's texts takes them apart (Pennington 2014, section 4.2)
CONTRACTION = re.compile(r"(.+)(n't|'(?:s|m|d|re|ve|ll))")


@dataclass(frozen=True)
class Embeddings:
    """What a file knows of a vocabulary.

    Attributes:
        vectors: float32 (W, D), zero for words that the file does not know.
        known: bool (W,).
    """

    vectors: np.ndarray
    known: np.ndarray


def read_embeddings(path: Path, words: Sequence[str]) -> Embeddings:
    """The vectors of the W `words`; a word that the file has only with capitals takes the first of those.

    A contraction that it has only in its two pieces (`do n't` for "don't") takes their mean.

    Raises:
        UserError: not readable, or broken; with line or, in a binary file, byte.
    """
    contractions = {word: match.groups() for word in words if (match := CONTRACTION.fullmatch(word))}
    found = _find(path, {*words, *itertools.chain.from_iterable(contractions.values())})
    whole = {word: found[word] for word in words if word in found}
    halves = {word: [found[piece] for piece in pieces if piece in found] for word, pieces in contractions.items()}
    known = {word: np.mean(vectors, axis=0) for word, vectors in halves.items() if len(vectors) == 2} | whole
    if not known:
        raise UserError(
            f"{path}: It knows none of the {len(words)} words of the training split. Expected word embeddings of its "
            "language: GloVe's .txt, or word2vec's .txt or .bin."
        )
    unknown = np.zeros_like(next(iter(known.values())))
    vectors = np.array([known.get(word, unknown) for word in words], np.float32)
    return Embeddings(vectors, np.array([word in known for word in words]))


def _find(path: Path, words: set[str]) -> dict[str, np.ndarray]:
    """Reads all of the file for the vectors of the words that it has."""
    exact: set[str] = set()
    found: dict[str, np.ndarray] = {}
    try:
        for raw, read in _binary(path) if path.suffix == ".bin" else _text(path):
            word = _decoded(raw, read.where)
            lower = word.lower()
            if word in words and word not in exact:
                exact.add(word)
                found[word] = read()
            elif word not in words and lower in words and lower not in found:
                found[lower] = read()
            elif not read.plausible:
                read()
    except OSError as error:
        raise UserError(
            f"Cannot read the word embeddings {path}: {error.strerror}. Expected GloVe's .txt, or word2vec's .txt or "
            ".bin."
        ) from None
    return found


def _decoded(word: bytes, where: str) -> str:
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


class _Numbers:
    """A vector that is parsed only when its word is wanted."""

    def __init__(self, where: str, values: bytes | list[bytes]) -> None:
        self.where, self.values = where, values

    @property
    def plausible(self) -> bool:
        """Whether it looks like finite numbers, so that it need not be parsed, which takes 14 times as long."""
        if isinstance(self.values, bytes):
            return bool(np.isfinite(np.frombuffer(self.values, "<f4")).all())
        return all(self.values) and not b"".join(self.values).translate(None, OF_NUMBERS)

    def __call__(self) -> np.ndarray:
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


def _text(path: Path) -> Iterator[tuple[bytes, _Numbers]]:
    """Word and numbers of each line: GloVe's, or word2vec's with its line of two numbers before."""
    with open(path, "rb") as file:
        first = file.readline().split()
        header = len(first) == 2 and all(part.isdigit() for part in first)
        width = int(first[1]) if header else _width(first)
        if width < 1:
            raise UserError(
                f"{path}: line 1: Expected a word and its numbers, or word2vec's two counts. Received: {first[:3]!r}."
            )
        count, line = 0, int(header)
        file.seek(0)
        if header:
            file.readline()
        for raw in file:
            line += 1
            # from the end: a word of GloVe may itself hold spaces
            cells = raw.rstrip().rsplit(b" ", width)
            many = b" " in cells[0] and _is_number(cells[0].rsplit(b" ", 1)[1])  # no word of several ends with one
            if len(cells) != width + 1 or not cells[0] or many:
                raise UserError(
                    f"{path}: line {line}: Expected a word and {width} numbers. Received: {len(raw.split())} cells."
                )
            count += 1
            yield cells[0], _Numbers(f"{path}: line {line}", cells[1:])
        if header and count != int(first[0]):
            raise UserError(
                f"{path}: line {line}: Expected {int(first[0])} words, as line 1 says. Received: {count}. Copy it anew."
            )


def _width(cells: list[bytes]) -> int:
    """How many numbers stand behind the word, which may be several cells, or itself a number."""
    numbers = itertools.takewhile(_is_number, reversed(cells[1:]))
    return sum(1 for _ in numbers)


def _binary(path: Path) -> Iterator[tuple[bytes, _Numbers]]:
    with open(path, "rb") as file:
        first = file.readline(LONGEST_WORD).split()
        if len(first) != 2 or not all(part.isdigit() for part in first) or int(first[1]) < 1:
            raise UserError(f"{path}: byte 0: Expected word2vec's two counts. Received: {first[:3]!r}.")
        count, size = int(first[0]), 4 * int(first[1])
        start = file.tell()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for n in range(count):
                end = data.find(b" ", start, start + LONGEST_WORD)
                if end < 0 or end + 1 + size > len(data):
                    raise UserError(
                        f"{path}: byte {start}: Expected word {n + 1} of {count} and {size // 4} numbers of 4 bytes. "
                        "Received: something else, or the end of the file. Copy it anew."
                    )
                where = f"{path}: byte {start}"
                yield data[start:end].lstrip(b"\n"), _Numbers(where, data[end + 1 : end + 1 + size])
                start = end + 1 + size
            if data[start:].strip(b"\n "):
                raise UserError(
                    f"{path}: byte {start}: Expected the end after {count} words, as byte 0 says. Received: more. "
                    "Copy it anew."
                )


def coverage(known: np.ndarray, counts: np.ndarray) -> str:
    """`1,234 of 1,500 words known (82.3 %; 95.1 % of the running words)`.

    Args:
        known: bool (W,).
        counts: int (W,), how often each occurs in the training split.
    """
    share, running = 100 * known.mean(), 100 * counts[known].sum() / max(1, counts.sum())
    return f"{known.sum():,} of {len(known):,} words known ({share:.1f} %; {running:.1f} % of the running words)"
