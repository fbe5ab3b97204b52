"""The SHA-256 of each file of a folder, in the format of `sha256sum -c`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.locks import WriteError

MAX_BYTES = 1 << 20
NAME = "SHA256SUMS"


def write(folder: Path) -> None:
    """Writes the checksums of all files of a folder into it."""
    lines = [f"{files.sha256(folder / name)}  {name}\n" for name in _names(folder)]
    files.write_text(folder / NAME, "".join(lines))


def find_damage(folder: Path) -> str:
    """Returns the first file that is missing, has changed or does not belong to a folder; empty: all is as written.

    A folder without checksums, of an earlier version of the program, gets them.
    """
    if not (folder / NAME).exists():
        with contextlib.suppress(OSError, WriteError):  # a folder that cannot be written
            write(folder)
        return ""
    try:
        lines = files.read_regular(folder / NAME, MAX_BYTES).decode(errors="replace").splitlines()
    except UserError:
        return NAME
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted({*listed, *_names(folder)}):
        if not _matches(folder / name, listed.get(name)):
            return name or NAME
    return ""


def _matches(path: Path, digest: str | None) -> bool:
    try:
        return digest is not None and path.is_file() and files.sha256(path) == digest
    except OSError:  # of another user, for example
        return False


def _names(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths if path != folder / NAME)
