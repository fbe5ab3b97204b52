"""How pools start their processes."""

from __future__ import annotations

from multiprocessing.context import SpawnContext
from typing import Any


class Spawn(SpawnContext):
    """Processes that are not forked: TensorFlow's threads in this one would leave locks behind.

    It holds on to the locks that it gives: pebble drops its own before it ends its processes, and one that is still
    starting then does not find them, and says so in a traceback.
    """

    def __init__(self) -> None:
        self.locks: list[Any] = []

    def RLock(self) -> Any:
        """As it is, and kept."""
        self.locks.append(super().RLock())
        return self.locks[-1]
