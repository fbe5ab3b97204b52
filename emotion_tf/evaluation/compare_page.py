"""The page of `compare`: a forest plot of the differences, and its tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emotion_tf import files
from emotion_tf.evaluation import pages
from emotion_tf.evaluation.axis import zoomed_axis
from emotion_tf.evaluation.compare import TitledTable
from emotion_tf.evaluation.significance import Bounds, Difference, format_bounds

NUMBER = re.compile(r"(< )?[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ± \d+\.\d+)?|-|", re.IGNORECASE)
INTERVAL = re.compile(r"(?P<value>.*\d) (?P<bounds>\[[^]]*\]|too few)")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: its title.
        is_number: whether each cell is a number, which is aligned right.
        has_bounds: whether numbers have an interval, which gets a cell of its own.
    """

    title: str
    is_number: bool
    has_bounds: bool


class Table(NamedTuple):
    """A table of the page: its cells are pairs of a value and an interval, which may be empty."""

    title: str
    columns: list[Column]
    rows: list[list[tuple[str, str]]]


class ForestRow(NamedTuple):
    """A difference in the forest plot, with its interval if that is known."""

    name: str
    difference: float
    bounds: Bounds
    text: str


def _split(cell: str) -> tuple[str, str]:
    match = INTERVAL.fullmatch(cell)
    return (match["value"], match["bounds"]) if match else (cell, "")


def _table(title: str, titles: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    rows = [[_split(cell) for cell in line] for line in lines]
    columns = [
        Column(name, all(NUMBER.fullmatch(value) for value, _ in cells), any(bounds for _, bounds in cells))
        for name, cells in zip(titles, zip(*rows, strict=True), strict=True)
    ]
    return Table(title, columns or [Column(name, False, False) for name in titles], rows)


def _forest_row(name: str, difference: Difference) -> ForestRow:
    bounds = (difference.low, difference.high)
    text = f"{difference.difference:+z.4f} {format_bounds(bounds, '+')}"
    return ForestRow(name, difference.difference, bounds if np.isfinite(bounds).all() else None, text)


def write_page(
    path: Path,
    tables: Sequence[TitledTable],
    differences: Sequence[tuple[str, Difference]],
    title: str,
    method: str,
) -> None:
    """Writes one self-contained HTML page, to a path that the user typed.

    Args:
        path: the HTML file.
        tables: title, columns and rows of each table.
        differences: differences of weighted F1, each with its name, for the forest plot.
        title: title of the page.
        method: the method in words.
    """
    forest = [_forest_row(*row) for row in differences]
    text = pages.render(
        "compare.html",
        title=title,
        tables=[_table(*table) for table in tables],
        forest=forest,
        axis=zoomed_axis([0.0, *(x for row in forest for x in (row.difference, *(row.bounds or ())))]),
        method=method,
    )
    files.write_text(path, text, follow=True)
