"""Word embeddings from GloVe's and word2vec's files: exact vectors, and the line or byte of damage."""

import dataclasses

import numpy as np
import pytest
from helpers import train_run

from emotion_tf.data.embeddings import format_coverage, read_embeddings
from emotion_tf.data.tokenizer import WordVocabulary
from emotion_tf.errors import UserError

WORDS = ["the", "well", "chandler", "naïve", "unknown", "other"]
VECTORS = {"the": [0.1, -2.5, 3e-7], "Well": [1, 2, 3], "well": [4, 5, 6], "Chandler": [7, 8, 9], "CHANDLER": [0, 0, 1]}
VECTORS |= {"naïve": [1e10, 0.25, -1], ". . .": [3, 2, 1], "other": [5, 5, 5]}


def lines(vectors):
    return [f"{word} {' '.join(map(str, numbers))}" for word, numbers in vectors.items()]


def write(path, kind, vectors=VECTORS):
    if kind == "bin":
        # a space ends the word there
        rows = [w.encode() + b" " + np.array(v, "<f4").tobytes() + b"\n" for w, v in vectors.items() if " " not in w]
        path.write_bytes(f"{len(rows)} 3\n".encode() + b"".join(rows))
    else:
        path.write_text(
            "\n".join(([f"{len(vectors)} 3"] if kind == "word2vec" else []) + lines(vectors)) + "\n", encoding="utf-8"
        )
    return path


@pytest.fixture(params=["glove", "word2vec", "bin"])
def file(request, tmp_path):
    return write(tmp_path / ("v.bin" if request.param == "bin" else "v.txt"), request.param)


def test_exact_vectors(file):
    embeddings = read_embeddings(file, WORDS)
    assert embeddings.known.tolist() == [True, True, True, True, False, True]
    expected = np.array([VECTORS[word] for word in ("the", "well", "Chandler", "naïve", "other")], np.float32)
    np.testing.assert_array_equal(embeddings.vectors[embeddings.known], expected)
    assert embeddings.vectors.dtype == np.float32 and not embeddings.vectors[4].any()


def test_a_contraction_in_two_parts(tmp_path):
    vector_of = {
        "do": [1, 2, 4],
        "n't": [3, 0, -2],
        "I": [2, 2, 2],
        "'m": [0, 4, 8],
        "it's": [7, 7, 7],
        "it": [0, 0, 0],
    }
    path = write(tmp_path / "v.txt", "glove", {**vector_of, "'s": [1, 1, 1]})
    embeddings = read_embeddings(path, ["don't", "i'm", "it's", "n't", "won't", "'s", "we're", "'m's"])
    expected = [[2, 1, 1], [1, 3, 5], [7, 7, 7], [3, 0, -2], [0, 0, 0], [1, 1, 1], [0, 0, 0], [0.5, 2.5, 4.5]]
    assert embeddings.vectors.tolist() == expected and embeddings.vectors.dtype == np.float32
    assert embeddings.known.tolist() == [True, True, True, True, False, True, False, True]


def test_a_contraction_with_one_part_is_no_word_of_the_training_split(tmp_path):
    path = write(tmp_path / "v.txt", "glove", {"do": [1, 2, 4], "zzz": [3, 0, -2]})
    with pytest.raises(UserError, match="none of the 2 words"):
        read_embeddings(path, ["don't", "well"])


def test_a_binary_file_without_line_ends(tmp_path):
    path = tmp_path / "v.bin"
    path.write_bytes(b"2 2\nthe " + np.array([1, 2], "<f4").tobytes() + b"well " + np.array([3, 4], "<f4").tobytes())
    assert read_embeddings(path, WORDS).vectors[:2].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("first", [". . .", "at name@domain.com", "2004"])
def test_the_first_word_may_hold_spaces_or_be_a_number(tmp_path, first):
    path = tmp_path / "v.txt"
    path.write_text(f"{first} 1 2 3\nthe 4 5e-3 6\n")
    assert read_embeddings(path, WORDS).vectors[0].tolist() == np.array([4, 5e-3, 6], np.float32).tolist()


def test_coverage_by_hand():
    text = format_coverage(np.array([True, False, True, False]), np.array([90, 6, 4, 0]))
    assert text == "2 of 4 words known (50.0 %; 94.0 % of the running words)"


def test_words_are_counted_as_the_model_sees_them():
    words = WordVocabulary(["the", "well", "!"])
    assert words.counts(["The the, well!", "", "who? THE"]).tolist() == [3, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        ("v.txt", b"the 1 2 3\nwell 1 2\n", ["line 2", "a word and 3 numbers", "3 cells"]),
        ("v.txt", b"the 1 2 3\nwell 1 x 3\n", ["line 2", "Expected numbers", "b'x'"]),
        ("v.txt", b"the 1 2 3\n\nwell 1 2 3\n", ["line 2"]),
        ("v.txt", b"the 1 2 nan\n", ["line 1", "finite", "nan"]),
        ("v.txt", b"3 2\nthe 1 2\nwell 3 4\n", ["line 3", "Expected 3 words", "Received: 2"]),
        ("v.txt", b"3 2\nthe 1 2 3 4 5\n", ["line 2"]),
        ("v.txt", b"", ["line 1"]),
        ("v.txt", b"zzz 1 2\n", ["none of the 6 words"]),
        ("v.txt", b"\xff\xfe\n", ["line 1"]),
        ("v.txt", b"the 1 2 3\nwell 1 2 3 4\n", ["line 2", "a word and 3 numbers", "5 cells"]),
        ("v.txt", b"the 1 2\n 3 4\n", ["line 2", "a word and 2 numbers"]),
        ("v.txt", b"the 1 2\nno_word_here 3 x\n", ["line 2", "Expected numbers", "b'x'"]),
        ("v.txt", b"the 1 2\nno_word_here 3 nan\n", ["line 2", "finite", "nan"]),
        ("v.txt", b"the 1 2\nno_word_here  2\n", ["line 2", "Expected numbers"]),
        ("v.txt", b"the 1 2\nna\xefve 3 4\n", ["line 2", "UTF-8", r"b'na\xefve'"]),
        ("v.bin", b"2 1\nthe \0\0\0\0\nna\xefve \0\0\0\0\n", ["byte 12", "UTF-8"]),
        ("v.bin", b"2 1\nthe \0\0\0\0\nno_word_here \0\0\xc0\x7f\n", ["byte 12", "finite"]),
        ("v.bin", b"1 1\nthe \0\0\0\0\nwell \0\0\0\0\n", ["byte 12", "after 1 word,", "more"]),
        ("v.txt", b"the" + b" 1" * 4097 + b"\n", ["line 1", "1 to 4096 numbers"]),
        ("v.txt", b"1 500000\nthe 1\n", ["line 1", "1 to 4096 numbers", "b'500000'"]),
        ("v.txt", b"the 1 2\nwell " + b"1" * 200_000, ["line 2", "Expected a word and 2 numbers"]),
        ("v.bin", b"1 500000\nthe \0\0\0\0", ["byte 0", "1 to 4096 numbers", "b'500000'"]),
        ("v.bin", b"", ["byte 0", "two counts"]),
        ("v.bin", b"the 1 2 3\n", ["byte 0", "two counts"]),
        ("v.bin", b"2 2\nthe \0\0\0\0\0\0\0\0well \0\0", ["byte 16", "word 2 of 2"]),
        ("v.bin", b"2 2\n" + b"x" * 5000, ["byte 4", "word 1 of 2"]),
        ("v.bin", b"1 1\nthe \0\0\xc0\x7f", ["byte 4", "finite"]),
    ],
)
def test_a_damaged_file_is_an_error_with_file_and_place(tmp_path, name, content, messages):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_embeddings(path, WORDS)
    assert all(part in str(caught.value) for part in [str(path), *messages]), caught.value
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read the word embeddings .*none\.txt: No such file"):
        read_embeddings(tmp_path / "none.txt", WORDS)


@pytest.mark.slow
def test_vectors_are_stored_in_the_run_without_the_file(small_config, tmp_path):
    """The embeddings are frozen, so that training does not change them."""
    from emotion_tf.runs.run import Run

    path = write(tmp_path / "v.txt", "glove", {"the": [1.5, 2.5], "you": [-1, 0.125], "no_word_here": [9, 9]})
    text = dataclasses.replace(
        small_config.text, branches=("gru", "cnn"), embeddings=str(path), train_embeddings=False, cnn_filters=4
    )
    train = dataclasses.replace(small_config.train, epochs=1, steps_per_epoch=2)
    messages = []
    config = dataclasses.replace(small_config, towers=("text",), text=text, train=train)
    run = Run(tmp_path / "run")
    train_run(config, run.path, say=messages.append)
    assert any(f"Word embeddings of {path}: 2 of" in line and "% of the running words)" in line for line in messages)
    path.unlink()
    assert run.word_dim == 2 and run.config == config  # which keeps the configured width
    table = np.asarray(run.model.towers["text"].find_layer("word_embedding").embeddings)
    words = (run.path / "words.txt").read_text().split("\n")
    unknown, the, you = 1, words.index("the") + 2, words.index("you") + 2
    assert table[[the, you]].tolist() == [[1.5, 2.5], [-1, 0.125]]
    assert table[unknown].tolist() == [0.25, 1.3125]  # the mean of both
    rest = np.delete(table, [unknown, the, you], axis=0)
    assert rest.any(axis=1).all() and np.abs(rest).max() < 0.1
