"""Tokenizers: text to ids inside the graph, for `prepare`, training, `predict` and exports alike."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.schema import PADDING_ID, UNKNOWN_WORD_ID

CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
SPECIAL_TOKENS = ("[PAD]", UNKNOWN, CLS, SEP, "[MASK]")
MAX_VOCABULARY_BYTES = 64 << 20


class WordPieceTokenizer(tf.Module):
    """BERT's word-piece tokenizer inside the graph.

    Raises:
        UserError: the vocabulary lacks a special token or has a duplicate.
    """

    def __init__(self, vocabulary: Sequence[str], lower_case: bool) -> None:
        super().__init__(name="word_pieces")
        self.vocabulary, self.lower_case = tuple(vocabulary), lower_case
        missing = [token for token in (CLS, SEP, UNKNOWN) if token not in self.vocabulary]
        duplicates = [token for token, n in Counter(self.vocabulary).items() if n > 1]
        if missing or duplicates:
            fault = f"without {', '.join(missing)}" if missing else f"with {duplicates[0]!r} twice"
            raise UserError(
                "Invalid word-piece vocabulary. Expected different tokens with [CLS], [SEP], [UNK]. "
                f"Received one {fault}."
            )
        self.cls_id, self.sep_id = self.vocabulary.index(CLS), self.vocabulary.index(SEP)

    @cached_property
    def _tokenizer(self) -> tf_text.FastBertTokenizer:
        # built at the first use: it takes up to a second, and word branches never need it
        with tf.init_scope():
            return tf_text.FastBertTokenizer(
                vocab=list(self.vocabulary), lower_case_nfd_strip_accents=self.lower_case, unknown_token=UNKNOWN
            )

    def pieces(self, utterance: tf.Tensor) -> tf.RaggedTensor:
        """Returns the ids of utterances string (B,) without special tokens, int64 (B, None)."""
        return tf.cast(self._tokenizer.tokenize(utterance).merge_dims(1, -1), tf.int64)

    def offsets(self, utterance: tf.Tensor) -> tf.RaggedTensor:
        """Returns the start of each id of `pieces` in the utterance, in bytes of UTF-8, int64 (B, None)."""
        _, starts, _ = self._tokenizer.tokenize_with_offsets(utterance)
        return starts.merge_dims(1, -1)

    def __call__(self, utterance: tf.Tensor) -> tf.RaggedTensor:
        """Returns the ids of utterances string (B,) with [CLS] and [SEP], int64 (B, None)."""
        pieces = self.pieces(utterance)
        column = [pieces.nrows(), 1]
        cls, sep = (tf.fill(column, tf.constant(i, tf.int64)) for i in (self.cls_id, self.sep_id))
        return tf.concat([cls, pieces, sep], axis=1)

    @property
    def sha256(self) -> str:
        """Hash of the vocabulary and `lower_case`."""
        return hash_vocabulary(self.vocabulary, self.lower_case)


def pack_tokens(
    tokens: tf.RaggedTensor, max_tokens: int, context: tf.RaggedTensor | None = None
) -> dict[str, tf.Tensor]:
    """Packs word pieces to BERT's three inputs.

    Args:
        tokens: the first segment, the utterance with [CLS] and [SEP], int64 (B, None).
        max_tokens: longer utterances are truncated before the [SEP].
        context: the second segment, truncated already, int64 (B, None).

    Returns:
        input_word_ids, input_mask, input_type_ids, int32 (B, L), where L is the longest row of the batch.
    """
    first = tf.concat([tokens[:, :1], tokens[:, 1:-1][:, : max_tokens - 2], tokens[:, -1:]], axis=1)
    both = first if context is None else tf.concat([first, context], axis=1)
    ids = tf.cast(both.to_tensor(PADDING_ID), tf.int32)
    width = tf.shape(ids)[1]
    mask = tf.sequence_mask(both.row_lengths(), width, tf.int32)
    types = mask - tf.sequence_mask(first.row_lengths(), width, tf.int32)
    return {"input_word_ids": ids, "input_mask": mask, "input_type_ids": types}


# Punctuation, which `split_words` separates: no letter, digit, apostrophe or space.
_PUNCTUATION = r"[^\p{L}\p{M}\p{N}'\s\x0b\x{2018}\x{2019}\x{0092}`]"


def split_words(utterance: tf.Tensor) -> tf.RaggedTensor:
    """Splits utterances string (B,) into lower-case words (B, None). Unifies apostrophes; separates punctuation."""
    text = tf.strings.regex_replace(utterance, r"[\x{2018}\x{2019}\x{0092}`]", "'")
    text = tf.strings.regex_replace(tf.strings.lower(text, encoding="utf-8"), r"([^\p{L}\p{M}\p{N}'\s])", r" \1 ")
    return tf.strings.split(text)


def split_words_with_offsets(utterance: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
    """Returns the words of `split_words` as written, string (B, None), and their start in bytes, int64 (B, None)."""
    words, start, _ = tf_text.regex_split_with_offsets(utterance, rf"[\s\x0b]|{_PUNCTUATION}", _PUNCTUATION)
    return words, start


def count_words(utterances: Sequence[bytes | str]) -> Counter[bytes]:
    """Returns the number of occurrences of each word of `split_words`."""
    return Counter(split_words(tf.constant(utterances, tf.string)).flat_values.numpy().tolist())


class WordVocabulary(tf.Module):
    """Word ids: 0 for padding, 1 for unknown words, then the words by decreasing frequency.

    Args:
        words: the words.
        frequencies: number of occurrences of each word in the training split; needed for training alone.
    """

    def __init__(self, words: Sequence[str], frequencies: Sequence[int] = ()) -> None:
        super().__init__(name="words")
        self.words, self.frequencies = tuple(words), tuple(frequencies)
        keys = tf.constant(self.words or [""], tf.string)
        first = UNKNOWN_WORD_ID + 1
        values = tf.range(first, first + tf.size(keys, out_type=tf.int64), dtype=tf.int64)
        self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), UNKNOWN_WORD_ID)

    @classmethod
    def from_utterances(cls, utterances: Iterable[bytes | str], size: int) -> WordVocabulary:
        """Returns a vocabulary of the `size` most frequent words; ties are in alphabetical order."""
        counts: Counter[bytes] = Counter()
        for texts in _chunks(utterances):
            counts.update(count_words(texts))
        return cls.from_counts(counts, size)

    @classmethod
    def from_counts(cls, counts: Mapping[bytes, int], size: int) -> WordVocabulary:
        """Returns a vocabulary of the `size` words with the largest counts; ties are in alphabetical order."""
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size]
        return cls([word.decode("utf-8", "replace") for word, _ in ranked], [count for _, count in ranked])

    def __len__(self) -> int:
        """Number of ids, including padding and unknown words: the rows of an embedding."""
        return len(self.words) + UNKNOWN_WORD_ID + 1

    def counts(self, utterances: Sequence[str]) -> np.ndarray:
        """Returns the number of occurrences of each word, int (W,)."""
        ids = self.ids(tf.constant(utterances)).flat_values.numpy()
        return np.bincount(ids, minlength=len(self))[UNKNOWN_WORD_ID + 1 :]

    def ids(self, utterance: tf.Tensor) -> tf.RaggedTensor:
        """Returns the word ids of utterances string (B,), int64 (B, None)."""
        return tf.ragged.map_flat_values(self._table.lookup, split_words(utterance))

    def __call__(self, utterance: tf.Tensor, max_words: int) -> dict[str, tf.Tensor]:
        """Returns `word_ids` of utterances string (B,), int32 (B, W), where W is from 1 to `max_words`."""
        return {"word_ids": pad_words(self.ids(utterance)[:, :max_words])}


def pad_words(ids: tf.RaggedTensor) -> tf.Tensor:
    """Pads word ids (B, None) to int32 (B, W). W is at least 1, because a GRU needs a step."""
    padded = tf.cast(ids.to_tensor(PADDING_ID), tf.int32)
    return tf.pad(padded, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(padded)[1])]])


def learn_vocabulary(utterances: Iterable[str], size: int = 4000) -> list[str]:
    """Learns a lower-case word-piece vocabulary from the training split, for models without a pretrained encoder.

    Uses tensorflow_text's bottom-up learner, which needs at least one character. It reads the number of each different
    word of BERT's tokenizer, so that the texts are not held.
    """
    from tensorflow_text.python.ops.bert_tokenizer import BasicTokenizer
    from tensorflow_text.tools.wordpiece_vocab import wordpiece_tokenizer_learner_lib as learner

    tokenizer, counts = BasicTokenizer(lower_case=True), Counter[bytes]()
    for texts in _chunks(utterances):
        counts.update(tokenizer.tokenize(tf.constant(texts, tf.string)).flat_values.numpy().tolist())
    if not counts:
        return [*SPECIAL_TOKENS, "."]  # the tokenizer needs a token besides the special ones
    words = {word.decode(): count for word, count in counts.items()}
    return list(learner.learn(words, size, list(SPECIAL_TOKENS)))


def _chunks(utterances: Iterable[bytes | str]) -> Iterator[list[bytes | str]]:
    rest = iter(utterances)
    while texts := list(islice(rest, 4096)):
        yield texts


def read_vocabulary(path: Path) -> list[str]:
    """Reads a `vocab.txt` with one token per line. Raises UserError if it cannot be read."""
    expected = "UTF-8, one token a line"
    try:
        with io.TextIOWrapper(files.open_regular(path, MAX_VOCABULARY_BYTES, "vocabulary", expected), "utf-8") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"Cannot read the vocabulary {path}: {error}. Expected {expected}.") from None
    return text.removesuffix("\n").split("\n") if text else []


def hash_vocabulary(tokens: Sequence[str], lower_case: bool) -> str:
    """Returns the SHA-256 of word pieces and of whether case and accents are removed, in hexadecimal."""
    return hashlib.sha256("\n".join([str(lower_case), *tokens]).encode()).hexdigest()


def hash_words(words: Sequence[str]) -> str:
    """Returns the SHA-256 of words in their order, in hexadecimal."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def write_vocabulary(path: Path, tokens: Sequence[str]) -> None:
    """Writes a `vocab.txt` with one token per line."""
    path.write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
