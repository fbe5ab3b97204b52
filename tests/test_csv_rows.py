"""Rows of CSV tables: the cells of the header, or an error with the line."""

import errno
import io
import os
import time
from pathlib import Path

import pytest

from emotion_tf import files
from emotion_tf.csv_rows import MAX_BYTES, MAX_COLUMNS, MAX_LINE, read_rows
from emotion_tf.errors import UserError
from emotion_tf.evaluation.csv_tables import read_csv
from emotion_tf.serving.tables import read_table


@pytest.fixture
def table(tmp_path):
    """Function that writes a table and returns its path."""

    def write(text):
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        return tmp_path / "table.csv"

    return write


def test_rows_have_their_line(table):
    rows = list(read_rows(table('a,b\n\n"1\n2",3\n4,"5, 6"\n'), ["b"]))
    assert rows == [(1, ["a", "b"]), (4, ["1\n2", "3"]), (5, ["4", "5, 6"])]


def test_a_table_in_object_storage_is_refused():
    with pytest.raises(UserError, match="Cannot read s3://bucket/t.csv. Expected a table on this machine: copy it"):
        list(read_rows(Path("s3://bucket/t.csv")))


@pytest.mark.parametrize("read", [lambda path: list(read_rows(path)), read_csv, lambda path: list(read_table(path))])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,utterance\n1,Hi, you\n2,Well, no\n", "line 2: Expected 2 cells as in the header. Received: 3. Quote"),
        ("id,utterance\n1,Hi,\n2,no,\n", "line 2: Expected 2 cells as in the header. Received: 3."),
        ("id,utterance\n1,Hi\n2,no,no\n", "line 3: Expected 2 cells as in the header. Received: 3."),
        ('id,utterance\n1,"a\nb"\n2\n', "line 4: Expected 2 cells as in the header. Received: 1."),
        ("id,id,utterance\n1,2,3\n", "line 1: Column 'id' occurs twice."),
        ('utterance\n"Hi\n', "line 2: Not a CSV table"),
        ("utterance\nH\0i\n", "line 2: A NUL byte"),
        ("", "The file is empty."),
    ],
)
def test_no_reader_moves_or_fills_cells(read, text, message, table):
    path = table(text)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "long line", "large", "none"])
def test_what_is_no_table_is_refused_at_once(kind, tmp_path):
    """A pipe may never end, and a line without an end takes the memory."""
    path = tmp_path / "table.csv"
    make = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "long line": lambda: path.write_bytes(b"a,b\n" + bytes(MAX_LINE)),
        "large": lambda: (path.touch(), os.truncate(path, MAX_BYTES + 1)),
        "none": lambda: None,
    }
    make[kind]()
    message = {
        "long line": "line 2: Expected less than 1,048,576 characters",
        "large": "Cannot read the table .*: More than 1,073,741,824 bytes",
        "none": "No such file or directory",
    }.get(kind, "Cannot read the table .*: Not a regular file. Expected a CSV file with columns a")
    with pytest.raises(FileNotFoundError if kind == "none" else UserError, match=message):
        list(read_rows(path, ["a"]))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have(name, tmp_path):
    with pytest.raises(UserError, match="Cannot read the table .*: No such file or directory"):
        list(read_table(tmp_path / name))


def test_a_table_is_text_in_its_columns(table):
    path = table("id,utterance\n01,'=1\n2,\n")
    assert read_csv(path).to_dict("list") == {"id": ["01", "2"], "utterance": ["=1", ""]}
    empty = read_csv(table("id,utterance\n"))
    assert list(empty) == ["id", "utterance"] and empty.empty


def test_many_columns_are_refused_at_once(table):
    path = table(",".join(map(str, range(100_000))) + "\n")
    began = time.monotonic()
    with pytest.raises(UserError, match="line 1: Expected at most 1,000 columns. Received: 100,000."):
        list(read_rows(path, ["split"]))
    assert time.monotonic() - began < 5
    names = [f"column{n}" for n in range(MAX_COLUMNS)]
    with pytest.raises(UserError, match=r"No column 'split'\. .*column11, \.\.\.\.") as caught:
        list(read_rows(table(",".join(names) + "\n"), ["split"]))
    assert len(str(caught.value)) < 400
    assert len(list(read_rows(table(",".join(names) + "\n")))) == 1


def test_a_disk_that_fails_while_a_table_is_read_is_one_line(table, monkeypatch):
    class FailingFile(io.BytesIO):
        def read1(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "open_regular", lambda *args: FailingFile())
    with pytest.raises(UserError, match=r"Cannot read the table .*table.csv: Input/output error\. Copy it again"):
        list(read_rows(table("a\n1\n")))


def test_a_cell_is_as_long_as_a_line(table):
    assert len(list(read_rows(table("a,b\n1," + "x" * (MAX_LINE - 10) + "\n")))[1][1][1]) == MAX_LINE - 10
    lines = ("x" * 1000 + "\n") * (MAX_LINE // 1000)
    with pytest.raises(UserError, match="line 10.*: Expected at most 1,048,576 characters in a cell.*Close its quotes"):
        list(read_rows(table(f'a\n"{lines}x' + lines)))


def test_columns_without_a_name(table):
    """As spreadsheets write them behind the last column."""
    (columns,) = read_table(table("utterance,,\nHi,2,\n"))
    assert columns == {"utterance": "Hi", "Unnamed: 1": "2", "Unnamed: 2": ""}


def test_the_output_of_a_command_is_refused_with_the_way_out():
    reader, writer = os.pipe()
    try:
        with pytest.raises(UserError, match=r"Not a regular file\. .*, not a pipe\. Write the output .* to a file"):
            list(read_table(Path(f"/dev/fd/{reader}")))
    finally:
        os.close(reader)
        os.close(writer)
