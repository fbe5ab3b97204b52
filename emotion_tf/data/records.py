"""Writes data sets: sharded TFRecords and `dataset_info.json`, atomically and deterministically."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from emotion_tf import files, schema
from emotion_tf.data import account, images, manifest, tokenizer
from emotion_tf.data.clip_source import ClipSource
from emotion_tf.data.dataset import INFO, Dataset, Shard, Split, Tokenizer
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops

KIND = files.Kind("data set", (INFO,))
ROWS_PER_SHARD = 1000
CLIPS_PER_SHARD = 200  # smaller, because an interrupted run repeats at most one shard


@dataclass(frozen=True)
class PrepareOptions:
    """Options of `prepare` besides the table.

    Attributes:
        labels: class names in the order of the logits.
        face_size: side of the face crops in pixels.
        context: number of past, and of future, utterances stored with each utterance.
        tokenizer: value of `--tokenizer`.
    """

    labels: tuple[str, ...]
    face_size: int
    context: int
    tokenizer: str


@dataclass(frozen=True)
class _Shard:
    """A file to write. `NAME.json` holds its hash and face counts until the whole data set is written."""

    split: str
    name: str
    rows: Sequence[manifest.Row]

    def finished(self, folder: Path) -> dict[str, Any] | None:
        """Returns the note of an interrupted run on the shard, if the shard is complete."""
        note, path = folder / f"{self.name}.json", folder / self.name
        if not note.is_file() or not path.is_file():
            return None
        values: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        complete = values["records"] == len(self.rows) and files.sha256(path) == values["sha256"]
        return values if complete else None


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
) -> Dataset:
    """Writes shards, vocabulary and `dataset_info.json` of a manifest; returns the data set.

    After an interruption, the same call continues after the last finished shard.

    Args:
        rows: rows of a checked manifest, each dialogue in order of speaking.
        out: the data set's folder; it is created when everything is written.
        options: labels, sizes.
        pieces: the word-piece tokenizer.
        overwrite: whether to replace `out` if it exists.
        source: clips that the faces are taken from; None: the rows name images of faces.
        demo: description of the demo generator, as `demo_distribution.describe` returns it.
        notes: remarks to store with the data set.
        progress: wraps the rows while they are written: (rows, total, number that an earlier run finished).
        rows_per_shard: 0: 1,000, or 200 with clips.

    Raises:
        UserError: an image cannot be read, no clip can be decoded, `out` exists, or the disk is full.
    """
    if overwrite:
        files.check_replaceable(out, KIND)
    plan = _plan(rows, rows_per_shard or (CLIPS_PER_SHARD if source else ROWS_PER_SHARD))
    dataset = Dataset(
        path=out,
        labels=options.labels,
        face_size=options.face_size,
        max_faces=1,
        context=options.context,
        tokenizer=Tokenizer(options.tokenizer, pieces.lower_case, pieces.sha256),
        splits={},
        faces=source.to_json() if source else {},
        demo=demo or {},
        notes=notes,
    )
    cache_key = _cache_key(dataset, rows, source, [len(shard.rows) for shard in plan])
    with files.resumable_folder(out, KIND, cache_key, overwrite) as folder:
        try:
            tokenizer.write_vocabulary(folder / dataset.tokenizer.file, pieces.vocabulary)
            shard_notes = _write_shards(folder, plan, rows, options, pieces, source, progress)
        except tf.errors.OpError as error:
            raise UserError(
                f"Cannot write {out}: {error.message}. No files were left; free some space or choose another folder."
            ) from None
        dataset = replace(
            dataset,
            max_faces=max(1, *(count for note in shard_notes for count in note["faces"])),
            splits=_splits(plan, shard_notes, options.labels),
            account=account.summarize(rows, [p for note in shard_notes for p in note["problems"]], source)
            if source
            else {},
        )
        (folder / INFO).write_text(json.dumps(dataset.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for shard in plan:
            (folder / f"{shard.name}.json").unlink()
    return dataset


def _cache_key(dataset: Dataset, rows: Sequence[manifest.Row], source: ClipSource | None, plan: list[int]) -> str:
    """Returns a digest of everything that the bytes of the data set depend on."""
    pictures = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for row in rows for p in row.faces if p.exists()]
    parts = [dataset.to_json(), [repr(row) for row in rows], pictures, source.cache_key() if source else None, plan]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _plan(rows: Sequence[manifest.Row], size: int) -> list[_Shard]:
    plan = []
    for split in manifest.SPLITS:
        members = [row for row in rows if row.split == split]
        count = -(-len(members) // size)
        for n in range(count):
            name = f"{split}-{n:05d}-of-{count:05d}.tfrecord"
            plan.append(_Shard(split, name, members[n * size : (n + 1) * size]))
    return plan


Neighbours = tuple[list[manifest.Row], list[manifest.Row]]


def _neighbours(rows: Sequence[manifest.Row], size: int) -> dict[tuple[str, str, str], Neighbours]:
    """Returns for each row the `size` rows with text before it and after it, in order of speaking."""
    neighbours = {}
    for dialogue in manifest.group_dialogues(rows).values():
        with_text, position = [row for row in dialogue if row.utterance], 0
        for row in dialogue:
            after = position + bool(row.utterance)
            neighbours[row.key] = with_text[max(0, position - size) : position], with_text[after : after + size]
            position = after
    return neighbours


def _splits(plan: Sequence[_Shard], notes: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Split]:
    splits = {}
    for split in dict.fromkeys(shard.split for shard in plan):
        pairs = [(shard, note) for shard, note in zip(plan, notes, strict=True) if shard.split == split]
        rows = [row for shard, _ in pairs for row in shard.rows]
        per_class = Counter(labels[row.label] for row in rows)
        splits[split] = Split(
            records=len(rows),
            dialogues=len({row.dialogue_id for row in rows}),
            with_face=sum(count > 0 for _, note in pairs for count in note["faces"]),
            per_class={label: per_class[label] for label in labels},
            shards=tuple(Shard(*(note[key] for key in ("file", "records", "bytes", "sha256"))) for _, note in pairs),
        )
    return splits


def _write_shards(
    folder: Path,
    plan: Sequence[_Shard],
    rows: Sequence[manifest.Row],
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    source: ClipSource | None,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]],
) -> list[dict[str, Any]]:
    """Writes the unfinished shards; returns the notes of all shards."""
    notes = {shard.name: note for shard in plan if (note := shard.finished(folder))}
    unfinished = [shard for shard in plan if shard.name not in notes]
    pending = [row for shard in unfinished for row in shard.rows]
    neighbours = _neighbours(rows, options.context)
    faces = source.crops(pending, options.face_size) if source else (_pictures(r, options.face_size) for r in pending)
    items = iter(progress(zip(pending, faces, strict=True), len(rows), len(rows) - len(pending)))
    try:
        for shard in unfinished:
            tokens = pieces(tf.constant([row.utterance for row in shard.rows])).to_list()
            notes[shard.name] = _write_shard(folder, shard, zip(tokens, items, strict=False), neighbours, source)
        next(items, None)  # finishes the progress bar and the processes
    finally:
        if source and hasattr(faces, "close"):
            faces.close()
    return [notes[shard.name] for shard in plan]


def _write_shard(
    folder: Path,
    shard: _Shard,
    items: Iterable[tuple[list[int], tuple[manifest.Row, FaceCrops]]],
    neighbours: dict[tuple[str, str, str], Neighbours],
    source: ClipSource | None,
) -> dict[str, Any]:
    path = folder / shard.name
    temporary = folder / f"{shard.name}.unfinished"
    shard_faces: list[FaceCrops] = []
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for row_tokens, (row, faces) in items:
            clip = source.segment_names(row) if source else []
            writer.write(schema.to_example(_record(row, row_tokens, neighbours[row.key], faces, clip)))
            shard_faces.append(replace(faces, jpegs=(b"",) * len(faces.jpegs)))
        writer.flush()
    temporary.rename(path)
    note = {
        "file": shard.name,
        "records": len(shard_faces),
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path),
        "faces": [len(faces.jpegs) for faces in shard_faces],
        "problems": [[faces.problem, faces.detail] for faces in shard_faces],
    }
    files.write_text(folder / f"{shard.name}.json", json.dumps(note))
    return note


def _pictures(row: manifest.Row, face_size: int) -> FaceCrops:
    return FaceCrops(jpegs=tuple(images.read_crop(path, face_size, f"{row.where}: ") for path in row.faces))


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
