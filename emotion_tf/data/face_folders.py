"""Reads a folder of labelled faces with one folder per emotion, as FER2013, RAF-DB and AffectNet are distributed.

An image in two splits leaks training data into the test scores; 568 test images of FER2013 are also in its training
set. Such an image stays in the later split only.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_tf.data.manifest import SPLITS, Row
from emotion_tf.errors import UserError, nearest
from emotion_tf.faces import encode
from emotion_tf.labels import ALIASES
from emotion_tf.wording import plural

SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "val", "valid", "validation", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
DEV_SHARE = TEST_SHARE = 0.1


@dataclass(frozen=True)
class FaceFolder:
    """Rows of a folder of faces, and remarks for the user."""

    rows: list[Row]
    notes: tuple[str, ...]


def read_face_folder(root: Path, labels: Sequence[str]) -> FaceFolder:
    """Reads ROOT/SPLIT/EMOTION/image, or ROOT/EMOTION/image.

    Without folders of splits, a tenth of the images becomes dev and a tenth test. Without a folder dev, a tenth of
    train becomes dev. The content of an image decides its split, so that identical images stay together.

    Args:
        root: the folder.
        labels: class names; a folder may also have the name of an alias (happy for joy).

    Raises:
        UserError: the folder does not exist, a folder names no emotion, or there is no image.
    """
    folders = _split_folders(root)
    rows = [
        row for split, folder in folders.items() for row in _rows(root, folder, "" if split == "all" else split, labels)
    ]
    if not rows:
        raise UserError(f"No picture in {root}. Expected folders of emotions with pictures ({', '.join(PICTURES)}).")
    digests = {row.where: hashlib.sha1(encode.read(row.faces[0])).digest() for row in rows}
    rows, notes = _assign_splits(rows, digests, folders)
    rows, leaks = _remove_leaks(rows, digests)
    conflicts = _count_conflicts(rows, digests)
    if leaks:
        notes.append(f"{plural(leaks, 'picture')} left out: a byte-identical one is in a later split")
    if conflicts:
        notes.append(f"{plural(conflicts, 'picture')} with different labels")
    missing = [label for i, label in enumerate(labels) if not any(row.label == i for row in rows)]
    if missing:
        notes.append(f"No picture of {', '.join(missing)}")
    # an order independent of the emotion, because training shuffles within a window
    return FaceFolder(sorted(rows, key=lambda row: (digests[row.where], row.dialogue_id)), tuple(notes))


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns split -> folder; {"all": root} if the emotions' folders are directly in the root."""
    folders = _folders(root)
    splits: dict[str, Path] = {}
    for folder in folders:
        for split, names in SPLIT_NAMES.items():
            if folder.name.lower() in names:
                if split in splits:
                    raise UserError(
                        f"{root}: Two folders of the split {split}: {splits[split].name}, {folder.name}. Expected one."
                    )
                splits[split] = folder
    if not splits:
        return {"all": root}
    others = [folder.name for folder in folders if folder not in splits.values()]
    if others:
        raise UserError(
            f"{root}: The folder {others[0]!r} beside folders of splits. Expected only splits ({', '.join(SPLITS)}) or "
            "only emotions."
        )
    return splits


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


def _assign_splits(rows: list[Row], digests: dict[str, bytes], folders: dict[str, Path]) -> tuple[list[Row], list[str]]:
    """Assigns splits to rows without one, and makes a dev split if there is none. Returns rows and notes."""
    if "all" in folders:
        rows = [replace(row, split=_split(digests[row.where], TEST_SHARE, DEV_SHARE)) for row in rows]
        return rows, ["No folders of splits: a tenth of the pictures is dev, a tenth test"]
    if "dev" not in folders and "train" in folders:
        rows = [
            replace(row, split=_split(digests[row.where], 0.0, DEV_SHARE)) if row.split == "train" else row
            for row in rows
        ]
        return rows, ["No dev folder: a tenth of train is dev"]
    return rows, []


def _split(digest: bytes, test: float, dev: float) -> str:
    fraction = int.from_bytes(digest[:4], "big") / 2**32
    return "test" if fraction < test else "dev" if fraction < test + dev else "train"


def _remove_leaks(rows: list[Row], digests: dict[str, bytes]) -> tuple[list[Row], int]:
    """Keeps each image in its last split only. Returns the rows and the number of rows removed."""
    last: dict[bytes, int] = defaultdict(int)
    for row in rows:
        last[digests[row.where]] = max(last[digests[row.where]], SPLITS.index(row.split))
    unique = [row for row in rows if SPLITS.index(row.split) == last[digests[row.where]]]
    return unique, len(rows) - len(unique)


def _count_conflicts(rows: list[Row], digests: dict[str, bytes]) -> int:
    """Returns the number of images that occur with more than one label."""
    labels: dict[bytes, set[int]] = defaultdict(set)
    for row in rows:
        labels[digests[row.where]].add(row.label)
    return sum(len(labels[digests[row.where]]) > 1 for row in rows)
