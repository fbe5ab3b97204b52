"""The checksums of an export's files.

They have the format of `sha256sum -c`, so that an export can be verified without Python.
"""

from __future__ import annotations

from pathlib import Path

from emotion_tf import files
from emotion_tf.errors import UserError

CHECKSUMS = Path("assets.extra", "SHA256SUMS")
MAX_CHECKSUMS_BYTES = 16 << 20


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files of a folder to `assets.extra/SHA256SUMS`."""
    lines = [f"{files.sha256(folder / name)}  {name.as_posix()}\n" for name in _names(folder)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def check_files(folder: Path) -> None:
    """Raises UserError if a file of the export was changed, removed or added."""
    try:
        lines = files.read_regular(folder / CHECKSUMS, MAX_CHECKSUMS_BYTES).decode(errors="replace").splitlines()
    except UserError as error:
        raise UserError(f"No export at {folder}: {error} Export the run again.") from None
    sums = {Path(name): digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = set(_names(folder))
    for name, digest in sums.items():
        received = files.sha256(folder / name) if name in present else "no file"
        if received != digest:
            raise UserError(
                f"{folder / name} has changed. Expected SHA-256 {digest[:12]}... Received: "
                f"{received[:12]}. Copy the export again, or export the run again."
            )
    additional = sorted(present - set(sums))
    if additional:
        raise UserError(
            f"{folder / additional[0]} does not belong to this export. Expected only the files in {CHECKSUMS}."
        )


def _names(folder: Path) -> list[Path]:
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != CHECKSUMS)
