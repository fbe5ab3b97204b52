"""The exception for errors that the user can fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An invalid input. The message is one line: what, where, the rule, the value received, the fix.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns a hint such as ` Did you mean 'resnet50'?`; empty if no name is similar."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
