"""Context: which lines, in which order, truncated to which length."""

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
    """Returns the ids of `[CLS] a b`."""
    return [ID[piece] for piece in text.split()]


def read(utterance, past=None, later=None, **options):
    inputs = (*TEXT_NAMES, *WORD_NAMES, *CONTEXT_NAMES)
    preprocess = Preprocessor(inputs, 8, TextConfig(**options), PIECES, VOCABULARY)
    context_of = {
        name: tf.constant([lines]) for name, lines in (("context", past), ("future", later)) if lines is not None
    }
    return {
        name: np.asarray(x)[0].tolist()
        for name, x in preprocess({"utterance": tf.constant([utterance]), **context_of}).items()
    }


def test_lines_with_their_speakers():
    utterance = tf.ragged.constant([["a", "", "b"], [], ["c"]])
    speaker = tf.ragged.constant([["d", "d", ""], [], ["e"]])
    assert context.format_ragged_lines(utterance, speaker).to_list() == [[b"d: a", b"", b"b"], [], [b"e: c"]]
    assert [context.format_line("d", "a"), context.format_line("", "a"), context.format_line("d", "")] == [
        "d: a",
        "a",
        "",
    ]


def test_previous_lines_are_of_the_same_dialogue():
    rows = [("1", "x", "a"), ("2", "y", "b"), ("1", "", "c"), ("1", "x", "d"), ("2", "y", "e")]
    assert context.previous_lines(rows, 2) == [[], [], ["x: a"], ["x: a", "c"], ["y: b"]]
    assert (
        context.previous_lines([*rows[:3], ("1", "y", ""), rows[3]], 2)[3:] == [["x: a", "c"]] * 2
    )  # an empty utterance is skipped
    assert context.previous_lines(rows, 1)[3] == ["c"] and context.previous_lines(rows, 0) == [[]] * 5


def test_nearest_lines_skip_empty_ones():
    lines = tf.ragged.constant([["a", "b", "c"], [], ["a", "", ""]])
    assert context.nearest_lines(lines, 2, past=True).to_list() == [[b"c", b"b"], [], [b"a"]]
    assert context.nearest_lines(lines, 2, past=False).to_list() == [[b"a", b"b"], [], [b"a"]]


def test_the_context_is_the_second_segment_nearest_first():
    result = read("a b", ["c", "d: e"], context=2)
    assert result["input_word_ids"] == ids("[CLS] a b [SEP] d : e c [SEP]")
    assert result["input_type_ids"] == [0, 0, 0, 0, 1, 1, 1, 1, 1] and result["input_mask"] == [1] * 9
    words = {word: i + 2 for i, word in enumerate(WORDS)}
    assert result["word_ids"] == [words["a"], words["b"]]
    assert result["context_word_ids"] == [words[w] for w in ("d", ":", "e", "c")]


def test_the_future_follows_the_past_if_it_is_configured():
    result = read("a", ["b"], ["c", "d"], context=1, future=2)
    assert result["input_word_ids"] == ids("[CLS] a [SEP] b [SEP] c d [SEP]")
    assert result["input_type_ids"] == [0, 0, 0, 1, 1, 1, 1, 1] and len(result["context_word_ids"]) == 3
    assert read("a", ["b"], ["c", "d"], context=1) == read("a", ["b"], context=1)
    assert read("a", ["b"], ["c", "d"]) == read("a")


@pytest.mark.parametrize("limit", range(2, 9))
@pytest.mark.parametrize("count", [1, 3, 20])
def test_the_farthest_line_is_truncated_and_never_the_utterance(limit, count):
    utterance = " ".join("ab"[i % 2] for i in range(count))
    result = read(utterance, ["c c c", "d d", "e"], context=3, context_tokens=limit, max_tokens=64)
    expected = ids(f"[CLS] {utterance} [SEP]")
    assert result["input_word_ids"] == [*expected, *ids("e d d c c c")[: limit - 1], ID["[SEP]"]]
    assert len(result["context_word_ids"]) == min(limit, 6)
    assert read(utterance, context=3, max_tokens=64)["input_word_ids"] == expected


@pytest.mark.parametrize("past", [None, [""], ["", ""]])
def test_an_utterance_without_context_has_the_inputs_of_a_model_without_context(past):
    result, alone = read("a b", past, context=3), read("a b")
    assert all(result[name] == alone[name] for name in (*TEXT_NAMES, *WORD_NAMES)) and not any(
        result["context_word_ids"]
    )


def test_a_batch_of_mixed_rows():
    preprocess = Preprocessor((*TEXT_NAMES, *CONTEXT_NAMES), 8, TextConfig(context=2), PIECES, VOCABULARY)
    past = tf.constant([["c", "d"], ["", ""], ["", "e"]])
    result = preprocess({"utterance": tf.constant(["a", "a b", ""]), "context": past})
    rows = ["[CLS] a [SEP] d c [SEP]", "[CLS] a b [SEP]", "[CLS] [SEP] e [SEP]"]
    for i, row in enumerate(rows):
        length = len(row.split())
        assert result["input_word_ids"][i, :length].numpy().tolist() == ids(row)
        assert result["input_mask"][i].numpy().tolist() == [1] * length + [0] * (6 - length)
    assert result["context_word_ids"].shape == (3, 2) and not result["context_word_ids"][1].numpy().any()
    nothing = preprocess({"utterance": tf.constant(["a"]), "context": tf.zeros((1, 0), tf.string)})
    assert nothing["input_word_ids"].numpy().tolist() == [ids("[CLS] a [SEP]")]
