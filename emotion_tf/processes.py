"""Context with which pools start their processes."""

from __future__ import annotations

from multiprocessing.context import SpawnContext
from typing import Any


class Spawn(SpawnContext):
    """Spawn context: a fork would copy locks that TensorFlow's threads hold.

    The context keeps references to its locks. Pebble drops its own before its processes end, and a process that is
    still starting would fail with a traceback.
    """

    def __init__(self) -> None:
        self.locks: list[Any] = []

    def RLock(self) -> Any:
        """Creates a lock and keeps a reference to it."""
        self.locks.append(super().RLock())
        return self.locks[-1]
