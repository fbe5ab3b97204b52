"""Tokenizers: word pieces and words, also of unusual text."""

from __future__ import annotations

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_tf import schema
from emotion_tf.config import TextConfig
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.preprocess import TEXT_NAMES, WORD_NAMES, Preprocessor
from emotion_tf.data.tokenizer import (
    SPECIAL_TOKENS,
    WordPieceTokenizer,
    WordVocabulary,
    learn_vocabulary,
    pack_tokens,
    read_vocabulary,
    split_words,
    write_vocabulary,
)
from emotion_tf.errors import UserError

VOCABULARY = [*SPECIAL_TOKENS, "hello", "there", "cafe", "don", "'", "t", "!", "ok", "##s", "no"]
PAD, UNK, CLS, SEP = 0, 1, 2, 3
UNUSUAL = [
    "", " ", "\0", "\x00hello", "😀👩‍👩‍👧", "שלום hello", "مرحبا", "İstanbul", "ﬁ", "\u202e\u2066abc", "\x85\u2028",
    "'" * 50, "a" * 5000, "[CLS] [SEP]", "é" * 300, "你好吗", "\ufeffhello", "\ud7ff\ue000\uffff\U0010ffff",
]  # fmt: skip


@pytest.fixture(scope="module")
def pieces():
    return WordPieceTokenizer(VOCABULARY, True)


@pytest.fixture(scope="module")
def words():
    return WordVocabulary(["hello", "don't", "!"])


def words_of(*texts) -> list[list[str]]:
    return [[word.decode() for word in row] for row in split_words(tf.constant(texts)).to_list()]


def test_word_pieces(pieces):
    ids = pieces(tf.constant(["Hello THERE!", "Café", "nos", "xyz", ""])).to_list()
    assert ids == [[CLS, 5, 6, 11, SEP], [CLS, 7, SEP], [CLS, 14, 13, SEP], [CLS, UNK, SEP], [CLS, SEP]]


def test_a_cased_vocabulary_keeps_case():
    cased = WordPieceTokenizer([*SPECIAL_TOKENS, "Hello", "hello"], False)
    assert cased(tf.constant(["Hello hello HELLO"])).to_list() == [[CLS, 5, 6, UNK, SEP]]
    assert cased.sha256 != WordPieceTokenizer([*SPECIAL_TOKENS, "Hello", "hello"], True).sha256


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ([*SPECIAL_TOKENS, "a", "a"], "'a' twice"),
        (["[CLS]", "[SEP]", "a"], r"without \[UNK\]"),
        ([], r"without \[CLS\], \[SEP\], \[UNK\]"),
    ],
)
def test_an_invalid_vocabulary_is_an_error(vocabulary, message):
    with pytest.raises(UserError, match=message):
        WordPieceTokenizer(vocabulary, True)


@pytest.mark.parametrize(("max_tokens", "pieces_left"), [(3, [5]), (4, [5, 6]), (5, [5, 6, 7]), (64, [5, 6, 7])])
def test_pack_tokens_truncates_before_sep(max_tokens, pieces_left):
    tokens = tf.ragged.constant([[CLS, 5, 6, 7, SEP], [CLS, SEP]], dtype=tf.int64)
    packed = {name: values.numpy().tolist() for name, values in pack_tokens(tokens, max_tokens).items()}
    length = len(pieces_left) + 2
    assert packed["input_word_ids"] == [[CLS, *pieces_left, SEP], [CLS, SEP, *[PAD] * (length - 2)]]
    assert packed["input_mask"] == [[1] * length, [1, 1, *[0] * (length - 2)]]
    assert packed["input_type_ids"] == [[0] * length] * 2
    assert tuple(packed) == TEXT_NAMES


def test_raw_text_gives_the_recorded_tokens(dataset):
    """Training reads the tokens from records; `predict` and exports compute them from the text."""
    opened = Dataset.open(dataset)
    pieces = WordPieceTokenizer(opened.read_vocabulary(), opened.tokenizer.lower_case)
    assert pieces.sha256 == opened.tokenizer.sha256
    preprocess = Preprocessor(TEXT_NAMES, 32, TextConfig(max_tokens=12), pieces)
    paths = opened.rows("test")
    for records_batch in tf.data.TFRecordDataset(list(paths.paths)).batch(16).take(2):
        features = schema.parse_examples(records_batch, ["utterance", "tokens"])
        recorded = preprocess(features)
        raw = preprocess({"utterance": features["utterance"]})
        for name in TEXT_NAMES:
            tf.debugging.assert_equal(raw[name], recorded[name])


def test_words_are_normalised():
    assert words_of("Don’t  STOP—now!", "don't `em", "Ünïcode, ÉTÉ", "3,5%") == [
        ["don't", "stop", "—", "now", "!"],
        ["don't", "'em"],
        ["ünïcode", ",", "été"],
        ["3", ",", "5", "%"],
    ]
    assert words_of("hi😀 there", "שלום, עולם", "", " \t\n") == [["hi", "😀", "there"], ["שלום", ",", "עולם"], [], []]


def test_word_ids(words):
    ids = words(tf.constant(["Hello you!", "don’t", ""]), 10)["word_ids"].numpy()
    assert ids.tolist() == [[2, 1, 4], [3, 0, 0], [0, 0, 0]]
    assert words(tf.constant(["hello hello hello"]), 2)["word_ids"].numpy().tolist() == [[2, 2]]
    assert len(words) == 5


@pytest.mark.parametrize("texts", [[""], ["", "  "], []])
def test_padded_word_ids_have_at_least_one_step(texts, words):
    ids = words(tf.constant(texts, tf.string), 10)["word_ids"]
    assert ids.shape == (len(texts), 1) and not ids.numpy().any()


def test_the_most_frequent_words_and_ties_by_alphabet():
    texts = ["b a c", "C b", "b ’", "é"]
    vocabulary = WordVocabulary.from_utterances(texts, 9)
    assert vocabulary.words == ("b", "c", "'", "a", "é")
    assert vocabulary.frequencies == tuple(vocabulary.counts(texts)) == (3, 2, 1, 1, 1)
    assert WordVocabulary.from_utterances(texts, 2).frequencies == (3, 2)
    assert WordVocabulary.from_utterances(reversed(texts), 3).words == ("b", "c", "'")
    assert WordVocabulary.from_utterances([t.encode() for t in texts], 1).words == ("b",)


def test_a_vocabulary_of_no_word_and_its_file(tmp_path):
    for vocabulary in (WordVocabulary.from_utterances([], 5), WordVocabulary.from_utterances(["", " "], 5)):
        assert vocabulary.words == ()
        assert vocabulary(tf.constant(["hello"]), 4)["word_ids"].numpy().tolist() == [[1]]
        write_vocabulary(tmp_path / "words.txt", vocabulary.words)
        assert len(WordVocabulary(read_vocabulary(tmp_path / "words.txt"))) == len(vocabulary) == 2


def test_any_word_can_be_written_and_read(tmp_path):
    vocabulary = WordVocabulary.from_utterances(UNUSUAL, 100)
    write_vocabulary(tmp_path / "words.txt", vocabulary.words)
    assert tuple(read_vocabulary(tmp_path / "words.txt")) == vocabulary.words


def test_vocabulary_files(tmp_path):
    (tmp_path / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    assert read_vocabulary(tmp_path / "crlf.txt") == ["a", "b"]
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for path in (tmp_path / "latin.txt", tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match="Cannot read the vocabulary"):
            read_vocabulary(path)


@pytest.mark.parametrize("texts", [["a"], ["", " "], ["😀 [CLS]"]])
def test_a_vocabulary_can_be_learned_of_any_text(texts):
    pieces = WordPieceTokenizer(learn_vocabulary(texts, 50), True)
    assert tuple(pieces.vocabulary[:5]) == SPECIAL_TOKENS
    assert pieces(tf.constant(texts)).nrows() == len(texts)


@pytest.fixture(scope="module")
def in_graph(pieces, words):
    """Both kinds of ids in a graph, as in an export."""
    preprocess = Preprocessor((*TEXT_NAMES, *WORD_NAMES), 8, TextConfig(max_tokens=8, max_words=6), pieces, words)
    signature = [{"utterance": tf.TensorSpec((None,), tf.string)}]
    return tf.function(preprocess.__call__, input_signature=signature)


def check(ids, count):
    word_pieces, mask, word_ids = (ids[name].numpy() for name in ("input_word_ids", "input_mask", "word_ids"))
    assert len(word_pieces) == len(word_ids) == count
    assert 2 <= word_pieces.shape[1] <= 8 and 1 <= word_ids.shape[1] <= 6
    assert word_pieces.min() >= 0 and word_pieces.max() < len(VOCABULARY)
    assert word_ids.min() >= 0 and word_ids.max() <= 4
    lengths = mask.sum(axis=1)
    assert (word_pieces[:, 0] == CLS).all() and (word_pieces[range(count), lengths - 1] == SEP).all()


def test_unusual_text(in_graph):
    check(in_graph({"utterance": tf.constant(UNUSUAL)}), len(UNUSUAL))


@given(st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=20)), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_text_and_any_bytes_have_ids(in_graph, texts):
    utterance = tf.constant([t.encode() if isinstance(t, str) else t for t in texts])
    check(in_graph({"utterance": utterance}), len(texts))


def test_a_missing_tokenizer_is_an_error():
    with pytest.raises(ValueError, match="pieces"):
        Preprocessor(TEXT_NAMES, 8, TextConfig())({"utterance": tf.constant(["a"])})
    with pytest.raises(ValueError, match="words"):
        Preprocessor(WORD_NAMES, 8, TextConfig())({"utterance": tf.constant(["a"])})
