"""Context with which pools start their processes, the end of these processes, and their memory."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any


class UninterruptedProcess(SpawnProcess):
    """A process that is born with Ctrl-C blocked, which would end its imports with a traceback."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        resource_tracker.ensure_running()  # its start would end the block
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the new process inherits
        try:
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Spawn(SpawnContext):
    """Spawn context: a fork would copy locks that TensorFlow's threads hold. The main process handles Ctrl-C.

    The context keeps references to its locks. Pebble drops its own before its processes end, and a process that is
    still starting would fail with a traceback.
    """

    Process = UninterruptedProcess

    def __init__(self) -> None:
        self.locks: list[Any] = []

    def RLock(self) -> Any:
        """Creates a lock and keeps a reference to it."""
        self.locks.append(super().RLock())
        return self.locks[-1]


def limit_memory(more: int) -> bool:
    """Limits the data of this process to what it has now and `more` bytes. Returns whether it could: Linux only."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except (ImportError, OSError):
        return False
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return True


def release_memory() -> None:
    """Returns freed memory to the system, which glibc keeps for later; other C libraries keep less of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def end_with_parent() -> None:
    """Makes this process of a pool end with its parent: after a kill it must not work beside the next command."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
