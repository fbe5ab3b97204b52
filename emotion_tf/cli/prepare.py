"""`prepare`: writes data sets from tables, video clips, MELD, folders of faces, or the demo's generator."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from emotion_tf import files, locks, remote
from emotion_tf.cluster import check_scheduler
from emotion_tf.command_line import NO_PREFIX, Flag
from emotion_tf.config import CropConfig, rules
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import detector_model
from emotion_tf.folders import DEMO
from emotion_tf.progress import stage
from emotion_tf.quiet import needs_tensorflow

if TYPE_CHECKING:
    from emotion_tf.data.clip_source import ClipSource
    from emotion_tf.data.manifest import Row
    from emotion_tf.data.records import PrepareOptions
    from emotion_tf.data.tokenizer import WordPieceTokenizer
    from emotion_tf.run_info import Corpus

CROPS = CropConfig()
Scheduler = Annotated[
    str,
    rules.value("ADDRESS"),
    tyro.conf.arg(help="Address of Dask's scheduler, tcp://HOST:PORT, whose workers read the pictures. Empty: none."),
]
Labels = Annotated[
    tuple[str, ...],
    rules.value("{meld,emorynlp,sentiment}|LABEL ..."),
    tyro.conf.arg(help="Labels: meld (7 emotions), emorynlp (7), sentiment (3), or the labels themselves in order."),
]


@dataclasses.dataclass(frozen=True)
class FaceDatasetArguments:
    """The data set to write."""

    out: Annotated[Path, rules.Output.FOLDER_OR_URL, rules.value("DIR")]
    """Folder of the data set, such as tfrecords/NAME; or a URL in object storage."""
    face_size: Annotated[int, Range(8, 1024)] = 112
    """Side of the stored face crops in pixels."""
    overwrite: Flag = False
    """Replace an existing data set."""

    def __post_init__(self) -> None:
        """Raises UserError for a number outside its range."""
        rules.check_fields(self)

    @property
    def folder(self) -> Path:
        """Folder to write in: `out`, or a local one for a URL."""
        if not remote.is_url(self.out):
            return self.out
        from emotion_tf.remote_folders import PREPARED, local_folder

        return local_folder(PREPARED, str(self.out))

    @property
    def context(self) -> int:
        """Utterances stored beside each utterance: none."""
        return 0

    @property
    def tokenizer(self) -> str:
        """Name of the tokenizer: there is no text."""
        return "none"

    def options(self, labels: Sequence[str], corpus: Corpus = "") -> PrepareOptions:
        """Returns the checked options. `corpus` is meld, demo or empty. Raises UserError before anything is read."""
        from emotion_tf.data.dataset import INFO, KIND
        from emotion_tf.data.records import PrepareOptions

        if remote.is_url(self.out):
            if not self.overwrite and remote.Store(self.out).read(INFO) is not None:
                raise UserError(f"{remote.url_of(self.out)} exists. Expected a new name; --overwrite replaces it.")
        elif self.out.exists() and not self.overwrite:
            with contextlib.suppress(UserError, OSError), locks.writer(self.out):
                files.recover(self.out, KIND)  # of a killed call
            raise UserError(f"{self.out} exists. Expected a new name; --overwrite replaces it.")
        return PrepareOptions(tuple(labels), self.face_size, self.context, self.tokenizer, corpus)

    def write(self, rows: Sequence[Row], options: PrepareOptions, **extra: Any) -> None:
        """Writes the data set; `extra` are the last arguments of `write_dataset`, such as `source`."""
        from emotion_tf.data.dataset import INFO
        from emotion_tf.data.prepare import write_dataset

        tokenizer, is_remote = load_tokenizer(self.tokenizer, rows), remote.is_url(self.out)
        if is_remote:
            from emotion_tf.remote_folders import upload_data

            extra["publish"] = functools.partial(upload_data, url=self.out, info=INFO)
        write_dataset(rows, self.folder, options, tokenizer, self.overwrite or is_remote, **extra)
        if is_remote:
            files.delete(self.folder)


@dataclasses.dataclass(frozen=True)
class DatasetArguments(FaceDatasetArguments):
    """The data set to write."""

    context: Annotated[int, Range(0, 1000)] = 8
    """Past and future utterances stored with each utterance, at most as many of each."""
    tokenizer: Annotated[str, rules.value("NAME|DIR|URL|FILE")] = "minilm"
    """Word pieces of a text encoder: a name of `weights list`, a TF-Hub handle, a SavedModel, or a vocab.txt.
    `learned` learns them from the training split."""


@dataclasses.dataclass(frozen=True)
class ClipArguments:
    """How the face of each utterance is found in its clip."""

    faces: CropConfig = CROPS
    processes: Annotated[int, rules.PROCESSES] = 0
    """Number of clips processed at once on this machine; 0: one per processor."""
    scheduler: Annotated[str, rules.value("ADDRESS")] = ""
    """Address of Dask's scheduler, tcp://HOST:PORT, whose workers process the clips. Empty: this machine does."""

    def __post_init__(self) -> None:
        """Raises UserError for a number outside its range, and for two places to process clips."""
        rules.check_fields(self)
        if self.scheduler and self.processes:
            raise UserError("Received --processes and --scheduler. Expected one: the workers have their own threads.")

    def source(self, root: Path, clips: Any, account: dict[str, Any] | None = None) -> ClipSource:
        """Returns the clips with their detector. Raises UserError if the boxes that the policy needs are missing."""
        from emotion_tf.data.clip_source import ClipSource

        if self.faces.policy == "boxes" and not any(getattr(clip, "boxes", None) for clip in clips.values()):
            raise UserError(
                "--faces.policy boxes needs the boxes of the active speaker. Expected --fair-boxes of `prepare meld`, "
                "or another policy."
            )
        if self.scheduler:
            check_scheduler(self.scheduler)
        count, model = count_processes(self.processes), detector_model(self.faces)
        return ClipSource(root, clips, self.faces, model, count, account or {}, self.scheduler)


@needs_tensorflow
def prepare_table(
    manifest: Annotated[Positional[Path], tyro.conf.arg(metavar="MANIFEST")],
    dataset: Annotated[DatasetArguments, NO_PREFIX],
    labels: Labels = ("meld",),
    scheduler: Scheduler = "",
) -> None:
    """Write the data set of a manifest: a CSV table with one row per utterance.

    Args:
        manifest: CSV with the columns split, dialogue_id, utterance_id, speaker, utterance, emotion, faces (paths of
            face pictures, joined by ;), and optionally weight.
    """
    from emotion_tf.data.manifest import leak_notes, read_manifest
    from emotion_tf.labels import label_set

    if scheduler:
        check_scheduler(scheduler)
    options = dataset.options(label_set(labels))
    with stage(f"reading {manifest}"):
        rows = read_manifest(manifest, options.labels)
        notes = leak_notes(((row.split, row.faces) for row in rows), "picture")
    dataset.write(rows, options, notes=notes, scheduler=scheduler)


@needs_tensorflow
def prepare_clips(
    table: Annotated[Positional[Path], tyro.conf.arg(metavar="TABLE")],
    dataset: Annotated[DatasetArguments, NO_PREFIX],
    clips: Annotated[ClipArguments, NO_PREFIX],
    labels: Labels = ("meld",),
) -> None:
    """Write the data set of a table of video clips. Detects and tracks faces, and aligns those of the active speaker.

    Args:
        table: CSV with the columns split, dialogue_id, utterance_id, speaker, utterance, emotion, clip (path of a
            video, relative to the table; empty: none), and optionally start, end (seconds) and weight.
    """
    from emotion_tf.data.clips import read_clips
    from emotion_tf.data.manifest import leak_notes
    from emotion_tf.labels import label_set

    options = dataset.options(label_set(labels))
    with stage(f"reading {table}"):
        rows, clip_of = read_clips(table, options.labels)
        notes = leak_notes(((key[0], getattr(clip, "segments", ())) for key, clip in clip_of.items()), "clip")
    dataset.write(rows, options, notes=notes, source=clips.source(table.parent, clip_of))


@needs_tensorflow
def prepare_meld(
    root: Annotated[Path, rules.value("DIR")],
    dataset: Annotated[DatasetArguments, NO_PREFIX],
    clips: Annotated[ClipArguments, NO_PREFIX],
    target: Annotated[str, rules.names(("emotion", "sentiment"))] = "emotion",
    text_only: Flag = False,
    fair_times: Annotated[Path | None, rules.value("DIR")] = None,
    fair_boxes: Annotated[Path | None, rules.value("FILE")] = None,
) -> None:
    """Write the data set of MELD from its unpacked folder, with an account of every row and clip.

    Args:
        root: Folder that holds MELD's tables and clips, at any depth.
        target: Labels: emotion (7 classes) or sentiment (3 classes).
        text_only: Write the texts alone, without clips.
        fair_times: Folder `csvs` of MELD-FAIR, whose realigned times replace MELD's.
        fair_boxes: MELD_active_speaker_face_bboxes.csv of MELD-FAIR, whose boxes select the active speaker. Needs
            --fair-times.
    """
    from emotion_tf.data.meld import TARGETS, read_meld
    from emotion_tf.data.meld_fair import read_meld_fair

    rules.one_of("--target", target, TARGETS)
    options = dataset.options(TARGETS[target][1], "meld")
    if fair_boxes and not fair_times:
        raise UserError("--fair-boxes counts the frames of realigned clips. Expected --fair-times with it.")
    if text_only and fair_times:
        raise UserError("--text-only reads no clips. Expected neither --fair-times nor --fair-boxes with it.")
    if text_only and clips.scheduler:
        raise UserError("--text-only reads no clips. Expected no --scheduler with it.")
    with stage(f"reading {root}"):
        fair = read_meld_fair(fair_times, fair_boxes) if fair_times else None
        meld = read_meld(root, target, text_only, fair)
    if text_only:
        dataset.write(meld.rows, options, notes=meld.account["notes"])
        return
    if fair_boxes:
        clips = dataclasses.replace(clips, faces=dataclasses.replace(clips.faces, policy="boxes"))
    dataset.write(meld.rows, options, source=clips.source(root, meld.clips, meld.account))


@needs_tensorflow
def prepare_faces(
    root: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR")],
    dataset: Annotated[FaceDatasetArguments, NO_PREFIX] = FaceDatasetArguments(tyro.MISSING, face_size=48),
    labels: Labels = ("meld",),
) -> None:
    """Write the data set of a folder of labelled faces, to train a face tower alone (train --towers face).

    Args:
        root: Folder with one folder of pictures per emotion, or with such folders in train, dev and test.
    """
    from emotion_tf.data.face_folders import read_face_folder
    from emotion_tf.labels import label_set

    options = dataset.options(label_set(labels))
    with stage(f"reading {root}"):
        pictures = read_face_folder(root, options.labels)
    dataset.write(pictures.rows, options, notes=pictures.notes)


@needs_tensorflow
def prepare_demo(
    dataset: Annotated[DatasetArguments, NO_PREFIX] = DatasetArguments(DEMO, face_size=48, tokenizer="learned"),
    utterances: Annotated[int, Range(1, 1_000_000)] = 4000,
    seed: Annotated[int, rules.SEED] = 0,
) -> None:
    """Draw and write the built-in demo data set: parametric faces, and utterances from a small grammar.

    Args:
        utterances: Number of utterances in all splits together.
        seed: Seed of the generator.
    """
    from emotion_tf.data.prepare import draw_demo
    from emotion_tf.labels import MELD_EMOTIONS

    options = dataset.options(MELD_EMOTIONS, "demo")
    with draw_demo(dataset.folder, utterances, seed, dataset.face_size) as (rows, description):
        dataset.write(rows, options, demo=description)


def count_processes(number: int) -> int:
    """Returns the number of processes that `--processes` means: 0 is one per processor."""
    return number or os.cpu_count() or 1


def load_tokenizer(name: str, rows: Sequence[Row]) -> WordPieceTokenizer:
    """Returns the tokenizer that `--tokenizer` names. Raises UserError if there is none of that name."""
    from emotion_tf.data.prepare import learn_tokenizer
    from emotion_tf.data.tokenizer import WordPieceTokenizer, learn_vocabulary, read_vocabulary

    if name == "none":
        return WordPieceTokenizer(learn_vocabulary([]), lower_case=True)
    if name == "learned":
        return learn_tokenizer(rows)
    if name.endswith(".txt"):
        vocabulary = read_vocabulary(Path(name))
        has_upper_case = any(token != token.lower() for token in vocabulary if not token.startswith("["))
        return WordPieceTokenizer(vocabulary, lower_case=not has_upper_case)
    from emotion_tf.models.hub_handles import load_vocabulary
    from emotion_tf.models.pretrained import encoder_folder

    return WordPieceTokenizer(*load_vocabulary(encoder_folder(name)))
