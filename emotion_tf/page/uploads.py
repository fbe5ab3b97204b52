"""The files that visitors uploaded: which of them may be opened, and how much room they take together."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UPLOAD_SECONDS = 600.0
"""Age at which an upload is deleted."""
SWEEP_SECONDS = 60.0
"""Time between two searches for old uploads."""
QUOTA_FACTOR = 10
"""All uploads together may take this many times the largest."""
SMALLEST_FILE, SMALLEST_REQUEST = 1000, 30
"""A file and a request count as at least these fractions of the quota, which limits their numbers."""


@dataclass(frozen=True)
class _File:
    path: Path
    changed: float
    size: int


class Uploads:
    """The folder of the uploads. The files that it already has belong to the page and are never deleted.

    Gradio writes a file into the folder while it is received, and moves it to `FOLDER/HASH/NAME` when it is complete.

    Args:
        folder: the folder, without links in its path.
        largest: largest size of an upload in bytes.

    Attributes:
        largest: largest size of an upload in bytes.
        quota: largest size of all uploads in bytes.
    """

    def __init__(self, folder: Path, largest: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.largest, self.quota = folder, largest, QUOTA_FACTOR * largest
        self._own = frozenset(path for path in folder.rglob("*") if path.is_file())
        self._reserved: list[int] = []
        self._lock = threading.Lock()

    def find(self, name: object) -> Path | None:
        """Returns the complete upload with this path. Returns None for any other value, without opening the file."""
        path = Path(os.path.normpath(name)) if isinstance(name, str) else None
        # first by its name: to ask the system about a foreign path may take forever
        if path is None or path.parent.parent != self._folder:
            return None
        try:
            return path if path.resolve(strict=True) == path and path.is_file() else None
        except (OSError, ValueError):  # ValueError: a null character
            return None

    def reserve(self, size: int) -> int:
        """Reserves room for a request, and deletes the oldest uploads if that is necessary.

        Returns:
            The reserved bytes, which must be given to `release`; 0 if there is no room.
        """
        with self._lock:
            size = max(size, self.quota // SMALLEST_REQUEST)
            files = self._files()
            complete = [file for file in files if file.path.parent != self._folder]
            needed = sum(self._reserved) + size
            free = shutil.disk_usage(self._folder).free
            excess = max(needed + sum(file.size for file in files) - self.quota, needed - free)
            if excess > sum(file.size for file in complete):
                return 0
            for file in complete:
                if excess <= 0:
                    break
                self._delete(file.path)
                excess -= file.size
            self._reserved.append(size)
            return size

    def release(self, size: int) -> None:
        """Ends a reservation. With the last of them, what is left of cancelled uploads is deleted."""
        with self._lock:
            self._reserved.remove(size)
            if not self._reserved:
                for file in self._files():
                    if file.path.parent == self._folder:
                        self._delete(file.path)

    def sweep(self, age: float) -> None:
        """Deletes the uploads that are older than `age` seconds; Gradio does not know of those that were cancelled."""
        now = time.time()
        with self._lock:
            for file in self._files():
                if now - file.changed > age:
                    self._delete(file.path)
            for folder in self._folder.iterdir():
                with contextlib.suppress(OSError):  # it is a file, or not empty
                    if now - folder.stat().st_ctime > age:
                        folder.rmdir()

    def _delete(self, path: Path) -> None:
        with contextlib.suppress(OSError):  # Gradio may have deleted it
            path.unlink()
            if path.parent != self._folder:
                path.parent.rmdir()

    def _files(self) -> list[_File]:
        """Returns the visitors' files, the oldest first."""
        files = []
        for inside, _, names in os.walk(self._folder):
            for path in (Path(inside, name) for name in names):
                with contextlib.suppress(OSError):  # Gradio may have deleted or moved it
                    status = path.lstat()
                    if path not in self._own:
                        files.append(_File(path, status.st_ctime, max(status.st_size, self.quota // SMALLEST_FILE)))
        return sorted(files, key=lambda file: file.changed)

    @contextlib.contextmanager
    def swept(self) -> Iterator[None]:
        """Deletes old uploads while the block runs."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(SWEEP_SECONDS):
                self.sweep(UPLOAD_SECONDS)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
