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
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EFBIG,
            errno.EDQUOT,
            errno.EACCES,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
        ):
            raise UserError(
                f"Cannot write {path}: {error.strerror}. Nothing was left behind; make room or choose another folder."
            ) from None
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


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
