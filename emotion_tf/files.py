"""Writing so that nothing half-written is left behind."""

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

DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def _cannot_write(path: Path, error: OSError) -> str:
    return f"Cannot write {path}: {error.strerror}. Nothing was left behind; make room or choose another folder."


def _make(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(_cannot_write(path, error)) from None


def check_replaceable(path: Path, marker: str, what: str) -> None:
    """Refuses to let --overwrite remove a folder that is not of its kind: a slip of the name must cost nobody's files.

    Args:
        path: what is to be replaced; nothing, and an empty folder, always may.
        marker: the file that every folder of the kind holds.
        what: the kind, `data set`.

    Raises:
        UserError: something else is there, or the folder that the program runs in, or one above that.
    """
    if not path.exists():
        return
    here = Path.cwd()
    if path.resolve() in (here, *here.parents):
        raise UserError(f"{path} is the folder that this runs in, or above it. Expected another name.")
    if not (path / marker).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is no {what}: there is no {marker}. --overwrite replaces only that. Name another.")


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool = False, hint: str = "--overwrite replaces it") -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` when the block ends well, and is removed when it does not.

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
            raise UserError(f"{path} was made by somebody else meanwhile. Expected a new name; {hint}.")
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
def kept_folder(path: Path, purpose: str, overwrite: bool = False) -> Iterator[Path]:
    """As `new_folder`, for long work: what a killed or interrupted run has finished is there when it is run again.

    The folder beside `path` is `.NAME.partial`. An error that the user has to mend removes it.

    Args:
        path: what the folder becomes.
        purpose: a digest of all that the result depends on; what was left by another purpose is removed.
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
            _make(partial, path)
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
    """A temporary file name beside `path` that becomes `path` (replacing it) when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. The file is unchanged; make room or choose another place."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file or none of it."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
