"""The manifest: rows, and errors of invalid tables."""

from __future__ import annotations

import tracemalloc

import pytest
from helpers import largest_file
from small_tables import COLUMNS, write_table

from emotion_tf.data import manifest
from emotion_tf.data.arrangement import Arrangement
from emotion_tf.errors import UserError
from emotion_tf.labels import EMORYNLP_EMOTIONS, MELD_EMOTIONS, SENTIMENTS, label_set


def read(path, labels=MELD_EMOTIONS):
    return manifest.read_manifest(path, labels)


def fault(path, labels=MELD_EMOTIONS) -> str:
    with pytest.raises(UserError) as caught:
        read(path, labels)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def table(tmp_path, *rows, columns=COLUMNS):
    return write_table(tmp_path / "manifest.csv", rows, columns)


def test_cells_become_rows(tmp_path):
    path = table(
        tmp_path,
        {"utterance": 'He said "well,\nno", ☕', "faces": "a.jpg; b/c.png ;", "emotion": "fear", "weight": "0.5"},
        {"utterance_id": "1", "split": "dev", "speaker": "", "weight": ""},
        columns=(*COLUMNS, "weight"),
    )
    first, second = read(path)
    assert first.utterance == 'He said "well,\nno", ☕'
    assert first.faces == (tmp_path / "a.jpg", tmp_path / "b" / "c.png")
    assert first.label == MELD_EMOTIONS.index("fear") and first.weight == 0.5
    assert first.key == ("train", "0", "0")
    assert (second.split, second.speaker, second.faces, second.weight) == ("dev", "", (), 1.0)
    assert first.where.endswith("line 3") and second.where.endswith("line 4")  # a cell of two lines


def test_any_order_of_columns_further_columns_bom_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "m.csv"
    lines = ["note," + ",".join(reversed(COLUMNS)), "nan,,joy,Hi,Ilka,0,0,train", "", "x,,joy,Hi,Ilka,1,0,train", ""]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    assert [row.utterance_id for row in read(path)] == ["0", "1"]


def test_the_same_ids_in_another_split_are_another_dialogue(tmp_path):
    rows = read(table(tmp_path, {}, {"split": "dev"}, {"utterance_id": "1"}))
    arrangement = Arrangement(rows, 1)
    assert [arrangement.count_dialogues(split) for split in manifest.SPLITS] == [1, 1, 0]
    assert [len(past) + len(future) for past, future in map(arrangement.neighbours, range(3))] == [1, 0, 1]


def test_rows_between_those_of_a_dialogue_and_rows_without_text_are_no_neighbours(tmp_path):
    ids, texts = "aabababa", ["0", "1", "x", "", "y", "4", "z", "5"]
    cells = [
        {"dialogue_id": d, "utterance_id": str(i), "utterance": text, "faces": "a.jpg"}
        for i, (d, text) in enumerate(zip(ids, texts, strict=True))
    ]
    arrangement = Arrangement(read(table(tmp_path, *cells)), 2)
    around = [[[row.utterance for row in side] for side in arrangement.neighbours(i)] for i in range(len(ids))]
    assert around[1] == [["0"], ["4", "5"]] and around[3] == [["0", "1"], ["4", "5"]]
    assert around[4] == [["x"], ["z"]] and around[7] == [["1", "4"], []]


def test_rows_and_their_arrangement_take_few_bytes_a_row(tmp_path, monkeypatch):
    """40 at the peak, beside what the memory of arrays grows by in advance; a list of rows took 1 kB."""

    def peak(count):
        cells = ({"utterance_id": str(i), "dialogue_id": str(i // 10), "utterance": "Hi " * 50} for i in range(count))
        path = table(tmp_path, *cells)
        tracemalloc.start()
        rows = read(path)
        assert len(Arrangement(rows, 8).members("train")) == len(rows) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    monkeypatch.setattr(manifest.StoredRows, "CACHED", 10)
    monkeypatch.setattr(manifest.StoredRows, "IN_MEMORY", 1000)
    assert (peak(4000) - peak(1000)) / 3000 < 80


def test_a_full_folder_of_temporary_files_is_one_line(tmp_path, monkeypatch):
    path = table(tmp_path, *({"utterance_id": str(i), "utterance": "Hi " * 50} for i in range(100)))
    monkeypatch.setattr(manifest.StoredRows, "IN_MEMORY", 1000)
    with largest_file(8000), pytest.raises(UserError, match="Cannot write to .*: File too large. Free .* TMPDIR"):
        read(path)


def test_an_utterance_without_text_needs_a_face(tmp_path):
    assert read(table(tmp_path, {"utterance": "", "faces": "a.jpg"}))[0].utterance == ""
    assert "line 2: Neither an utterance nor a face" in fault(table(tmp_path, {"utterance": " ", "faces": " ; "}))


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"emotion": "joyy"}, ["Unknown emotion", "neutral, joy", "'joyy'", "Did you mean 'joy'?", "--labels"]),
        ({"emotion": ""}, ["Unknown emotion", "''"]),
        ({"emotion": "Joy"}, ["Unknown emotion", "Did you mean 'joy'?"]),
        ({"split": "trian"}, ["Invalid split", "train, dev, test", "Did you mean 'train'?"]),
        ({"dialogue_id": ""}, ["'dialogue_id' is empty"]),
        ({"utterance_id": "  "}, ["'utterance_id' is empty"]),
        *(({column: value}, [f"'{column}'", "missing value"]) for column in COLUMNS for value in ("nan", "NaN")),
        ({"faces": "../secret.jpg"}, ["leaves the manifest's folder", "'../secret.jpg'"]),
        ({"faces": "ok.jpg;a/../../b.jpg"}, ["leaves the manifest's folder", "'a/../../b.jpg'"]),
        ({"faces": "a;" * 1001}, ["Expected at most 1,000 faces. Received: 1,001."]),
        ({"faces": "/etc/passwd"}, ["leaves the manifest's folder", "'/etc/passwd'"]),
        ({"utterance": "a\0b"}, ["NUL"]),
        ({"weight": "heavy"}, ["Invalid weight", "'heavy'"]),
        ({"weight": "-1"}, ["Invalid weight", "'-1'"]),
        ({"weight": "nan"}, ["Invalid weight", "'nan'"]),
        ({"weight": "inf"}, ["Invalid weight", "'inf'"]),
        ({"weight": "1e39"}, ["Invalid weight", "'1e39'"]),
        ({"utterance_id": "before"}, ["Duplicate key", "split=train, dialogue_id=0, utterance_id=before", "line 2"]),
    ],
)
def test_an_invalid_row_is_an_error_with_its_line(row, parts, tmp_path):
    good = {"utterance_id": "before"}
    message = fault(table(tmp_path, good, row, columns=(*COLUMNS, "weight") if "weight" in row else COLUMNS))
    assert "line 3: " in message
    assert all(part in message for part in parts), message


def test_a_split_without_positive_weights(tmp_path):
    rows = [{"weight": "1"}, {"split": "dev", "weight": "0"}, {"split": "dev", "utterance_id": "1", "weight": "0.0"}]
    assert "All weights of dev are 0" in fault(table(tmp_path, *rows, columns=(*COLUMNS, "weight")))


def test_a_link_to_a_file_outside_the_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    (inside / "near.jpg").write_bytes(b"here")
    (inside / "far.jpg").symlink_to(tmp_path / "outside.jpg")
    (inside / "link.jpg").symlink_to(inside / "near.jpg")
    assert read(table(inside, {"faces": "link.jpg"}))[0].faces == (inside / "near.jpg",)
    assert "leaves the manifest's folder" in fault(table(inside, {"faces": "far.jpg"}))


HEADER = ",".join(COLUMNS)
LONG = "".join(f"train,0,{i},Ilka,Hi there,joy,\n" for i in range(2000))


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["empty", HEADER.replace(",", ", ")]),
        (b"\n", ["empty"]),
        (HEADER.encode(), ["has no row"]),
        (HEADER.encode() + b"\n\n\n", ["has no row"]),
        (HEADER.replace("emotion", "emotions").encode(), ["line 1", "No column 'emotion'", "Did you mean 'emotions'?"]),
        (HEADER.replace(",", ";").encode(), ["line 1", "No column 'split'"]),
        ((HEADER + ",faces").encode(), ["line 1", "'faces' occurs twice"]),
        ((HEADER + "\ntrain,0,0,Ilka,Hi, you,joy,\n").encode(), ["line 2", "Expected 7 cells", "Received: 8"]),
        ((HEADER + "\ntrain,0,0\n").encode(), ["line 2", "Expected 7 cells", "Received: 3"]),
        ((HEADER + '\ntrain,0,0,Ilka,"Hi,joy,\n').encode(), ["line 2", "Not a CSV table"]),
        ((HEADER + '\ntrain,0,0,Ilka,"Hi" you,joy,\n').encode(), ["line 2", "Not a CSV table"]),
        ((HEADER + "\ntrain,0,0,Ilka," + "x" * 1_200_000 + ",joy,\n").encode(), ["line 2"]),
        ((HEADER + "\n").encode() + "train,0,0,Ilka,café,joy,\n".encode("latin-1"), ["line 2", "UTF-8", r"b'\xe9'"]),
        ((HEADER + "\n" + LONG).encode() + b"\xff\n", ["line 2002", "UTF-8", r"b'\xff'"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0", ["UTF-8"]),
    ],
)
def test_an_invalid_file(content, parts, tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    message = fault(path)
    assert all(part in message for part in parts), message


def test_no_file_and_a_folder(tmp_path):
    assert "No such file" in fault(tmp_path / "none.csv")
    assert "Not a regular file" in fault(tmp_path)


@pytest.mark.parametrize("labels", [SENTIMENTS, EMORYNLP_EMOTIONS, ("b", "a")])
def test_rows_take_any_labels(labels, tmp_path):
    rows = [{"utterance_id": str(i), "emotion": label} for i, label in enumerate(labels)]
    assert [row.label for row in read(table(tmp_path, *rows), labels)] == list(range(len(labels)))


def test_label_sets():
    assert label_set(["meld"]) == MELD_EMOTIONS and label_set(("x", "y")) == ("x", "y")
    for names in (
        [],
        ["mled"],
        ["one"],
        ["a", "a"],
        ["a", ""],
        ["a", " b"],
        ["a", "b\nc"],
        ["a", "b" * 101],
        ["a\x1b", "b"],
    ):
        with pytest.raises(UserError, match="--labels"):
            label_set(names)
    with pytest.raises(UserError, match="Did you mean 'meld'"):
        label_set(["mled"])
