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
        cells = [[printable(str(cell)) for cell in (column.header, *column.cells)] for column in table.columns]
        widths = [max((cell_len(word) for cell in column for word in cell.split()), default=0) for column in cells]
        spare = self.width - sum(width + BORDER for width in widths) - 1
        if spare < 0:
            return Text("\n\n".join(self._records(table)))
        # rich's own widths may exceed the terminal by a column, which it then cuts off
        missing = [
            max(map(cell_len, "\n".join(column).splitlines()), default=0) - width
            for column, width in zip(cells, widths, strict=True)
        ]
        while spare and max(missing) > 0:
            widest = missing.index(max(missing))
            widths[widest], missing[widest], spare = widths[widest] + 1, missing[widest] - 1, spare - 1
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        return table

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
