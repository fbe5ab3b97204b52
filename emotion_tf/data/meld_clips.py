"""MELD's clip files: assigns each file to its utterance and excludes unusable ones."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emotion_tf import files
from emotion_tf.data.clip_source import Key
from emotion_tf.data.manifest import SPLITS
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip

NAME = re.compile(r"(final_videos_test)?dia(\d+)_utt(\d+)\.mp4", re.IGNORECASE)
FOLDERS = {"train": "train", "dev": "dev", "test": "test", "output": "test"}  # first word of a folder's name -> split

WRONG = "known bad clip"
KNOWN_BAD: dict[Key, str] = {
    ("train", "125", "3"): "corrupt: it cannot be decoded (MELD issue 39)",
    ("dev", "110", "7"): "not in the published archive (MELD issue 22)",
    ("train", "309", "0"): "41 s long for a description of a scene (MELD issue 20)",
    ("train", "485", "0"): "26 s long for a few words (MELD issue 9)",
    ("train", "241", "2"): "out of step with its text (MELD issue 9)",
    ("train", "757", "7"): "out of step with its text (MELD issue 9)",
    ("test", "38", "4"): "305 s long",
    ("test", "220", "0"): "another scene",
}
"""Clips that do not show their utterance. Short clips and clips with bad sound do show a face and are used."""


@dataclass(frozen=True)
class ClipListing:
    """The clips of MELD.

    Attributes:
        clips: utterance -> its clip, or a `FaceCrops` with the problem.
        account: split -> {"total": files, kind: files, ...}; the kinds add up to the total.
        notes: remarks for the user.
    """

    clips: dict[Key, Clip | FaceCrops]
    account: dict[str, dict[str, int]]
    notes: list[str]


def list_clips(root: Path, rows: set[Key]) -> ClipListing:
    """Lists the clips in `root` and all folders below it.

    Args:
        root: folder that MELD was unpacked into.
        rows: keys of the tables' rows.

    Raises:
        UserError: there is no clip.
    """
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    files_of: dict[Key, list[Path]] = defaultdict(list)
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() == ".mp4" and p.is_file()):
        split, key = _key(root, path)
        if path.name.startswith("._"):
            kinds[split]["stubs (._*)"] += 1
        elif key is None:
            kinds[split]["not named as a clip"] += 1
        else:
            files_of[key].append(path)
    if not files_of:
        raise UserError(
            f"No clip of MELD in {root} or any folder below it. Expected files such as train_splits/dia0_utt0.mp4. "
            "--text-only prepares the texts alone."
        )
    clip_files = {}
    for key, paths in files_of.items():
        best, *rest = sorted(paths, key=lambda p: (not p.name.lower().startswith("final_videos_test"), str(p)))
        kinds[key[0]]["replaced by a twin"] += len(rest)
        clip_files[key] = best
    clips, notes = _classify(clip_files, rows, kinds)
    account = {
        s: {"total": sum(c.values()), **{k: n for k, n in sorted(c.items()) if n}} for s, c in sorted(kinds.items())
    }
    return ClipListing(clips, account, notes)


def _key(root: Path, path: Path) -> tuple[str, Key | None]:
    """Returns (split or "?", key). The nearest folder with the name of a split decides the split."""
    match = NAME.fullmatch(path.name)
    split = "test" if match and match[1] else "?"
    for folder in reversed(path.relative_to(root).parts[:-1] if split == "?" else ()):
        word = re.split(r"[^a-z]", folder.lower())[0]
        if word in FOLDERS:
            split = FOLDERS[word]
            break
    return split, (split, str(int(match[2])), str(int(match[3]))) if match and split in SPLITS else None


def _classify(
    clip_files: dict[Key, Path], rows: set[Key], kinds: dict[str, Counter[str]]
) -> tuple[dict[Key, Clip | FaceCrops], list[str]]:
    """Counts the clip of each key by kind, and returns the usable clips, problems of the others, and notes."""
    duplicates = _find_duplicates(path for key, path in clip_files.items() if key in rows and key not in KNOWN_BAD)
    clips: dict[Key, Clip | FaceCrops] = {
        key: FaceCrops(problem=WRONG, detail=reason) for key, reason in KNOWN_BAD.items() if key in rows
    }
    notes = []
    for key, path in clip_files.items():
        if key not in rows:
            kind = "without a row"
            notes.append(f"clip without a row: {path.name} ({key[0]})")
        elif key in KNOWN_BAD:
            kind = WRONG
        elif path in duplicates:
            # it is unknown which utterance the clip shows
            kind = "the same as another utterance's"
            clips[key] = FaceCrops(
                problem="same clip as another utterance", detail=", ".join(p.name for p in duplicates[path])
            )
        else:
            kind = "opened"
            clips[key] = Clip((Segment(path),))
        kinds[key[0]][kind] += 1
    return clips, notes


def _find_duplicates(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Returns the byte-identical files of each file that has any. Only files of the same size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    by_hash: dict[str, list[Path]] = defaultdict(list)
    for group in by_size.values():
        for path in group if len(group) > 1 else ():
            by_hash[files.sha256(path)].append(path)
    return {p: [other for other in group if other != p] for group in by_hash.values() if len(group) > 1 for p in group}
