"""Atomic writing of files and folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from emotion_tf.errors import UserError
from emotion_tf.streams import copy_to_stream, is_stream

DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def _cannot_write(path: Path, error: OSError) -> str:
    return f"Cannot write {path}: {error.strerror}. Nothing was written; free some space or choose another folder."


def _create(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from None


def check_replaceable(path: Path, marker: str, kind: str) -> None:
    """Checks that --overwrite deletes only a folder of the same kind.

    Args:
        path: folder to be replaced; may be missing or empty.
        marker: file that every folder of the kind contains.
        kind: kind of folder, such as "data set".

    Raises:
        UserError: `path` is another file or folder, or the working directory or a folder above it.
    """
    if not path.exists():
        return
    here = Path.cwd()
    if path.resolve() in (here, *here.parents):
        raise UserError(f"{path} is the working directory, or a folder above it. Expected another name.")
    if not (path / marker).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(
            f"{path} is no {kind}: it has no {marker}. --overwrite replaces only a {kind}. Choose another name."
        )


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False, hint: str = "--overwrite replaces it") -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `path` at the end of the block, and deleted after an exception.

    Raises:
        UserError: `path` exists and `overwrite` is false, or the disk is full or not writable.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists. Expected a new name; {hint}.")
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists() and not overwrite:
            raise UserError(f"{path} was created by another process meanwhile. Expected a new name; {hint}.")
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        if error.errno in DISK:
            raise UserError(_cannot_write(path, error)) from None
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def resumable_folder(path: Path, purpose: str, overwrite: bool = False) -> Iterator[Path]:
    """Like `new_folder`, for long tasks: after a kill or an interruption, the next call yields the unfinished folder.

    The unfinished folder is `.NAME.partial` beside `path`. A `UserError` deletes it.

    Args:
        path: final name of the folder.
        purpose: hash of everything that the result depends on; a folder with another purpose is deleted.
        overwrite: whether `path` may be replaced.

    Raises:
        UserError: `path` exists and `overwrite` is false, or the disk is full or not writable.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists. Expected a new name; --overwrite replaces it.")
    partial = path.with_name(f".{path.name}.partial")
    marker = partial / "purpose"
    try:
        if not marker.is_file() or marker.read_text(encoding="utf-8") != purpose:
            shutil.rmtree(partial, ignore_errors=True)
            _create(partial, path)
            marker.write_text(purpose, encoding="utf-8")
        yield partial
        marker.unlink()
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in DISK:
            raise UserError(_cannot_write(path, error)) from None
        raise
    except UserError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields the name of a temporary file that replaces `path` at the end of the block.

    A symbolic link is kept, and its target is replaced. If `path` is a stream (`streams.is_stream`), such as a pipe, a
    device or `-`, the content is written to it instead.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder, _write_errors(path, ""):
            temporary = Path(folder) / f"output{path.suffix}"
            yield temporary
            copy_to_stream(temporary, path)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}{target.suffix}")
    try:
        with _write_errors(path, " The file is unchanged; free some space or choose another folder."):
            yield temporary
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _write_errors(path: Path, consequence: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads the output, such as `| head`
        raise
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.{consequence}") from None


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
