"""The one exception that means "the user can fix this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line: what, where, the rule, the value received, the fix.

    The command line prints it without a traceback and ends with exit code 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ` Did you mean 'resnet50'?`, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
