"""Whole words at their places, and positions of a model's input to words."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.data.preprocess import Preprocessor
from emotion_tf.data.tokenizer import WordPieceTokenizer, split_words
from emotion_tf.interpret import words

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "don", "'", "t", "you", "gl", "##ad", "cafe", "!", ",", "no"]


def written(line):
    return [line[span.start : span.end] for span in words.spans([line])]


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
def test_the_words_are_those_of_the_models_splitter_as_they_are_written(line, expected):
    assert written(line) == expected
    assert len(expected) == len(split_words(tf.constant([line])).numpy()[0])


def test_words_are_taken_out_by_their_place():
    line = "no, you say no!"
    found = words.spans([line])
    assert words.without(line, [found[0]]) == ", you say no!"
    assert words.without(line, [found[0], found[4], found[1]]) == "you say !"
    assert words.without(line, found) == ""
    assert words.without(line, []) == line


def preprocess(**options):
    config = TextConfig(**options)
    return Preprocessor(["input_word_ids"], 32, config, WordPieceTokenizer(PIECES, True))


def ids(made, line, context):
    return np.asarray(made(tf.constant([line]), tf.constant([[""]]), context=tf.constant([context]))["input_word_ids"])


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
def test_each_word_piece_that_bert_reads_belongs_to_the_word_it_is_of(line, context, options):
    made = preprocess(**options)
    read = (line, *reversed(context))
    found = words.spans(read)
    where = words.piece_positions(read, found, made)
    pieces = [PIECES[i] for i in ids(made, line, context or [""])[0]]
    assert len(where.word) == len(pieces)
    for piece, at in zip(pieces, where.word, strict=True):
        if at < 0:
            assert piece in ("[CLS]", "[SEP]")
        else:
            word = read[found[at].line][found[at].start : found[at].end].lower().replace("é", "e").replace("’", "'")
            assert piece in ("[UNK]", word) or piece.removeprefix("##") in word


def test_the_numbers_of_pieces_are_summed_and_none_is_lost():
    made = preprocess(max_tokens=6)
    line = "Don't you, glad!"
    found = words.spans([line])
    own, rest, read = words.piece_positions([line], found, made).sums(np.array([1.0, 2, 3, 4, 5, 6, 0, 0]))
    # [CLS] don ' t you [SEP], padding
    assert own.tolist() == [9, 5, 0, 0, 0] and rest == 7
    assert read.tolist() == [True, True, False, False, False]


def test_words_that_a_branch_does_not_read():
    found = words.spans(["a b c", "d e", "f"])
    where = words.word_positions(found, TextConfig(max_words=2, context=2, context_tokens=2))
    assert {name: one.word.tolist() for name, one in where.items()} == {"word_ids": [0, 1], "context_word_ids": [3, 4]}
