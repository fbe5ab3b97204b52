"""CSV tables with text of users, which a spreadsheet must not take for formulas.

Text that a spreadsheet may evaluate gets an apostrophe in front (OWASP, "CSV Injection"), which spreadsheets take for
the mark of a text. A formula sign after a semicolon, a tab or a line break inside a text gets one, too: a spreadsheet
that separates cells by semicolons begins a cell there, even if the text is quoted. `read_csv` removes the apostrophes:
what `to_csv` has written is read as it was.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from emotion_tf import files
from emotion_tf.csv_rows import read_rows
from emotion_tf.errors import UserError

SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20"
FORMULA = re.compile(rf"'*[{SIGNS}\t\r\n]")
AFTER_SEPARATOR = rf"(?=['\"]*[{SIGNS}])"
INNER_FORMULA = re.compile(rf"([;\t\r\n]){AFTER_SEPARATOR}")
ESCAPED_INNER_FORMULA = re.compile(rf"([;\t\r\n])'{AFTER_SEPARATOR}")
MAX_BYTES = 1 << 26
HISTORY = "Expected the file that `train` wrote. Copy the run again, or remove the file, which no command needs."
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_csv(table: pd.DataFrame, path: Path | TextIO | None = None, **options: Any) -> Any:
    """`DataFrame.to_csv` without the index, with escaped texts and column names."""
    texts = {
        # no `map`, which would turn integers beside empty cells into floats
        name: pd.Series([escape(cell) for cell in table[name]], table.index, dtype=object)
        for name in table.columns
        if not is_numeric_dtype(table[name])
    }
    # the csv module of Python < 3.13 quotes no carriage return, at which a reader begins a new row
    is_broken = any(
        "\r" in cell for cells in [*texts.values(), table.columns] for cell in cells if isinstance(cell, str)
    )
    quoting = csv.QUOTE_NONNUMERIC if is_broken else csv.QUOTE_MINIMAL
    return table.assign(**texts).rename(columns=escape).to_csv(path, index=False, quoting=quoting, **options)


def read_csv(path: Path) -> pd.DataFrame:
    """Reads a table, all of whose cells are text. Columns without a name get one, as in pandas: `Unnamed: 2`.

    Raises:
        UserError: see `csv_rows.read_rows`.
        FileNotFoundError: there is no table.
    """
    (_, header), *rows = read_rows(path)
    names = [unescape(name) or f"Unnamed: {number}" for number, name in enumerate(header)]
    return pd.DataFrame([[unescape(cell) for cell in cells] for _, cells in rows], columns=names, dtype=str)


def read_history(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a `history.csv`, to the last bit: a row for each epoch.

    Raises:
        UserError: it is no table of numbers with these columns, which have a finite number in each row.
    """
    content = files.read_regular(path, MAX_BYTES)
    try:
        for _ in read_rows(path, columns):  # each as long as the header: pandas moves the cells of longer ones
            pass
    except UserError as error:
        raise UserError(f"{error} {HISTORY}") from None
    table = pd.read_csv(io.BytesIO(content), float_precision="round_trip")
    for name in columns:
        if not is_numeric_dtype(table[name]) or not np.isfinite(table[name]).all():
            raise UserError(f"{path}: Invalid column {name!r}. Expected finite numbers. {HISTORY}")
    return table


def escape(cell: Any) -> Any:
    """Puts an apostrophe before text that begins like a formula and is no number, and before formulas inside a text."""
    if not isinstance(cell, str):
        return cell
    cell = INNER_FORMULA.sub(r"\1'", cell)
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def unescape(cell: Any) -> Any:
    """Removes the apostrophes that `escape` has added."""
    if not isinstance(cell, str):
        return cell
    cell = cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
    return ESCAPED_INNER_FORMULA.sub(r"\1", cell)
