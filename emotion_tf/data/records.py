"""Aligned, sharded TFRecords and `dataset_info.json`: whole or not at all, the same bytes for the same input."""

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
from emotion_tf.data.dataset import INFO, Dataset, Shard, Split, Tokenizer
from emotion_tf.data.films import Films
from emotion_tf.errors import UserError
from emotion_tf.faces.crops import FaceCrops

ROWS_PER_SHARD = 1000
CLIPS_PER_SHARD = 200  # what is lost at most when long work is killed


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` is told beside the table.

    Attributes:
        labels: class names in the order of the logits.
        face_size: side of the face crops in pixels.
        context: past, and future, utterances kept with each utterance.
        tokenizer: what `--tokenizer` named, for messages.
    """

    labels: tuple[str, ...]
    face_size: int
    context: int
    tokenizer: str


@dataclass(frozen=True)
class _Shard:
    """One file to write. Beside it lies `NAME.json` with its hash and what became of its faces, until all is done."""

    split: str
    name: str
    rows: Sequence[manifest.Row]

    def finished(self, folder: Path) -> dict[str, Any] | None:
        """What a run before this one noted of the shard, if that is all there."""
        note, path = folder / f"{self.name}.json", folder / self.name
        if not note.is_file() or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        whole = found["records"] == len(self.rows) and files.sha256(path) == found["sha256"]
        return found if whole else None


def write_dataset(
    rows: Sequence[manifest.Row],
    out: Path,
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    overwrite: bool = False,
    films: Films | None = None,
    demo: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]] = lambda items, total, done: items,
    rows_per_shard: int = 0,
) -> Dataset:
    """Writes shards, vocabulary and `dataset_info.json` of a manifest; returns the data set.

    After an interruption, the same call continues behind the last finished shard.

    Args:
        rows: the checked manifest, in order of speaking inside each dialogue.
        out: the data set's folder; it appears when all is written.
        options: labels, sizes.
        pieces: the word-piece tokenizer.
        overwrite: whether `out` may be replaced.
        films: the clips that the faces are taken from; None: the rows name pictures of faces.
        demo: what the demo generator knows of its data, as `demo.describe` returns it.
        notes: remarks to store with the data set.
        progress: wraps the rows while they are written: (rows, how many, how many of them were done before).
        rows_per_shard: 0: 1,000, or 200 with clips.

    Raises:
        UserError: a picture that cannot be read, no clip that can be decoded, `out` exists, or no room.
    """
    if overwrite:
        files.check_replaceable(out, INFO, "data set")
    plan = _plan(rows, rows_per_shard or (CLIPS_PER_SHARD if films else ROWS_PER_SHARD))
    dataset = Dataset(
        path=out,
        labels=options.labels,
        face_size=options.face_size,
        max_faces=1,
        context=options.context,
        tokenizer=Tokenizer(options.tokenizer, pieces.lower_case, pieces.sha256),
        splits={},
        faces=films.about() if films else {},
        demo=demo or {},
        notes=notes,
    )
    purpose = _purpose(dataset, rows, films, [len(shard.rows) for shard in plan])
    with files.kept_folder(out, purpose, overwrite) as folder:
        try:
            tokenizer.write_vocabulary(folder / dataset.tokenizer.file, pieces.vocabulary)
            written = _write_shards(folder, plan, rows, options, pieces, films, progress)
        except tf.errors.OpError as error:
            raise UserError(
                f"Cannot write {out}: {error.message}. Nothing was left behind; make room or choose another folder."
            ) from None
        dataset = replace(
            dataset,
            max_faces=max(1, *(count for note in written for count in note["faces"])),
            splits=_splits(plan, written, options.labels),
            account=account.settle(rows, [p for note in written for p in note["problems"]], films) if films else {},
        )
        (folder / INFO).write_text(json.dumps(dataset.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for shard in plan:
            (folder / f"{shard.name}.json").unlink()
    return dataset


def _purpose(dataset: Dataset, rows: Sequence[manifest.Row], films: Films | None, plan: list[int]) -> str:
    """A digest of all that the bytes of the data set depend on."""
    pictures = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for row in rows for p in row.faces if p.exists()]
    parts = [dataset.to_json(), [repr(row) for row in rows], pictures, films.purpose() if films else None, plan]
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


Around = tuple[list[manifest.Row], list[manifest.Row]]


def _around(rows: Sequence[manifest.Row], size: int) -> dict[tuple[str, str, str], Around]:
    """The at most `size` utterances with text before each, and after each, in order of speaking."""
    found = {}
    for members in manifest.dialogues(rows).values():
        said, count = [row for row in members if row.utterance], 0  # so many of them are before the row
        for row in members:
            after = count + bool(row.utterance)
            found[row.key] = said[max(0, count - size) : count], said[after : after + size]
            count = after
    return found


def _splits(plan: Sequence[_Shard], notes: Sequence[dict[str, Any]], labels: Sequence[str]) -> dict[str, Split]:
    splits = {}
    for split in dict.fromkeys(shard.split for shard in plan):
        own = [(shard, note) for shard, note in zip(plan, notes, strict=True) if shard.split == split]
        rows = [row for shard, _ in own for row in shard.rows]
        per_class = Counter(labels[row.label] for row in rows)
        splits[split] = Split(
            records=len(rows),
            dialogues=len({row.dialogue_id for row in rows}),
            with_face=sum(count > 0 for _, note in own for count in note["faces"]),
            per_class={label: per_class[label] for label in labels},
            shards=tuple(Shard(*(note[key] for key in ("file", "records", "bytes", "sha256"))) for _, note in own),
        )
    return splits


def _write_shards(
    folder: Path,
    plan: Sequence[_Shard],
    rows: Sequence[manifest.Row],
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    films: Films | None,
    progress: Callable[[Iterable[Any], int, int], Iterable[Any]],
) -> list[dict[str, Any]]:
    """Writes the shards that are not finished; returns the note of each."""
    notes = {shard.name: note for shard in plan if (note := shard.finished(folder))}
    todo = [shard for shard in plan if shard.name not in notes]
    waiting = [row for shard in todo for row in shard.rows]
    around = _around(rows, options.context)
    faces = films.crops(waiting, options.face_size) if films else (_pictures(r, options.face_size) for r in waiting)
    items = iter(progress(zip(waiting, faces, strict=True), len(rows), len(rows) - len(waiting)))
    try:
        for shard in todo:
            tokens = pieces(tf.constant([row.utterance for row in shard.rows])).to_list()
            notes[shard.name] = _write_shard(folder, shard, zip(tokens, items, strict=False), around, films)
        next(items, None)  # lets the progress bar and the processes end
    finally:
        if films and hasattr(faces, "close"):
            faces.close()
    return [notes[shard.name] for shard in plan]


def _write_shard(
    folder: Path,
    shard: _Shard,
    items: Iterable[tuple[list[int], tuple[manifest.Row, FaceCrops]]],
    around: dict[tuple[str, str, str], Around],
    films: Films | None,
) -> dict[str, Any]:
    path = folder / shard.name
    unfinished = folder / f"{shard.name}.unfinished"
    found: list[FaceCrops] = []
    with tf.io.TFRecordWriter(str(unfinished)) as writer:
        for row_tokens, (row, faces) in items:
            clip = films.names(row) if films else []
            writer.write(schema.to_example(_record(row, row_tokens, around[row.key], faces, clip)))
            found.append(replace(faces, jpegs=(b"",) * len(faces.jpegs)))
        writer.flush()
    unfinished.rename(path)
    note = {
        "file": shard.name,
        "records": len(found),
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path),
        "faces": [len(faces.jpegs) for faces in found],
        "problems": [[faces.problem, faces.detail] for faces in found],
    }
    files.write_text(folder / f"{shard.name}.json", json.dumps(note))
    return note


def _pictures(row: manifest.Row, face_size: int) -> FaceCrops:
    return FaceCrops(jpegs=tuple(images.read_crop(path, face_size, f"{row.where}: ") for path in row.faces))


def _record(row: manifest.Row, tokens: list[int], around: Around, faces: FaceCrops, clip: list[str]) -> dict[str, Any]:
    past, future = around
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
