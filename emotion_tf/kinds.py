"""Kinds of folders that commands write: how one is recognised, and when it is finished.

Functions of `os.path` return False for a folder that this user may not enter, where those of `Path` raise.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of folder that a command writes.

    Attributes:
        name: name of the kind, such as "data set".
        markers: files that every folder of the kind contains.
        result: file that only a finished folder contains; empty: the folder gets its name when it is finished.
        progress: glob patterns; an unfinished folder with such a file can be continued.
        signature: text in the first megabyte of the first marker, for a marker that other programs write, too.
    """

    name: str
    markers: tuple[str, ...]
    result: str = ""
    progress: tuple[str, ...] = ()
    signature: str = ""

    def matches(self, path: Path) -> bool:
        """Whether a path is a folder of this kind."""
        return os.path.isdir(path) and not self.mismatch(path)

    def mismatch(self, path: Path) -> str:
        """Returns what a folder lacks to be of this kind; empty: nothing."""
        for marker in self.markers:
            if not os.path.isfile(path / marker):
                return f"it has no {marker}"
        is_ours = not self.signature
        with contextlib.suppress(OSError), open(path / self.markers[0], "rb") as file:
            is_ours = self.signature.encode() in file.read(1 << 20)
        return "" if is_ours else f"another program wrote its {self.markers[0]}"

    def is_finished(self, path: Path) -> bool:
        """Whether a path is a finished folder of this kind."""
        return self.matches(path) and (not self.result or os.path.isfile(path / self.result))

    def has_progress(self, path: Path) -> bool:
        """Whether an unfinished folder can be continued."""
        return any(os.path.isfile(file) for pattern in self.progress for file in path.glob(pattern))

    def lacks_progress(self, path: Path) -> bool:
        """Whether a path is a folder of this kind that is not finished and cannot be continued."""
        return self.matches(path) and not (self.is_finished(path) or self.has_progress(path))
