"""The command that the user typed: messages and reports name it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def program() -> str:
    """Returns how this program is called: `emotion-tf` when installed, `python main.py` in a clone."""
    return "emotion-tf" if Path(sys.argv[0]).stem == "emotion-tf" else "python main.py"


def command() -> str:
    """Returns the whole command line, as kept in reports."""
    return f"{program()} {shlex.join(sys.argv[1:])}".strip()
