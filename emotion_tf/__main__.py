"""Starts the command line: `emotion-tf`, `python main.py` or `python -m emotion_tf`."""

from __future__ import annotations

import sys

from emotion_tf import interrupts


def main() -> int:
    """Imports the command line and runs it; returns the exit code."""
    with interrupts.deadly():  # an import that Ctrl-C ends would print a traceback
        from emotion_tf import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
