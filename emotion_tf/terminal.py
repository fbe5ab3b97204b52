"""Printing: control characters in the text of users are shown, not sent to the terminal.

An escape sequence in a text, a label, a file name or the answer of a server could colour, hide or rewrite what else is
printed, and a bidirectional override could reorder it.
"""

from __future__ import annotations

import re
from typing import Any

# control characters but tab and line break; marks, embeddings, overrides and isolates of direction; line and paragraph
# separators; and halves of surrogate pairs, which stand for bytes of a file name that are not UTF-8
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


_shown: dict[str, str] = {}
"""Local copy of something in object storage -> its URL, which is printed in place of it."""


def show_as(text: str, url: str) -> None:
    """Prints a URL from now on wherever the path of its local copy would be printed."""
    _shown[text] = url


def with_urls(text: str) -> str:
    """Returns a text with the URLs of `show_as` in place of the paths of local copies."""
    for path, url in _shown.items():
        text = text.replace(path, url)
    return text


def printable(text: str) -> str:
    r"""Returns a text with its control characters escaped as in Python, such as `\x1b` and `\u202e`."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def say(text: str = "", **options: Any) -> None:
    """Prints a `printable` text; `options` are those of `print`."""
    print(printable(with_urls(text)), **options)
