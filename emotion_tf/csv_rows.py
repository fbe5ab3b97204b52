"""Reads CSV tables row by row: every row has the cells of the header, or is refused with its line.

pandas does not read them: it takes the first cells of rows that are all longer than the header for an index, which
moves every other cell, and fills short rows up.
"""

from __future__ import annotations

import csv
import errno
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from emotion_tf import files, remote
from emotion_tf.errors import UserError, nearest
from emotion_tf.streams import is_stream

MAX_BYTES = 1 << 30
MAX_COLUMNS = 1000
MAX_LINE = 1 << 20
csv.field_size_limit(MAX_LINE)  # also of a quoted cell of many lines; Python's own limit is 128 KiB
SHOWN_COLUMNS = 12
"""Number of columns in an error message."""


def count_rows(path: Path) -> int:
    """Returns the number of rows of a table of this program; 0 if there is none."""
    if not path.is_file():
        return 0
    with path.open(encoding="utf-8", newline="") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


def read_rows(path: Path, columns: Sequence[str] = (), strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yields the line (of its end, from 1) and the cells of each row of a CSV table, the header first.

    Args:
        path: the table, UTF-8.
        columns: columns that the header must have.
        strict: whether text behind the closing quote of a cell is an error.

    Raises:
        UserError: the table is in object storage, cannot be read, is no regular file, too large, empty, not UTF-8 or
            not CSV; the header lacks one of the `columns`, has a name twice (columns without one do not count), or has
            more than `MAX_COLUMNS`; a row has more or fewer cells than the header.
        FileNotFoundError: there is no table.
    """
    if remote.is_url(path):
        raise UserError(f"Cannot read {remote.url_of(path)}. Expected a table on this machine: copy it here first.")
    if not os.path.exists(path):  # nor a name that is too long
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    expected = f"a CSV file{_with_columns(columns)}"
    if is_stream(path):  # which would be gone when the table is read again
        expected += ", not a pipe. Write the output of the other command to a file"
    try:
        with (
            files.open_regular(path, MAX_BYTES, "table", expected) as binary,
            io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file,
        ):
            yield from parse_rows(path, _lines(path, file), columns, strict)
    except OSError as error:  # of a disk or a server, while the table is read
        raise UserError(f"Cannot read the table {path}: {error.strerror or error}. Copy it again.") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1]
        raise UserError(
            f"{path}: line {_undecodable_line(path)}: Expected UTF-8. Received: {byte!r}. Save the table as UTF-8."
        ) from None


def parse_rows(
    path: Path, lines: Iterable[str], columns: Sequence[str] = (), strict: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """`read_rows` for the lines of a table."""
    reader = csv.reader(lines, strict=strict)
    width = 0
    try:
        for cells in reader:
            if not width:
                _check_header(path, cells, columns)
                width = len(cells)
            elif not cells:  # a blank line, as some editors append
                continue
            _check_row(f"{path}: line {reader.line_num}", cells, width)
            yield reader.line_num, cells
    except csv.Error as error:
        if "field limit" in str(error):
            raise UserError(
                f"{path}: line {reader.line_num}: Expected at most {MAX_LINE:,} characters in a cell. Received: more. "
                "Close its quotes."
            ) from None
        raise UserError(
            f"{path}: line {reader.line_num}: Not a CSV table: {error}. Quote cells that hold a comma or a line break."
        ) from None
    if not width:
        raise UserError(f"{path}: The file is empty. Expected a CSV table{_with_columns(columns)}.")


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
        if len(line) == MAX_LINE:
            raise UserError(f"{path}: line {number}: Expected less than {MAX_LINE:,} characters. Received: more.")
        yield line


def _with_columns(columns: Sequence[str]) -> str:
    return f" with columns {', '.join(columns)}" if columns else ""


def _check_header(path: Path, header: list[str], columns: Sequence[str]) -> None:
    if not header:
        raise UserError(f"{path}: The file is empty. Expected a CSV table{_with_columns(columns)}.")
    if len(header) > MAX_COLUMNS:
        raise UserError(f"{path}: line 1: Expected at most {MAX_COLUMNS:,} columns. Received: {len(header):,}.")
    for column in columns:
        if column not in header:
            rest = ", ..." if len(header) > SHOWN_COLUMNS else ""
            raise UserError(
                f"{path}: line 1: No column {column!r}. Expected {', '.join(columns)}. Received: "
                f"{', '.join(header[:SHOWN_COLUMNS])}{rest}.{nearest(column, header)}"
            )
    duplicates = sorted(column for column, count in Counter(header).items() if count > 1 and column)
    if duplicates:
        raise UserError(
            f"{path}: line 1: Column {duplicates[0]!r} occurs twice. Expected each column once. Rename one."
        )


def _check_row(where: str, cells: list[str], width: int) -> None:
    if any("\0" in cell for cell in cells):
        raise UserError(f"{where}: A NUL byte in the row. Expected text. Save the table as UTF-8.")
    if len(cells) != width:
        raise UserError(
            f"{where}: Expected {width} cells as in the header. Received: {len(cells)}. Quote cells that hold a comma."
        )


def _undecodable_line(path: Path) -> int:
    """Returns the first line that is not UTF-8. The position in the reader's error is relative to its buffer."""
    data = path.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        data = data[: error.start]
    return data.count(b"\n") + 1
