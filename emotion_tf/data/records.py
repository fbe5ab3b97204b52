"""Writes data sets: sharded TFRecords and `dataset_info.json`, atomically and deterministically."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast

import tensorflow as tf

from emotion_tf import files, interrupts, locks, schema
from emotion_tf.data import account, manifest, record_rules, tokenizer
from emotion_tf.data.arrangement import Arrangement, Members, Neighbours
from emotion_tf.data.clip_source import ClipSource
from emotion_tf.data.dataset import INFO, KIND, Account, ClipOptions, Dataset, Demo, Shard, Split, Tokenizer
from emotion_tf.data.face_pictures import read_all_crops
from emotion_tf.data.partial import PartialDataset, PlannedPart, stamp
from emotion_tf.data.record_rules import Fault, RecordRules
from emotion_tf.documents import MAX_LENGTH
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.run_info import Corpus
from emotion_tf.terminal import say

ROWS_PER_SHARD = 1000
CLIPS_PER_SHARD = 200
CLIPS_PER_PART = 8  # an interrupted call repeats at most one part, and the clips in its processes
RECORDS_PER_CHECK = 128  # the pictures of a whole shard may take gigabytes


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare` besides the table.

    Attributes:
        labels: class names in the order of the logits.
        face_size: side of the face crops in pixels.
        context: number of past, and of future, utterances stored with each utterance.
        tokenizer: value of `--tokenizer`.
        corpus: meld or demo; empty: the user's own.
    """

    labels: tuple[str, ...]
    face_size: int
    context: int
    tokenizer: str
    corpus: Corpus = ""


def write_dataset(
    rows: Sequence[manifest.Row],
    out: Path,
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    overwrite: bool = False,
    source: ClipSource | None = None,
    demo: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]] = lambda items, total, done: items,
    rows_per_shard: int = 0,
    publish: Callable[[Path], None] = lambda data: None,
    scheduler: str = "",
) -> Dataset:
    """Writes shards, vocabulary and `dataset_info.json` of a manifest; returns the data set.

    After an interruption, the same call continues after the last finished shard, or with clips after the last eight.

    Args:
        rows: rows of a checked manifest, each dialogue in order of speaking. They are read several times, and 12 bytes
            of each are held (`Arrangement`).
        out: the data set's folder; it is created when everything is written.
        options: labels, sizes.
        pieces: the word-piece tokenizer.
        overwrite: whether to replace `out` if it exists.
        source: clips that the faces are taken from; None: the rows name images of faces.
        demo: description of the demo generator, as `demo_distribution.describe` returns it.
        notes: remarks to store with the data set.
        progress: wraps the rows while they are written: (rows, total, number that an earlier run finished).
        rows_per_shard: 0: 1,000, or 200 with clips.
        publish: receives the folder of the whole data set, before it gets its name; what it raises loses no shard.
        scheduler: address of a scheduler of Dask, whose workers read the pictures; empty: this process does. Of clips,
            `source` says who opens them.

    Raises:
        UserError: an image cannot be read, no clip can be decoded, `out` exists, the disk is full, or a text, a path or
            a number of faces is larger than readers take.
    """
    if overwrite:
        files.check_replaceable(out, KIND)
    dataset = Dataset(
        path=out,
        schema_version=schema.SCHEMA_VERSION,
        labels=options.labels,
        face_size=options.face_size,
        max_faces=1,
        context=options.context,
        tokenizer=Tokenizer(options.tokenizer, pieces.lower_case, pieces.sha256),
        splits={},
        faces=cast(ClipOptions, source.to_json() if source else {}),
        demo=cast(Demo, demo or {}),
        corpus=options.corpus,
        notes=tuple(notes),
    )
    dataset.to_json()  # what is too long is refused now, not after days
    table = Arrangement(rows, options.context)
    size = rows_per_shard or (CLIPS_PER_SHARD if source else ROWS_PER_SHARD)
    part = min(size, CLIPS_PER_PART) if source else size
    plan = _plan(table, size, part, lambda members: _key(dataset, members, table, source))
    partial = PartialDataset(files.partial(out), plan)
    with locks.writer(out):
        if partial.has_become(out):
            files.recover(out, KIND)
            say(f"{out} is finished: the call that wrote it was killed while it cleared up.")
            return Dataset.open(out)
    with files.resumable_folder(out, KIND, overwrite), _kept(partial, out, source):
        _write_shards(partial, table, options, pieces, source, progress, scheduler)
        summary = _account(partial, rows, source) if source else {}
        data = partial.assemble()
        dataset = replace(
            dataset,
            max_faces=max(1, *(partial.notes[part.key]["max_faces"] for part in plan)),
            splits=_splits(table, partial, data, options.labels),
            account=cast(Account, summary),
        )
        tokenizer.write_vocabulary(data / dataset.tokenizer.file, pieces.vocabulary)
        files.write_text(data / INFO, dataset.to_json())
        publish(data)
    dataset.remember()
    return dataset


@contextlib.contextmanager
def _kept(partial: PartialDataset, out: Path, source: ClipSource | None) -> Iterator[None]:
    """Keeps the finished parts after an error, whose message says so; after an invalid picture, only older ones."""
    try:
        with interrupts.recognize_interruption():
            yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.message
        raise files.WriteError(
            f"Cannot write {out}: {reason}; free some space or choose another folder. {partial.keep()}"
        ) from None
    except UserError as error:
        if source is None and not isinstance(error, files.WriteError):
            partial.discard(partial.new_parts)
            raise
        raise type(error)(f"{error} {partial.keep()}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(partial.keep()) from None


def _account(partial: PartialDataset, rows: Sequence[manifest.Row], source: ClipSource) -> dict[str, Any]:
    """Returns the account of the clips. Prints it and raises UserError if none can be used; nothing is kept then."""
    problems = [problem for part in partial.plan for problem in partial.notes[part.key]["problems"]]
    summary = account.summarize(rows, problems, source)
    try:
        account.check_usable(rows, problems, source)
    except UserError:
        for line in account.format_lines(summary):
            say(line)
        partial.discard(partial.plan)
        raise
    return summary


def _plan(table: Arrangement, size: int, part: int, key: Callable[[Members], str]) -> list[PlannedPart]:
    """Returns the parts of at most `part` rows of the shards of at most `size` rows."""
    plan = []
    for split in manifest.SPLITS:
        members = table.members(split)
        count = -(-len(members) // size)
        for n in range(count):
            of_shard = members[n * size : (n + 1) * size]
            name = f"{split}-{n:05d}-of-{count:05d}.tfrecord"
            parts = [of_shard[i : i + part] for i in range(0, len(of_shard), part)]
            plan += [PlannedPart(split, name, of_part, key(of_part)) for of_part in parts]
    return plan


def _key(dataset: Dataset, rows: Members, table: Arrangement, source: ClipSource | None) -> str:
    """Returns a hash of everything that the bytes of a part, and whether they are taken, depend on."""
    about = replace(dataset, notes=()).to_json()
    texts: dict[tuple[str, str, str], tuple[str, str]] = {}
    for position, row in zip(rows.positions.tolist(), rows, strict=True):
        past, future = table.neighbours(position)
        texts |= {other.key: (other.speaker, other.utterance) for other in (*past, row, *future)}
    values = [(row.key, row.label, row.weight, *map(stamp, row.faces)) for row in rows]
    clips = [source.cache_key(row) for row in rows] if source else []
    return hashlib.sha256(
        json.dumps([about, record_rules.VERSION, list(texts.items()), values, clips]).encode()
    ).hexdigest()


def _splits(table: Arrangement, partial: PartialDataset, data: Path, labels: Sequence[str]) -> dict[str, Split]:
    splits = {}
    for split in dict.fromkeys(part.split for part in partial.plan):
        parts = [part for part in partial.plan if part.split == split]
        per_class = table.count_labels(split)
        splits[split] = Split(
            records=len(table.members(split)),
            dialogues=table.count_dialogues(split),
            with_face=sum(partial.notes[part.key]["with_face"] for part in parts),
            per_class={label: per_class[i] for i, label in enumerate(labels)},
            shards=tuple(_shard(partial, data / name, list(group)) for name, group in groupby(parts, _name)),
        )
    return splits


def _name(part: PlannedPart) -> str:
    return part.name


def _shard(partial: PartialDataset, path: Path, parts: Sequence[PlannedPart]) -> Shard:
    notes = [partial.notes[part.key] for part in parts]
    sha256 = notes[0]["sha256"] if len(notes) == 1 else files.sha256(path)
    return Shard(path.name, sum(len(part.rows) for part in parts), sum(note["bytes"] for note in notes), sha256)


def _write_shards(
    partial: PartialDataset,
    table: Arrangement,
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    source: ClipSource | None,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]],
    scheduler: str,
) -> None:
    """Writes the parts of shards that an interrupted call did not finish."""
    rules = RecordRules(len(options.labels), options.face_size, MAX_LENGTH, options.context, len(pieces.vocabulary))
    unfinished = partial.open()
    count, total = (sum(len(part.rows) for part in parts) for parts in (unfinished, partial.plan))

    def pending() -> Iterator[manifest.Row]:
        return (row for part in unfinished for row in part.rows)

    size = options.face_size
    faces = source.crops(pending(), size) if source else read_all_crops(pending(), size, scheduler)
    items = iter(progress(zip(pending(), faces, strict=True), total, total - count))
    with contextlib.closing(faces):
        for part in unfinished:
            tokens = pieces(tf.constant([row.utterance for row in part.rows])).to_list()
            with partial.new_part(part) as (path, note):
                around = map(table.neighbours, part.rows.positions.tolist())
                note |= _write_part(path, zip(tokens, around, items, strict=False), source, rules)
        next(items, None)  # finishes the progress bar and the processes


def _write_part(
    path: Path,
    items: Iterable[tuple[list[int], Neighbours, tuple[manifest.Row, FaceCrops]]],
    source: ClipSource | None,
    rules: RecordRules,
) -> dict[str, Any]:
    """Writes the records of a part; returns the counts of faces, and with clips the problem of each record.

    Raises:
        UserError: a record breaks a rule, such as a picture that OpenCV can decode and TensorFlow cannot.
    """
    with_face, max_faces = 0, 0
    problems: list[list[str]] = []
    items = iter(items)
    with tf.io.TFRecordWriter(str(path)) as writer:
        while batch := list(islice(items, RECORDS_PER_CHECK)):
            records = [
                schema.to_example(_record(row, tokens, around, faces, source.segment_names(row) if source else []))
                for tokens, around, (row, faces) in batch
            ]
            _check_records(records, [row.where for _, _, (row, _) in batch], rules)
            for record in records:
                writer.write(record)
            counts = [len(faces.jpegs) for _, _, (_, faces) in batch]
            with_face, max_faces = with_face + sum(map(bool, counts)), max(max_faces, *counts)
            problems += [[faces.problem, faces.detail] for _, _, (_, faces) in batch if source]
        writer.flush()
    return {"with_face": with_face, "max_faces": max_faces, "problems": problems}


def _check_records(records: Sequence[bytes], places: Sequence[str], rules: RecordRules) -> None:
    try:
        rules.check(records)
    except Fault as fault:
        raise UserError(
            f"{places[fault.position]}: {fault.message} Correct the row, or save its pictures again."
        ) from None


def _record(
    row: manifest.Row, tokens: list[int], neighbours: Neighbours, faces: FaceCrops, clip: list[str]
) -> dict[str, Any]:
    past, future = neighbours
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "dialogue_id": row.dialogue_id,
        "utterance_id": row.utterance_id,
        "speaker": row.speaker,
        "utterance": row.utterance,
        "tokens": tokens,
        "context": [other.utterance for other in past],
        "context_speaker": [other.speaker for other in past],
        "future": [other.utterance for other in future],
        "future_speaker": [other.speaker for other in future],
        "face_jpeg": faces.jpegs,
        "face_mask": [1] * len(faces.jpegs),
        "clip": clip,
        "face_problem": faces.problem,
        "face_policy": faces.policy,
        "face_score": faces.score,
        "face_margin": faces.margin,
        "face_track_length": faces.track_length,
        "face_tracks": faces.tracks,
        "face_frames": faces.frames,
        "clip_seconds": faces.seconds,
        "face_box": [x for box in faces.boxes for x in box],
        "face_time": faces.times,
        "face_sharpness": faces.sharpness,
        "face_height": faces.face_sizes,
        "face_rivals": [x for box in faces.rivals for x in box],
        "face_rivals_time": faces.rivals_time,
        "label": row.label,
        "weight": row.weight,
    }
