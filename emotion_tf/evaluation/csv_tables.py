"""CSV tables with text of users, which a spreadsheet must not take for formulas.

Text that a spreadsheet may evaluate gets an apostrophe in front (OWASP, "CSV Injection"), which spreadsheets take for
the mark of a text. `read_csv` removes it: what `to_csv` has written is read as it was.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_csv(table: pd.DataFrame, path: Path | None = None, **options: Any) -> Any:
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
    """Reads a table, all of whose cells are text. Raises OSError or ValueError if it is not readable."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return table.map(unescape).rename(columns=unescape)


def escape(cell: Any) -> Any:
    """Puts an apostrophe before text that begins like a formula, with or without apostrophes, and is no number."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def unescape(cell: Any) -> Any:
    """Removes the apostrophe that `escape` has added."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell) else cell
