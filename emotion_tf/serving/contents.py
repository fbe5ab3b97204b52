"""The files of an export, by their SHA-256, as `sha256sum -c` reads them: so they are checked without Python, too."""

from __future__ import annotations

from pathlib import Path

from emotion_tf import files
from emotion_tf.errors import UserError

SUMS = Path("assets.extra", "SHA256SUMS")


def write(folder: Path) -> None:
    """Lists all files of a folder in `assets.extra/SHA256SUMS`."""
    lines = [f"{files.sha256(folder / name)}  {name.as_posix()}\n" for name in _names(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def check(folder: Path) -> None:
    """Raises UserError when a file is not what `export` wrote, is gone, or was put there."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        listed = {Path(name): digest for digest, _, name in (line.partition("  ") for line in lines)}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"No export at {folder}: cannot read {SUMS} ({error}). Export the run again.") from None
    there = set(_names(folder))
    for name, digest in listed.items():
        found = files.sha256(folder / name) if name in there else "no file"
        if found != digest:
            raise UserError(
                f"{folder / name} is not as it was written. Expected SHA-256 {digest[:12]}... Received: {found[:12]}. "
                "Copy the export anew, or export the run again."
            )
    more = sorted(there - set(listed))
    if more:
        raise UserError(f"{folder / more[0]} is not of this export. Expected no file that {SUMS} does not list.")


def _names(folder: Path) -> list[Path]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != SUMS)
