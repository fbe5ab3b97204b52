"""The utterances around one: which, in which order, cut to what."""

import numpy as np
import pytest
import tensorflow as tf

from emotion_tf.config import TextConfig
from emotion_tf.data import context
from emotion_tf.data.preprocess import CONTEXT_NAMES, TEXT_NAMES, WORD_NAMES, Preprocessor
from emotion_tf.data.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer, WordVocabulary

WORDS = ["a", "b", "c", "d", "e", ":"]
PIECES = WordPieceTokenizer([*SPECIAL_TOKENS, *WORDS], True)
ID = {piece: i for i, piece in enumerate(PIECES.vocabulary)}
VOCABULARY = WordVocabulary(WORDS)


def ids(text):
    """`[CLS] a b` by hand."""
    return [ID[piece] for piece in text.split()]


def read(utterance, past=None, later=None, **options):
    inputs = (*TEXT_NAMES, *WORD_NAMES, *CONTEXT_NAMES)
    preprocess = Preprocessor(inputs, 8, TextConfig(**options), PIECES, VOCABULARY)
    given = {name: tf.constant([lines]) for name, lines in (("context", past), ("future", later)) if lines is not None}
    return {name: np.asarray(x)[0].tolist() for name, x in preprocess(tf.constant([utterance]), None, **given).items()}


def test_lines_with_their_speakers():
    said = tf.ragged.constant([["a", "", "b"], [], ["c"]])
    speaker = tf.ragged.constant([["d", "d", ""], [], ["e"]])
    assert context.format_ragged_lines(said, speaker).to_list() == [[b"d: a", b"", b"b"], [], [b"e: c"]]
    assert [context.format_line("d", "a"), context.format_line("", "a"), context.format_line("d", "")] == [
        "d: a",
        "a",
        "",
    ]


def test_lines_before_each_in_its_own_dialogue():
    rows = [("1", "x", "a"), ("2", "y", "b"), ("1", "", "c"), ("1", "x", "d"), ("2", "y", "e")]
    assert context.previous_lines(rows, 2) == [[], [], ["x: a"], ["x: a", "c"], ["y: b"]]
    assert (
        context.previous_lines([*rows[:3], ("1", "y", ""), rows[3]], 2)[3:] == [["x: a", "c"]] * 2
    )  # silence is no line
    assert context.previous_lines(rows, 1)[3] == ["c"] and context.previous_lines(rows, 0) == [[]] * 5


def test_nearest_first_and_empty_lines_are_none():
    given = tf.ragged.constant([["a", "b", "c"], [], ["a", "", ""]])
    assert context.nearest_lines(given, 2, past=True).to_list() == [[b"c", b"b"], [], [b"a"]]
    assert context.nearest_lines(given, 2, past=False).to_list() == [[b"a", b"b"], [], [b"a"]]


def test_the_context_is_the_second_segment_nearest_first():
    found = read("a b", ["c", "d: e"], context=2)
    assert found["input_word_ids"] == ids("[CLS] a b [SEP] d : e c [SEP]")
    assert found["input_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1, 1] and found["input_mask"] == [1] * 9
    words = {word: i + 2 for i, word in enumerate(WORDS)}
    assert found["word_ids"] == [words["a"], words["b"]]
    assert found["context_word_ids"] == [words[w] for w in ("d", ":", "e", "c")]


def test_the_future_follows_the_past_and_only_when_asked():
    both = read("a", ["b"], ["c", "d"], context=1, future=2)
    assert both["input_word_ids"] == ids("[CLS] a [SEP] b [SEP] c d [SEP]")
    assert both["input_type_ids"] == [0, 0, 0, 1, 1, 1, 1, 1] and len(both["context_word_ids"]) == 3
    assert read("a", ["b"], ["c", "d"], context=1) == read("a", ["b"], context=1)
    assert read("a", ["b"], ["c", "d"]) == read("a")


@pytest.mark.parametrize("limit", range(2, 9))
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_farthest_is_cut_and_never_the_utterance(limit, count):
    utterance = " ".join("ab"[i % 2] for i in range(count))
    found = read(utterance, ["c c c", "d d", "e"], context=3, context_tokens=limit, max_tokens=64)
    wanted = ids(f"[CLS] {utterance} [SEP]")
    assert found["input_word_ids"] == [*wanted, *ids("e d d c c c")[: limit - 1], ID["[SEP]"]]
    assert len(found["context_word_ids"]) == min(limit, 6)
    assert read(utterance, context=3, max_tokens=64)["input_word_ids"] == wanted


@pytest.mark.parametrize("past", [None, [""], ["", ""]])
def test_an_utterance_without_context_is_read_as_by_a_model_that_knows_none(past):
    found, alone = read("a b", past, context=3), read("a b")
    assert all(found[name] == alone[name] for name in (*TEXT_NAMES, *WORD_NAMES)) and not any(found["context_word_ids"])


def test_a_batch_of_mixed_rows():
    preprocess = Preprocessor((*TEXT_NAMES, *CONTEXT_NAMES), 8, TextConfig(context=2), PIECES, VOCABULARY)
    past = tf.constant([["c", "d"], ["", ""], ["", "e"]])
    found = preprocess(tf.constant(["a", "a b", ""]), None, context=past)
    rows = ["[CLS] a [SEP] d c [SEP]", "[CLS] a b [SEP]", "[CLS] [SEP] e [SEP]"]
    for i, row in enumerate(rows):
        length = len(row.split())
        assert found["input_word_ids"][i, :length].numpy().tolist() == ids(row)
        assert found["input_mask"][i].numpy().tolist() == [1] * length + [0] * (6 - length)
    assert found["context_word_ids"].shape == (3, 2) and not found["context_word_ids"][1].numpy().any()
    nothing = preprocess(tf.constant(["a"]), None, context=tf.zeros((1, 0), tf.string))
    assert nothing["input_word_ids"].numpy().tolist() == [ids("[CLS] a [SEP]")]
