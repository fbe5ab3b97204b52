"""The command that the user typed, for messages and reports."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

_words: ContextVar[Sequence[str] | None] = ContextVar("_words", default=None)


@contextlib.contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Takes these words for those that the user typed, inside the block: for calls from Python."""
    token = _words.set(words)
    try:
        yield
    finally:
        _words.reset(token)


def program() -> str:
    """Returns the name of this program: `emotion-tf` if installed, `python main.py` in a clone, or the module."""
    if _words.get() is not None:
        return "python main.py" if Path("main.py").is_file() else "emotion-tf"
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m emotion_tf"
    return "emotion-tf" if path.stem == "emotion-tf" else "python main.py"


def command() -> str:
    """Returns the whole command line; of a call from Python, the one that does the same."""
    words = _words.get()
    return f"{program()} {shlex.join(sys.argv[1:] if words is None else words)}".strip()
