"""Starts the command line: `emotion-tf`, `python main.py` or `python -m emotion_tf`."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

from emotion_tf import interrupts
from emotion_tf.program import command
from emotion_tf.terminal import say

ROOT = Path(__file__).resolve().parent.parent
OURS = ("emotion_tf", "tuning")


def main() -> int:
    """Imports the command line and runs it; returns the exit code, 2 if a package that it needs is not installed."""
    try:
        with interrupts.end_on_interrupt():  # an import that Ctrl-C ends would print a traceback
            from emotion_tf import cli
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in OURS:
            raise
        say(f"error: {sys.executable} has no package {package!r}. {_environment()}", file=sys.stderr)
        return 2
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # from main.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


def _environment() -> str:
    """Returns how to get, or to use, the environment of a clone; of an installed package, how to install it again."""
    if not (ROOT / "Makefile").is_file():
        return "Install emotion_tf again with pip, which installs what it needs."
    environment, setup = ROOT / ".venv/bin/activate", "make setup"
    if Path.cwd() != ROOT:
        setup = shlex.join(["make", "-C", str(ROOT), "setup"])
    steps = [f". {shlex.quote(os.path.relpath(environment))}", command()]
    return f"Use the environment of the project: {' && '.join([setup] * (not environment.exists()) + steps)}"


if __name__ == "__main__":
    sys.exit(main())
