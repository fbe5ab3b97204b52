"""Starts the command line: `emotion-tf`, `python main.py` or `python -m emotion_tf`."""

from __future__ import annotations

import signal
import sys

from emotion_tf import interrupts


def main() -> int:
    """Imports the command line and runs it; returns the exit code."""
    with interrupts.end_on_interrupt():  # an import that Ctrl-C ends would print a traceback
        from emotion_tf import cli

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # from main.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
