"""The exception for errors that the user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An invalid input. The message is one line: what, where, the rule, the value received, the fix.

    The command line prints it without a traceback and exits with code 2.
    """


MAX_LINE = 300
"""Largest number of characters of an error message."""
MAX_WORDS = (120, 60)
"""Largest number of characters of a word in a message that is longer, and in one that then still is."""


def shorten(message: str) -> str:
    """Returns a message as one line of at most `MAX_LINE` characters. Long words are cut in their middle first."""
    words = message.split()
    for length in MAX_WORDS:
        while len(" ".join(words)) > MAX_LINE and len(longest := max(words, key=len)) > length:
            words[words.index(longest)] = _cut(longest, length)
    return _cut(" ".join(words), MAX_LINE)


def _cut(text: str, length: int) -> str:
    """Returns a text with its middle cut out, if it is longer."""
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[: length - 3 - half]}...{text[-half:]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns a hint such as ` Did you mean 'resnet50'?`; empty if no name is similar."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
