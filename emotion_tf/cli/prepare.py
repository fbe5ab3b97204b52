"""`prepare` and `audit`: tables and clips to data sets, and a look at them."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from emotion_tf.command_line import Flag
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.quiet import needs_tensorflow

if TYPE_CHECKING:
    from emotion_tf.data.films import Films
    from emotion_tf.data.manifest import Row
    from emotion_tf.data.records import PrepareOptions

DEMO = Path("tfrecords/demo")
CROPS = CropConfig()


@needs_tensorflow
def prepare_table(
    manifest: Positional[Path],
    out: Path,
    labels: tuple[str, ...] = ("meld",),
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    overwrite: Flag = False,
) -> None:
    """Write the data set of a manifest: a CSV table with one row an utterance.

    Args:
        manifest: CSV with columns split, dialogue_id, utterance_id, speaker, utterance, emotion, faces (picture paths
            joined by ;), and weight if wanted.
        out: folder of the data set, such as tfrecords/NAME.
        labels: meld, emorynlp, sentiment, or the labels themselves in order.
        face_size: side of the kept face crops in pixels.
        context: past, and future, utterances kept with each utterance.
        tokenizer: word pieces of a text encoder (a name of `weights list`, a TF-Hub handle, a SavedModel, a vocab.txt),
            or learned (from the training split).
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.manifest import read_manifest, shared_between_splits
    from emotion_tf.labels import label_set

    options = _options(out, label_set(labels), face_size, context, tokenizer, overwrite)
    rows = read_manifest(manifest, options.labels)
    notes = shared_between_splits({row.key: row.faces for row in rows}, "pictures")
    _write(rows, out, options, overwrite, {"notes": notes})


@needs_tensorflow
def prepare_clips(
    table: Positional[Path],
    out: Path,
    faces: CropConfig = CROPS,
    labels: tuple[str, ...] = ("meld",),
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    processes: int = 0,
    overwrite: Flag = False,
) -> None:
    """Write the data set of a table of clips: faces are found, the one that speaks is chosen, aligned and kept.

    Args:
        table: CSV with columns split, dialogue_id, utterance_id, speaker, utterance, emotion, clip (a video relative to
            the table; empty: not filmed), and start, end, weight if wanted.
        out: folder of the data set.
        faces: how faces are found.
        labels: as for `prepare table`.
        face_size: side of the kept face crops in pixels.
        context: past, and future, utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        processes: clips at once; 0: one a processor.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.clips import read_clips
    from emotion_tf.data.manifest import shared_between_splits
    from emotion_tf.labels import label_set

    options = _options(out, label_set(labels), face_size, context, tokenizer, overwrite)
    rows, clips = read_clips(table, options.labels)
    notes = shared_between_splits({key: getattr(clip, "pieces", ()) for key, clip in clips.items()}, "clips")
    _write(rows, out, options, overwrite, {"notes": notes}, _films(table.parent, clips, faces, processes))


@needs_tensorflow
def prepare_meld(
    root: Path,
    out: Path,
    faces: CropConfig = CROPS,
    target: str = "emotion",
    text_only: Flag = False,
    fair_times: Path | None = None,
    fair_boxes: Path | None = None,
    face_size: int = 112,
    context: int = 8,
    tokenizer: str = "minilm",
    processes: int = 0,
    overwrite: Flag = False,
) -> None:
    """Write the data set of MELD, wherever and however it was unpacked, with an account of every row and clip.

    Args:
        root: folder with MELD's tables and clips, at any depth.
        out: folder of the data set.
        faces: how faces are found.
        target: emotion (seven classes) or sentiment (three).
        text_only: the texts alone; needs no clips.
        fair_times: MELD-FAIR's folder `csvs`: take its realigned times.
        fair_boxes: MELD-FAIR's MELD_active_speaker_face_bboxes.csv: take the face that it says speaks (with
            --fair-times).
        face_size: side of the kept face crops in pixels.
        context: past, and future, utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        processes: clips at once; 0: one a processor.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.meld import TARGETS, read_meld
    from emotion_tf.data.meld_fair import read_fair

    if target not in TARGETS:
        raise UserError(f"Invalid `--target`. Expected one of: {', '.join(TARGETS)}. Received: {target!r}.")
    options = _options(out, TARGETS[target][1], face_size, context, tokenizer, overwrite)
    if fair_boxes and not fair_times:
        raise UserError("--fair-boxes counts the frames of realigned clips. Expected --fair-times with it.")
    if text_only and fair_times:
        raise UserError("--text-only takes no clips. Expected neither --fair-times nor --fair-boxes with it.")
    fair = read_fair(fair_times, fair_boxes) if fair_times else None
    meld = read_meld(root, target, text_only, fair)
    if text_only:
        _write(meld.rows, out, options, overwrite, {"notes": meld.account["notes"]})
        return
    faces = dataclasses.replace(faces, policy="boxes") if fair_boxes else faces
    _write(meld.rows, out, options, overwrite, films=_films(root, meld.clips, faces, processes, meld.account))


@needs_tensorflow
def prepare_faces(
    root: Positional[Path],
    out: Path,
    labels: tuple[str, ...] = ("meld",),
    face_size: int = 48,
    overwrite: Flag = False,
) -> None:
    """Write the data set of a folder of labelled faces, to train a face tower alone (train --towers face).

    Args:
        root: folder with one folder of pictures an emotion, or with folders train, dev, test of such.
        out: folder of the data set.
        labels: as for `prepare table`.
        face_size: side of the kept face crops in pixels.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.face_folders import read_faces
    from emotion_tf.labels import label_set

    options = _options(out, label_set(labels), face_size, 0, "none", overwrite)
    found = read_faces(root, options.labels)
    _write(found.rows, out, options, overwrite, {"notes": found.notes})


@needs_tensorflow
def prepare_demo(
    out: Path = DEMO,
    utterances: int = 4000,
    seed: int = 0,
    face_size: int = 48,
    context: int = 8,
    tokenizer: str = "learned",
    overwrite: Flag = False,
) -> None:
    """Draw and write the built-in demo data set: parametric faces and utterances from a small grammar.

    Args:
        out: folder of the data set.
        utterances: how many, in all splits together.
        seed: another seed gives another data set.
        face_size: side of the face crops in pixels.
        context: past, and future, utterances kept with each utterance.
        tokenizer: as for `prepare table`.
        overwrite: replace the data set that is there.
    """
    from emotion_tf.data.demo import write_demo
    from emotion_tf.data.manifest import read_manifest
    from emotion_tf.labels import MELD_EMOTIONS

    options = _options(out, MELD_EMOTIONS, face_size, context, tokenizer, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        extra = {"demo": write_demo(Path(folder), utterances, seed, face_size)}
        _write(read_manifest(Path(folder) / "manifest.csv", MELD_EMOTIONS), out, options, overwrite, extra)


def draw_missing_demo(data: Path) -> None:
    """Writes the demo data set if `data` is its folder and does not exist: the default of `train` and `tune`."""
    if data == DEMO and not data.exists():
        print(f"No data at {DEMO}: drawing the demo data set", flush=True)
        prepare_demo()


def _options(
    out: Path, labels: tuple[str, ...], face_size: int, context: int, tokenizer: str, overwrite: bool
) -> PrepareOptions:
    """Checks what all `prepare` verbs share, before anything is read."""
    from emotion_tf.data.records import PrepareOptions

    for name, value, least, most in (("--face-size", face_size, 8, 1024), ("--context", context, 0, 1000)):
        if not least <= value <= most:
            raise UserError(f"Invalid `{name}`. Expected a number from {least} to {most}. Received: {value}.")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Expected a new name; --overwrite replaces it.")
    return PrepareOptions(labels, face_size, context, tokenizer)


def _films(root: Path, clips: Any, faces: CropConfig, processes: int, account: dict[str, Any] | None = None) -> Films:
    from emotion_tf.data.films import Films

    if faces.policy == "boxes" and not any(getattr(clip, "boxes", None) for clip in clips.values()):
        raise UserError(
            "--faces.policy boxes needs boxes of the face that speaks. Expected --fair-boxes of `prepare meld`, or "
            "another policy."
        )
    count = count_processes(processes)  # before a detector is fetched
    return Films(root, clips, faces, detector_model(faces), count, account or {})


def count_processes(given: int) -> int:
    """What `--processes` means; 0: one a processor. Raises UserError for a number that is no count, or too many."""
    if not 0 <= given <= 256:
        raise UserError(f"Invalid `--processes`. Expected a number from 0 to 256. Received: {given}.")
    return given or os.cpu_count() or 1


def _write(
    rows: list[Row],
    out: Path,
    options: PrepareOptions,
    overwrite: bool,
    extra: dict[str, Any] | None = None,
    films: Films | None = None,
) -> None:
    from emotion_tf.data import account, records
    from emotion_tf.data.tokenizer import WordPieceTokenizer
    from emotion_tf.progress import track

    texts = [row.utterance for row in rows if row.split == "train"]
    pieces = WordPieceTokenizer(*_vocabulary(options.tokenizer, texts))
    unit = "clips" if films else "utterances"

    def progress(items: Any, total: int, done: int) -> Any:
        if done:
            print(f"Going on after {done} of {total} {unit}", flush=True)
        return track(items, total, "faces" if films else "writing", unit, done)

    dataset = records.write_dataset(rows, out, options, pieces, overwrite, films, progress=progress, **(extra or {}))
    for split, counts in dataset.splits.items():
        classes = ", ".join(f"{name} {n}" for name, n in counts.per_class.items())
        print(
            f"{split}: {counts.records} utterances in {counts.dialogues} dialogues, "
            f"{counts.with_face} with a face ({classes})"
        )
    for line in (*(account.lines(dataset.account) if films else ()), *dataset.notes):
        print(line)
    print(f"Data set: {out}")


def _vocabulary(tokenizer: str, utterances: list[str]) -> tuple[list[str], bool]:
    from emotion_tf.data.tokenizer import learn_vocabulary, read_vocabulary

    if tokenizer == "none":  # there is no text
        return learn_vocabulary([]), True
    if tokenizer == "learned":
        if not utterances:
            raise UserError(
                "--tokenizer learned needs a train split to learn from. Received: none. Name an encoder or a vocab.txt."
            )
        return learn_vocabulary(utterances), True
    if tokenizer.endswith(".txt"):
        vocabulary = read_vocabulary(Path(tokenizer))
        return vocabulary, not any(token != token.lower() for token in vocabulary if not token.startswith("["))
    from emotion_tf.models.hub_handles import load_vocabulary
    from emotion_tf.models.pretrained import encoder_folder

    return load_vocabulary(encoder_folder(tokenizer))
