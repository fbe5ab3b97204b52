"""A folder of labelled faces, one folder an emotion (as FER2013, RAF-DB and AffectNet are kept), as rows of a data set.

A picture that is in two splits would let a model be tested on what it has learned; in FER2013 568 pictures of the test
sets are also in the training set. Such a picture is kept in the later split alone.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_tf.data.manifest import SPLITS, Row
from emotion_tf.errors import UserError, nearest
from emotion_tf.labels import ALIASES

SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEV_SHARE = TEST_SHARE = 0.1


@dataclass(frozen=True)
class FaceFolder:
    """Rows of a folder of faces, and what a user should know of it, a line each."""

    rows: list[Row]
    notes: tuple[str, ...]


def read_faces(root: Path, labels: Sequence[str]) -> FaceFolder:
    """Reads ROOT/SPLIT/EMOTION/picture, or ROOT/EMOTION/picture.

    Without folders of splits a tenth of the pictures becomes dev and a tenth test, without a dev folder a tenth of
    train: which ones follows from the pictures' content, so identical ones stay together.

    Args:
        root: the folder.
        labels: class names; a folder may also bear a usual other form of one (happy for joy).

    Raises:
        UserError: no such folder, a folder that names no emotion, or no picture.
    """
    folders = _split_folders(root)
    rows = [
        row for split, folder in folders.items() for row in _rows(root, folder, "" if split == "all" else split, labels)
    ]
    if not rows:
        raise UserError(f"No picture in {root}. Expected folders of emotions with pictures ({', '.join(PICTURES)}).")
    digests = {row.where: hashlib.sha1(row.faces[0].read_bytes()).digest() for row in rows}
    rows, notes = _cut(rows, digests, folders)
    rows, leaked = _without_leaks(rows, digests)
    conflicts = _conflicts(rows, digests)
    if leaked:
        notes.append(f"{leaked} pictures left out: a byte-identical one is in a later split")
    if conflicts:
        notes.append(f"{conflicts} pictures occur with different labels")
    missing = [label for i, label in enumerate(labels) if not any(row.label == i for row in rows)]
    if missing:
        notes.append(f"No picture of {', '.join(missing)}")
    # in an order that knows nothing of the emotions: training shuffles inside a window
    return FaceFolder(sorted(rows, key=lambda row: (digests[row.where], row.dialogue_id)), tuple(notes))


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> folder; `all` when the emotions' folders lie in the root itself."""
    folders = _folders(root)
    found: dict[str, Path] = {}
    for folder in folders:
        for split, names in SPLIT_NAMES.items():
            if folder.name.lower() in names:
                if split in found:
                    raise UserError(
                        f"{root}: Two folders of the split {split}: {found[split].name}, {folder.name}. Expected one."
                    )
                found[split] = folder
    if not found:
        return {"all": root}
    others = [folder.name for folder in folders if folder not in found.values()]
    if others:
        raise UserError(
            f"{root}: The folder {others[0]!r} beside folders of splits. Expected only splits ({', '.join(SPLITS)}) or "
            "only emotions."
        )
    return found


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"Cannot read {root}: {error.strerror}. Expected a folder with one folder an emotion."
        ) from None


def _rows(root: Path, folder: Path, split: str, labels: Sequence[str]) -> Iterable[Row]:
    for emotion in _folders(folder):
        label = labels.index(_label(emotion, labels))
        for path in sorted(emotion.rglob("*")):
            if path.suffix.lower() in PICTURES and path.is_file() and not path.name.startswith("."):
                name = path.relative_to(root).as_posix()
                yield Row(split, name, "0", "", "", label, (path,), 1.0, str(path))


def _label(folder: Path, labels: Sequence[str]) -> str:
    name = folder.name.lower()
    for label in labels:
        if name in (label.lower(), *ALIASES.get(label, ())):
            return label
    raise UserError(
        f"{folder}: The folder names no emotion. Expected one of: {', '.join(labels)}. Received: {folder.name!r}."
        f"{nearest(name, labels)} Other labels are named by --labels."
    )


def _cut(rows: list[Row], digests: dict[str, bytes], folders: dict[str, Path]) -> tuple[list[Row], list[str]]:
    """Gives a split to the rows that have none, and a dev split to a data set without one."""
    if "all" in folders:
        made = [replace(row, split=_split(digests[row.where], TEST_SHARE, DEV_SHARE)) for row in rows]
        return made, ["No folders of splits: a tenth of the pictures is dev, a tenth test"]
    if "dev" not in folders and "train" in folders:
        made = [
            replace(row, split=_split(digests[row.where], 0.0, DEV_SHARE)) if row.split == "train" else row
            for row in rows
        ]
        return made, ["No dev folder: a tenth of train is dev"]
    return rows, []


def _split(digest: bytes, test: float, dev: float) -> str:
    place = int.from_bytes(digest[:4], "big") / 2**32
    return "test" if place < test else "dev" if place < test + dev else "train"


def _without_leaks(rows: list[Row], digests: dict[str, bytes]) -> tuple[list[Row], int]:
    last: dict[bytes, int] = defaultdict(int)
    for row in rows:
        last[digests[row.where]] = max(last[digests[row.where]], SPLITS.index(row.split))
    kept = [row for row in rows if SPLITS.index(row.split) == last[digests[row.where]]]
    return kept, len(rows) - len(kept)


def _conflicts(rows: list[Row], digests: dict[str, bytes]) -> int:
    """Pictures whose bytes occur under more than one label."""
    labels: dict[bytes, set[int]] = defaultdict(set)
    for row in rows:
        labels[digests[row.where]].add(row.label)
    return sum(len(labels[digests[row.where]]) > 1 for row in rows)
