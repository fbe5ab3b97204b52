"""The SHA-256 of each file of a folder, in the format of `sha256sum -c`."""

from __future__ import annotations

from pathlib import Path

from emotion_tf import files
from emotion_tf.errors import UserError

MAX_BYTES = 1 << 20
NAME = "SHA256SUMS"


def write(folder: Path) -> None:
    """Writes the checksums of all files of a folder into it, but for hidden ones; the caller alone knows the folder."""
    lines = [f"{files.sha256(folder / name)}  {name}\n" for name in _names(folder)]
    files.write_text(folder / NAME, "".join(lines))


def find_damage(folder: Path) -> str:
    """Returns the first file that is missing, has changed or does not belong to a folder; empty: all is as written.

    Hidden files, such as those of a file system or of a killed process, do not count.
    """
    try:
        lines = files.read_regular(folder / NAME, MAX_BYTES).decode(errors="replace").splitlines()
    except UserError:
        return NAME
    digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines) if not _is_hidden(name)}
    for name in sorted({*digests, *_names(folder)}):
        if not _matches(folder / name, digests.get(name)):
            return name or NAME
    return ""


def _matches(path: Path, digest: str | None) -> bool:
    try:
        return digest is not None and path.is_file() and files.sha256(path) == digest
    except OSError:  # of another user, for example
        return False


def _names(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != NAME and not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
