"""Consoles for tables; apart from `terminal`, because `--help` does not need rich."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from emotion_tf.terminal import printable

BORDER = 3
"""Characters of a column besides its text: a line and two spaces."""


def table_console(width: int) -> Console:
    """Returns a console for tables, of a width in columns if it is not a terminal."""
    return _PrintableConsole(width=None if Console().is_terminal else width)


class _PrintableConsole(Console):
    """Console that prints cells and titles as they are: `[red]` and `:smile:` stay, control characters are escaped.

    A table folds between words, never inside a number or a name: one that has no room for its longest words is printed
    as a list of its rows.
    """

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        return super().render(self._fit(renderable) if isinstance(renderable, Table) else renderable, options)

    def _fit(self, table: Table) -> Table | Text:
        for column in table.columns:
            words = [word for cell in (column.header, *column.cells) for word in printable(str(cell)).split()]
            column.min_width = max(map(cell_len, words), default=0)
        needed = sum((column.min_width or 0) + BORDER for column in table.columns) + 1
        return table if needed <= self.width else Text("\n\n".join(self._records(table)))

    def _records(self, table: Table) -> list[str]:
        """Returns a block of lines for each row: the title of each column that is not empty, and the cell."""
        titles = [" ".join(printable(str(column.header)).split()) for column in table.columns]
        indent = max(map(cell_len, titles), default=0) + 2
        blocks = [printable(str(table.title))] if table.title else []
        for row in zip(*(list(column.cells) for column in table.columns), strict=True):
            lines = []
            for title, cell in zip(titles, row, strict=True):
                text = printable(str(cell))
                if text.strip() or not title:
                    folded = textwrap.wrap(
                        text,
                        max(self.width, indent + 10),
                        initial_indent=title + " " * (indent - cell_len(title)),
                        subsequent_indent=" " * indent,
                        break_long_words=False,
                        break_on_hyphens=False,
                    )
                    lines += folded
            blocks.append("\n".join(lines))
        return blocks

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise  # to the command line; rich would exit here
