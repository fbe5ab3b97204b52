"""The exception for errors that the user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


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


def nearest(name: str, valid: Iterable[str], most: int = 1) -> str:
    """Returns a hint such as ` Did you mean 'resnet50'?` with at most so many names; empty if no name is similar."""
    return did_you_mean([repr(close) for close in difflib.get_close_matches(name, list(valid), n=most)])


def did_you_mean(names: Sequence[str]) -> str:
    """Returns a hint such as ` Did you mean A, B or C?`; empty without names."""
    listed = " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
    return f" Did you mean {listed}?" if listed else ""
