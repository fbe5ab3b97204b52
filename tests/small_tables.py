"""Small manifests and images for tests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
ROW = dict(zip(COLUMNS, ("train", "0", "0", "Ilka", "Hello there.", "joy", ""), strict=True))


def write_table(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str] = COLUMNS) -> Path:
    """Writes rows as CSV. Each row has only the cells that differ from `ROW`."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return path


def write_picture(path: Path, height: int = 32, width: int = 32, seed: int = 0) -> Path:
    """Writes a smooth colour image in the format of the file name."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    return path


def pieces(manifest: Path) -> tuple[str, ...]:
    """Options that use a vocab.txt, which is faster than learning word pieces."""
    return "--tokenizer", str(manifest.parent.parent / "vocab.txt"), "--face-size", "32"


def good_rows(count: int = 4) -> list[dict[str, str]]:
    """Returns rows of all three splits, each with a face."""
    splits = ["train"] * (count - 2) + ["dev", "test"]
    return [{"split": split, "utterance_id": str(i), "faces": "a.jpg"} for i, split in enumerate(splits)]
