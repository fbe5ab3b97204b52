"""Locks of folders: one process at a time writes a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from emotion_tf.errors import UserError
from emotion_tf.program import command
from emotion_tf.terminal import say

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
"""Errors of file systems without locks; EBADF: NFS locks only files that are open for writing."""

DISK = (
    errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST,
    errno.ENOTEMPTY, errno.EBUSY, errno.EXDEV, errno.ENAMETOOLONG,
)  # fmt: skip
"""Errors of a disk that is full or not writable, and of names in the way."""

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, None)
"""Those of a disk that is full, for which NumPy gives no number."""

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)

WAIT = 0.5
"""Seconds between two attempts to take a lock."""

ATTEMPTS = 1000
"""Attempts to create a lock file while other processes remove it or its folder."""

_descriptors: dict[Path, int] = {}
"""Lock file -> descriptor of the locks that this process holds."""


class Occupied(UserError):
    """Another process writes the folder."""


class WriteError(UserError):
    """A file or a folder cannot be written, for example on a full disk."""


def write_error(path: Path, error: OSError) -> WriteError:
    """Returns the error of a folder that cannot be written."""
    return WriteError(f"Cannot write {path}: {error.strerror}; {advice(error)}.")


def advice(error: OSError) -> str:
    """Returns what to do about an error of a disk, without a full stop."""
    return f"{'free some space or ' * (error.errno in FULL)}choose another folder"


@contextlib.contextmanager
def writer(path: Path, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a folder for the block. A process that holds it already may enter again.

    The lock file is `.NAME.lock` beside the folder, so that the folder can be replaced meanwhile. The kernel drops the
    lock of a process that dies; the file stays until the next writer ends. Missing parents of the folder are created,
    and removed if they stay empty. If no file can be written beside the folder, the folder itself is locked. On a file
    system without locks, the lock file alone is the lock, and stays after a kill until the user removes it.

    Args:
        path: the folder; may be missing.
        wait: whether to wait until no other process holds the lock.

    Raises:
        Occupied: another process holds the lock, and `wait` is false. The message says which.
        UserError: the lock file cannot be created.
    """
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.lock")
    if lock in _descriptors:
        yield
        return
    missing: list[Path] = []
    try:
        missing += [folder for folder in lock.parents if not folder.exists()]
        _descriptors[lock] = (_wait if wait else _acquire)(lock, path)
    except OSError as error:
        _remove_empty(missing)
        raise write_error(lock if os.path.isfile(lock) else path, error) from None
    try:
        yield
    finally:
        if descriptor := _descriptors.pop(lock, None):  # None in a forked process
            with contextlib.suppress(OSError):  # of another user, for example
                lock.unlink()  # before the lock is released: a later file of this name is another writer's
            os.close(descriptor)
            _remove_empty(missing)


def _wait(lock: Path, path: Path) -> int:
    has_printed = False
    while True:
        try:
            return _acquire(lock, path)
        except Occupied as error:
            if not has_printed:
                say(f"Waiting: {str(error).partition('. ')[0]}", flush=True)
            has_printed = True
            time.sleep(WAIT)


def _acquire(lock: Path, path: Path) -> int:
    """Returns the descriptor of the locked file. Raises Occupied or OSError."""
    while True:
        place, descriptor, is_new = _open(lock)
        try:
            _lock(descriptor, is_new, path, place)
            if _is_at(descriptor, place):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the file of a writer that has just ended


def _open(lock: Path) -> tuple[Path, int, bool]:
    """Opens the lock file, or the folder itself; returns its path, its descriptor, and whether the file is new."""
    folder = lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))
    for attempt in range(ATTEMPTS):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            return lock, os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), True
        except FileNotFoundError:  # another process has removed the empty parent
            if attempt == ATTEMPTS - 1:
                raise
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
                return lock, _open_existing(lock), False
        except OSError as error:
            if error.errno not in READ_ONLY or not (folder.is_dir() and os.access(folder, os.W_OK)):
                raise
            return folder, os.open(folder, os.O_RDONLY), False
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(lock))


def _open_existing(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:  # of another user
        return os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)


def _lock(descriptor: int, is_new: bool, path: Path, place: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not isinstance(error, BlockingIOError) and error.errno not in NO_LOCKS:
            raise
        holder = _holder(descriptor)
        if error.errno in NO_LOCKS:
            if is_new or place.is_dir():
                return
            holder += f" (this file system has no locks: if it was killed, remove {place})"
        raise Occupied(f"{path} is being written by {holder}. Wait until it ends, or choose another name.") from None


def _is_at(descriptor: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(place))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Writes who holds the lock. A full disk does not matter."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()} since {since}: {command()}\n"
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(errors="replace"), 0)


def _holder(descriptor: int) -> str:
    line = ""
    with contextlib.suppress(IsADirectoryError):
        line = os.pread(descriptor, 400, 0).decode(errors="replace").split("\n")[0]
    return "".join(character for character in line if character.isprintable()) or "another process"


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _forget() -> None:
    """Closes the descriptors in a forked process, which would hold the locks of its parent after the parent's end."""
    for descriptor in _descriptors.values():
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_forget)
