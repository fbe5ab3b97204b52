"""Writes a data set with a progress bar and a printed summary; draws the demo data set."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emotion_tf import files, locks
from emotion_tf.data import account, records
from emotion_tf.data.clip_source import ClipSource
from emotion_tf.data.dataset import KIND
from emotion_tf.data.demo import write_demo
from emotion_tf.data.manifest import Row, read_manifest
from emotion_tf.data.tokenizer import WordPieceTokenizer, learn_vocabulary
from emotion_tf.errors import UserError
from emotion_tf.folders import DEMO
from emotion_tf.labels import MELD_EMOTIONS
from emotion_tf.progress import track
from emotion_tf.terminal import say
from emotion_tf.wording import plural

DEMO_OPTIONS = records.PrepareOptions(MELD_EMOTIONS, face_size=48, context=8, tokenizer="learned", corpus="demo")


def write_dataset(
    rows: Sequence[Row],
    out: Path,
    options: records.PrepareOptions,
    tokenizer: WordPieceTokenizer,
    overwrite: bool = False,
    source: ClipSource | None = None,
    demo: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    publish: Callable[[Path], None] = lambda data: None,
    scheduler: str = "",
) -> None:
    """Writes a data set with `records.write_dataset`, shows a progress bar, and prints a summary of each split."""
    unit = "clips" if source else "utterances"

    def progress(items: Any, total: int, done: int) -> Any:
        if done:
            say(f"Continuing after {done} of {total} {unit}", flush=True)
        return track(items, total, "faces" if source else "writing", unit, done)

    dataset = records.write_dataset(
        rows, out, options, tokenizer, overwrite, source, demo, notes, progress, publish=publish, scheduler=scheduler
    )
    for split, counts in dataset.splits.items():
        classes = ", ".join(f"{name} {n}" for name, n in counts.per_class.items())
        say(
            f"{split}: {plural(counts.records, 'utterance')} in {plural(counts.dialogues, 'dialogue')}, "
            f"{counts.with_face} with a face ({classes})"
        )
    for line in (*(account.format_lines(dataset.account) if source else ()), *dataset.notes):
        say(line)
    say(f"Data set: {out}")


def learn_tokenizer(rows: Sequence[Row]) -> WordPieceTokenizer:
    """Returns a tokenizer whose word pieces are learned from the training split. Raises UserError if that is empty."""
    if not any(row.split == "train" for row in rows):
        raise UserError(
            "Invalid `--tokenizer`. Expected the name of an encoder or a vocab.txt for a table without a train split. "
            "Received: learned."
        )
    utterances = (row.utterance for row in rows if row.split == "train")
    return WordPieceTokenizer(learn_vocabulary(utterances), lower_case=True)


@contextlib.contextmanager
def draw_demo(
    out: Path, utterances: int = 4000, seed: int = 0, face_size: int = 48
) -> Iterator[tuple[Sequence[Row], dict[str, Any]]]:
    """Yields the rows of the demo data set, whose pictures exist inside the block, and the generator's description.

    The pictures are in the folder `.NAME.drawing` beside the data set, where the next call finds those of a killed one.

    Raises:
        UserError: an argument is out of its range, another process writes the data set, or the disk is full.
    """
    folder = out.with_name(f".{out.name}.drawing")
    with locks.writer(out):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            description = _draw(folder, utterances, seed, face_size)
            yield read_manifest(folder / "manifest.csv", MELD_EMOTIONS), description
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _draw(folder: Path, utterances: int, seed: int, face_size: int) -> dict[str, Any]:
    try:
        description = write_demo(folder, utterances, seed, face_size)
        for picture in (folder / "faces").rglob("*.jpg"):
            os.utime(picture, (0, 0))  # after an interruption, unfinished shards are recognised by these times
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror}. Nothing was written; free some space.") from None
    return description


def draw_missing_demo(data: Path) -> None:
    """Writes the demo data set if `data` is its folder and does not exist: the default of `train` and `tune`."""
    if data != DEMO or data.exists():
        return
    with locks.writer(DEMO, wait=True):
        files.restore_missing(DEMO, KIND)
        if data.exists():  # another process has drawn it meanwhile, or was killed while it replaced it
            return
        say(f"No data at {DEMO}: drawing the demo data set", flush=True)
        with draw_demo(DEMO, face_size=DEMO_OPTIONS.face_size) as (rows, description):
            write_dataset(rows, DEMO, DEMO_OPTIONS, learn_tokenizer(rows), demo=description)
