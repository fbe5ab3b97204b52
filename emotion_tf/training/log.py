"""`train.log` in the folder of a run: the lines of the training, with their times."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from emotion_tf.locks import WriteError
from emotion_tf.training.setup import Say

LOG = "train.log"


class RunLog:
    """Passes lines on, and appends them to `train.log`; those of before `open` are written then.

    Args:
        say: receives the lines, too.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._path: Path | None = None
        self._waiting: list[str] = []

    def __call__(self, line: str) -> None:
        """Passes a line on, after it is on disk."""
        self._write([line])
        self._say(line)

    def open(self, folder: Path, command: str) -> None:
        """Begins to write into the folder of the run, with the command. Raises UserError if it cannot be written."""
        self._path = folder / LOG
        self._write([f"$ {command}", *self._waiting])

    def _write(self, lines: list[str]) -> None:
        if self._path is None:
            self._waiting += lines
            return
        now = datetime.now(timezone.utc).isoformat(" ", "seconds")
        text = "".join(f"{now} {line}\n" for line in lines).encode(errors="backslashreplace")
        try:
            # no link, which in somebody else's folder may lead to the user's other files
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with open(descriptor, "ab") as file:
                file.write(text)
        except OSError as error:
            raise WriteError(f"Cannot write {self._path}: {error.strerror}. Free some space, or remove it.") from None
