"""Consoles for tables; apart from `terminal`, because `--help` does not need rich."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from emotion_tf.terminal import printable


def table_console(width: int) -> Console:
    """Returns a console for tables, of a width in columns if it is not a terminal."""
    return _PrintableConsole(width=None if Console().is_terminal else width)


class _PrintableConsole(Console):
    """Console that prints cells and titles as they are: `[red]` and `:smile:` stay, control characters are escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    def on_broken_pipe(self) -> None:
        raise  # to the command line; rich would exit here
