"""MELD's clips on disk: which file is which utterance's, and which cannot be used."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emotion_tf import files
from emotion_tf.data.films import Key
from emotion_tf.data.manifest import SPLITS
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip

NAME = re.compile(r"(final_videos_test)?dia(\d+)_utt(\d+)\.mp4", re.IGNORECASE)
FOLDERS = {"train": "train", "dev": "dev", "test": "test", "output": "test"}  # by how an unpacked folder's name begins

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
"""Clips that do not show their utterance. Those whose sound alone is bad, or which are short, show a face: used."""


@dataclass(frozen=True)
class Listing:
    """The clips of MELD.

    Attributes:
        clips: for each row its clip, or why there is none.
        account: split -> {"total": files, kind: files, ...}; the kinds add up to the total.
        notes: what a person may want to look into.
    """

    clips: dict[Key, Clip | FaceCrops]
    account: dict[str, dict[str, int]]
    notes: list[str]


def list_clips(root: Path, rows: set[Key]) -> Listing:
    """Looks for clips in `root` and all folders below it.

    Args:
        root: where MELD was unpacked.
        rows: the keys of the tables' rows.

    Raises:
        UserError: there is not one clip.
    """
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    found: dict[Key, list[Path]] = defaultdict(list)
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() == ".mp4" and p.is_file()):
        split, key = _key(root, path)
        if path.name.startswith("._"):
            kinds[split]["stubs (._*)"] += 1
        elif key is None:
            kinds[split]["not named as a clip"] += 1
        else:
            found[key].append(path)
    if not found:
        raise UserError(
            f"No clip of MELD in {root} or any folder below it. Expected files such as train_splits/dia0_utt0.mp4. "
            "--text-only prepares the texts alone."
        )
    chosen = {}
    for key, paths in found.items():
        best, *rest = sorted(paths, key=lambda p: (not p.name.lower().startswith("final_videos_test"), str(p)))
        kinds[key[0]]["replaced by a twin"] += len(rest)
        chosen[key] = best
    clips, notes = _judge(chosen, rows, kinds)
    account = {
        s: {"total": sum(c.values()), **{k: n for k, n in sorted(c.items()) if n}} for s, c in sorted(kinds.items())
    }
    return Listing(clips, account, notes)


def _key(root: Path, path: Path) -> tuple[str, Key | None]:
    """(split or "?", key): the split from the nearest folder whose name begins as one."""
    named = NAME.fullmatch(path.name)
    split = "test" if named and named[1] else "?"
    for folder in reversed(path.relative_to(root).parts[:-1] if split == "?" else ()):
        beginning = re.split(r"[^a-z]", folder.lower())[0]
        if beginning in FOLDERS:
            split = FOLDERS[beginning]
            break
    is_clip = named is not None and split in SPLITS
    return split, (split, str(int(named[2])), str(int(named[3]))) if named and is_clip else None


def _judge(
    chosen: dict[Key, Path], rows: set[Key], kinds: dict[str, Counter[str]]
) -> tuple[dict[Key, Clip | FaceCrops], list[str]]:
    """Sorts the one clip of each key into used and not used, with the reason."""
    twins = _same_bytes(path for key, path in chosen.items() if key in rows and key not in KNOWN_BAD)
    clips: dict[Key, Clip | FaceCrops] = {
        key: FaceCrops(problem=WRONG, detail=why) for key, why in KNOWN_BAD.items() if key in rows
    }
    notes = []
    for key, path in chosen.items():
        if key not in rows:
            kind = "without a row"
            notes.append(f"clip without a row: {path.name} ({key[0]})")
        elif key in KNOWN_BAD:
            kind = WRONG
        elif path in twins:
            # whose face it shows cannot be told
            kind = "the same as another utterance's"
            clips[key] = FaceCrops(
                problem="same clip as another utterance", detail=", ".join(p.name for p in twins[path])
            )
        else:
            kind = "opened"
            clips[key] = Clip((Segment(path),))
        kinds[key[0]][kind] += 1
    return clips, notes


def _same_bytes(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """Each file that is byte for byte another one -> those others. Only files of one size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    by_hash: dict[str, list[Path]] = defaultdict(list)
    for same in by_size.values():
        for path in same if len(same) > 1 else ():
            by_hash[files.sha256(path)].append(path)
    return {p: [other for other in same if other != p] for same in by_hash.values() if len(same) > 1 for p in same}
