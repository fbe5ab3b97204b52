"""Spans of words, and the words that the positions of a model's input belong to."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, split_words
from emotion_tf.interpret import words

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "don", "'", "t", "you", "gl", "##ad", "cafe", "!", ",", "no"]


def split(line):
    return [line[span.start : span.end] for span in words.word_spans([line])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("You did it!", ["You", "did", "it", "!"]),
        ("  Don’t   you,\tCafé?  ", ["Don’t", "you", ",", "Café", "?"]),
        ("wait...what", ["wait", ".", ".", ".", "what"]),
        ("İstanbul ÇOK 日本 🙂!", ["İstanbul", "ÇOK", "日本", "🙂", "!"]),
        ("e\u0301tat", ["e\u0301tat"]),
        ("a\u00a0b", ["a", "\u00a0", "b"]),
        ("\ufeffhi", ["\ufeff", "hi"]),
        ("!", ["!"]),
        ("", []),
        ("   ", []),
    ],
)
def test_spans_are_those_of_the_models_splitter(line, expected):
    assert split(line) == expected
    assert len(expected) == len(split_words(tf.constant([line])).numpy()[0])


def test_words_are_removed_by_position():
    line = "no, you say no!"
    spans = words.word_spans([line])
    assert words.remove_words(line, [spans[0]]) == ", you say no!"
    assert words.remove_words(line, [spans[0], spans[4], spans[1]]) == "you say !"
    assert words.remove_words(line, spans) == ""
    assert words.remove_words(line, []) == line


def preprocess(**options):
    config = TextConfig(**options)
    return Preprocessor(["input_word_ids"], 32, config, WordPieceTokenizer(PIECES, True))


def ids(preprocessor, line, context):
    raw = {"utterance": tf.constant([line]), "context": tf.constant([context])}
    return np.asarray(preprocessor(raw)["input_word_ids"])


@pytest.mark.parametrize(
    ("line", "context", "options"),
    [
        ("Don't you, glad Café!", [], {}),
        ("Don't you, glad Café!", [], {"max_tokens": 6}),
        ("glad", ["no you", "don't"], {"context": 2}),
        ("glad", ["no you", "don't glad"], {"context": 2, "context_tokens": 5}),
        ("", ["no"], {"context": 1}),
    ],
)
def test_word_pieces_belong_to_their_words(line, context, options):
    preprocessor = preprocess(**options)
    lines = (line, *reversed(context))
    spans = words.word_spans(lines)
    positions = words.piece_positions(lines, spans, preprocessor)
    pieces = [PIECES[i] for i in ids(preprocessor, line, context or [""])[0]]
    assert len(positions.word) == len(pieces)
    for piece, at in zip(pieces, positions.word, strict=True):
        if at < 0:
            assert piece in ("[CLS]", "[SEP]")
        else:
            word = lines[spans[at].line][spans[at].start : spans[at].end].lower().replace("é", "e").replace("’", "'")
            assert piece in ("[UNK]", word) or piece.removeprefix("##") in word


def test_the_values_of_pieces_are_summed_by_word():
    preprocessor = preprocess(max_tokens=6)
    line = "Don't you, glad!"
    spans = words.word_spans([line])
    sums, rest, read = words.piece_positions([line], spans, preprocessor).sum_by_word(
        np.array([1.0, 2, 3, 4, 5, 6, 0, 0])
    )
    # [CLS] don ' t you [SEP], padding
    assert sums.tolist() == [9, 5, 0, 0, 0] and rest == 7
    assert read.tolist() == [True, True, False, False, False]


def test_words_beyond_the_maximum_length():
    spans = words.word_spans(["a b c", "d e", "f"])
    positions = words.word_positions(spans, TextConfig(max_words=2, context=2, context_tokens=2))
    assert {name: each.word.tolist() for name, each in positions.items()} == {
        "word_ids": [0, 1],
        "context_word_ids": [3, 4],
    }
