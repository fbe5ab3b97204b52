"""Atomic writing of files and folders, and reading of files that users name.

Beside a folder NAME there may be hidden folders. They stay after a kill; the next writer of NAME clears them up:

- `.NAME.unfinished` becomes NAME when it is complete; it is deleted after an error.
- `.NAME.partial` is the same for a long task, and is continued by the next call.
- `.NAME.replaced` is the folder that NAME replaces. It gets its name back if NAME is missing.
- `.NAME.deleted` contains what is being deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from emotion_tf import interrupts, locks
from emotion_tf.errors import UserError
from emotion_tf.kinds import Kind
from emotion_tf.locks import DISK, WriteError, advice, write_error
from emotion_tf.processes import is_alive
from emotion_tf.streams import copy_to_stream, is_stream


def check_replaceable(path: Path, kind: Kind) -> None:
    """Checks that --overwrite replaces only a folder of the same kind.

    Args:
        path: folder to be replaced; may be missing or empty.
        kind: kind of the new folder.

    Raises:
        UserError: `path` is another file or folder, a symbolic link, or the working directory or a folder above it.
    """
    if path.is_symlink():
        raise UserError(
            f"{path} is a symbolic link to {os.readlink(path)}. Only a folder is replaced, not what a link leads to. "
            "Remove the link, or choose another name."
        )
    if not path.exists():
        return
    here = Path.cwd()
    if path.resolve() in (here, *here.parents):
        raise UserError(f"{path} is the working directory, or a folder above it. Expected another name.")
    if not kind.matches(path) and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{path} is no {kind.name}: {kind.mismatch(path)}. --overwrite replaces only a {kind.name}. Choose another "
            "name."
        )


def replaced_folder(path: Path) -> Path:
    """Returns the name under which the folder is kept that `path` replaces."""
    return _beside(path, "replaced")


def partial(path: Path) -> Path:
    """Returns the folder that `resumable_folder` yields for `path`."""
    return _beside(path, "partial")


def recover(path: Path, kind: Kind) -> None:
    """Clears up after a dead process; the caller holds the lock of `path`.

    The replaced folder gets its name back if `path` is missing, and is deleted if `path` is finished.
    """
    delete(_beside(path, "unfinished"), path)
    old = replaced_folder(path)
    if kind.matches(old) and not os.path.lexists(path):
        old.rename(path)
    elif kind.matches(old) and kind.is_finished(path):
        delete(old, path)
    if not result(partial(path)).is_dir():  # it has become `path`; last, since it tells the next call so
        shutil.rmtree(partial(path), ignore_errors=True)


def restore_missing(path: Path, kind: Kind) -> None:
    """Gives a replaced folder its name back if the process that replaced it has died. For commands that read `path`."""
    if not os.path.lexists(path) and kind.matches(replaced_folder(path)):
        with contextlib.suppress(UserError, OSError), locks.writer(path):
            recover(path, kind)


def delete(path: Path, owner: Path | None = None) -> None:
    """Deletes a folder, if it exists. A kill leaves it whole, or under a name that nobody reads.

    What cannot be deleted, such as a file on NFS that a process has open, stays under that name.

    Args:
        path: the folder.
        owner: the folder whose next writer deletes what a kill has left. Default: `path`.
    """
    trash = _beside(owner or path, "deleted")
    with contextlib.suppress(OSError):
        if path.exists():
            trash.mkdir(exist_ok=True)
            path.rename(tempfile.mkdtemp(dir=trash))
    shutil.rmtree(trash, ignore_errors=True)


@contextlib.contextmanager
def new_folder(
    path: Path, kind: Kind, overwrite: bool = False, hint: str = "--overwrite replaces it"
) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `path` at the end of the block, and deleted after an exception.

    The lock of `path` is held. What is replaced is deleted after that; of a kind with a `result`, when that exists.

    Raises:
        UserError: `path` exists and `overwrite` is false, or is of another kind; another process writes it; the disk is
            full or not writable.
    """
    with locks.writer(path), _folder_errors(path):
        recover(path, kind)
        _check_new(path, kind, overwrite, hint)
        temporary = _beside(path, "unfinished")
        temporary.mkdir()
        try:
            yield temporary
            _check_new(path, kind, overwrite, hint)  # a program without our locks may have made it meanwhile
            _rename(temporary, path, kind)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def resumable_folder(path: Path, kind: Kind, overwrite: bool = False) -> Iterator[Path]:
    """Yields a folder for the parts of a long task, whose subfolder `result` is renamed to `path` at the end.

    After a kill or an exception, the next call yields the folder again: `.NAME.partial` beside `path`. The caller
    recognises the parts that it can use. It may delete the folder before it raises.

    Args:
        path: final name of the folder.
        kind: kind of the folder.
        overwrite: whether `path` may be replaced.

    Raises:
        UserError: as `new_folder`.
    """
    with locks.writer(path), _folder_errors(path):
        recover(path, kind)
        _check_new(path, kind, overwrite)
        folder = partial(path)
        result(folder).mkdir(parents=True, exist_ok=True)
        yield folder
        _check_new(path, kind, overwrite)
        _rename(result(folder), path, kind)
        shutil.rmtree(folder, ignore_errors=True)


def result(folder: Path) -> Path:
    """Returns the part of a `resumable_folder` that becomes the finished folder."""
    return folder / "result"


@contextlib.contextmanager
def growing_folder(
    path: Path, kind: Kind, resume: str, overwrite: bool = False, keep_failed: bool = False
) -> Iterator[None]:
    """Holds the lock of a folder in which a long task writes one file after the other.

    A folder that `new_folder` replaces inside the block is kept as `.NAME.replaced` until the new one has its result.
    After an exception, it gets its name back, unless the new one can be continued. Messages say what is kept. After a
    `UserError` that is not about the disk, a new folder of this kind without progress is deleted.

    Args:
        path: the folder.
        kind: kind of the folder.
        resume: sentence that says how to continue, for the message after an interruption or on a full disk.
        overwrite: whether the block replaces the folder rather than continues it.
        keep_failed: whether to keep a folder without progress, for its notes on what failed.
    """
    with locks.writer(path):
        recover(path, kind)
        before, is_new = _inode(path) if overwrite else None, not os.path.lexists(path)
        try:
            with interrupts.recognize_interruption():
                yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_keep(path, kind, resume, before)) from None
        except UserError as error:
            is_disk = isinstance(error, WriteError)
            if is_new and kind.lacks_progress(path) and not (is_disk or keep_failed):
                delete(path)
            raise UserError(f"{error} {_keep(path, kind, resume if is_disk else '', before)}".rstrip()) from None
        except BaseException:
            _keep(path, kind, "", before)
            raise
        recover(path, kind)


def _keep(path: Path, kind: Kind, resume: str, before: int | None) -> str:
    """Keeps the new folder if it can be continued, else the one that it replaces; returns sentences that say so."""
    old = replaced_folder(path)
    if is_restored := kind.matches(old) and kind.lacks_progress(path):
        delete(path)
    recover(path, kind)
    if is_restored or (before and _inode(path) == before):
        return f"{path} is as it was before."
    sentences = [f"{path} is kept. {resume}"] if resume and kind.matches(path) else []
    if kind.matches(old):
        sentences.append(f"The {kind.name} that it replaces stays in {old} until it is finished.")
    return " ".join(sentences)


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _check_new(path: Path, kind: Kind, overwrite: bool, hint: str = "--overwrite replaces it") -> None:
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists. Expected a new name; {hint}.")
    check_replaceable(path, kind)
    old = replaced_folder(path)
    if old.exists() and not kind.matches(old):
        raise UserError(f"{old} is in the way. Expected no such file or folder. Move it, or choose another name.")


def _rename(folder: Path, path: Path, kind: Kind) -> None:
    """Renames a folder to `path`. What is there is set aside; it is deleted if the new folder is finished."""
    if kind.matches(path):
        # the folder that is set aside stays until a later one is finished, which the one at `path` is not
        delete(path) if kind.matches(replaced_folder(path)) else path.rename(replaced_folder(path))
    try:
        folder.rename(path)  # an empty folder is replaced
    finally:
        recover(path, kind)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}.{suffix}")


@contextlib.contextmanager
def _folder_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise write_error(path, error) from None


@contextlib.contextmanager
def new_file(path: Path, follow: bool = False) -> Iterator[Path]:
    """Yields the name of a temporary file that replaces `path` at the end of the block.

    Args:
        path: the file. What is there is replaced, even a symbolic link, which may come with somebody else's folder.
        follow: for a path that the user typed. The target of a symbolic link is replaced. A stream
            (`streams.is_stream`), such as a pipe, a device or `-`, receives the content.
    """
    if follow and is_stream(path):
        with tempfile.TemporaryDirectory() as folder, _write_errors(path, ""):
            temporary = Path(folder) / f"output{path.suffix}"
            yield temporary
            copy_to_stream(temporary, path)
        return
    target = Path(os.path.realpath(path)) if follow else path
    temporary = _temporary(target)
    _remove(temporary)  # of an earlier process with this number, or a link
    try:
        with _write_errors(path, "The file is unchanged"):
            yield temporary
            temporary.replace(target)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # on a read-only disk the error that ends the block says more
        path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Returns the name of a temporary file beside `path`; deletes those of dead processes."""
    host = socket.gethostname()
    pattern = re.compile(re.escape(f".{path.name}.{host}.") + r"(\d+)" + re.escape(path.suffix))
    with contextlib.suppress(OSError):  # of another user, for example
        for name in os.listdir(path.parent):
            match = pattern.fullmatch(name)
            if match and not is_alive(int(match[1])):
                path.with_name(name).unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{host}.{os.getpid()}{path.suffix}")


@contextlib.contextmanager
def _write_errors(path: Path, consequence: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads the output, such as `| head`
        raise
    except OSError as error:
        end = f" {consequence}; {advice(error)}." if consequence else ""
        raise WriteError(f"Cannot write {path}: {error.strerror or error}.{end}") from None


def write_text(path: Path, text: str, follow: bool = False) -> None:
    """Writes a text file atomically, as `new_file` does."""
    with new_file(path, follow) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def open_regular(path: Path, max_bytes: int, what: str = "file", expected: str = "a file", where: str = "") -> BinaryIO:
    """Opens a regular file of at most `max_bytes`, without waiting for a pipe. Raises UserError for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        is_regular = stat.S_ISREG(status.st_mode)
        if is_regular and status.st_size <= max_bytes:
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        reason = f"More than {max_bytes:,} bytes" if is_regular else "Not a regular file"
    except OSError as error:
        reason = error.strerror or str(error)
    except ValueError:
        reason = "Invalid characters in its name"
    raise UserError(f"{where}Cannot read the {what} {path}: {reason}. Expected {expected}.")


def read_regular(path: Path, max_bytes: int, *texts: str, **named_texts: str) -> bytes:
    """Returns the content of a file that `open_regular` opens."""
    with open_regular(path, max_bytes, *texts, **named_texts) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1)  # `read(max_bytes)` would allocate as much
    if len(content) > size:
        raise UserError(f"{path} has grown while it was read. Expected a complete file. Rerun the command.")
    return content
