"""The command that the user typed, for messages and reports."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def program() -> str:
    """Returns the name of this program: `emotion-tf` if installed, `python main.py` in a clone, or the module."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py":
        return "python -m emotion_tf"
    return "emotion-tf" if path.stem == "emotion-tf" else "python main.py"


def command() -> str:
    """Returns the whole command line."""
    return f"{program()} {shlex.join(sys.argv[1:])}".strip()
