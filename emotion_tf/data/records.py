"""Aligned, sharded TFRecords and `dataset_info.json`: whole or not at all, the same bytes for the same input."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf

from emotion_tf import files, schema
from emotion_tf.data import images, manifest, tokenizer
from emotion_tf.errors import UserError

INFO = "dataset_info.json"
VOCABULARY = "vocab.txt"
ROWS_PER_SHARD = 1000


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` is told beside the table.

    Attributes:
        labels: class names in the order of the logits.
        face_size: side of the face crops in pixels.
        context: past utterances kept with each utterance.
        tokenizer: what `--tokenizer` named, for messages.
    """

    labels: tuple[str, ...]
    face_size: int
    context: int
    tokenizer: str


def write_dataset(
    rows: Sequence[manifest.Row],
    out: Path,
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    overwrite: bool = False,
    extra: dict[str, Any] | None = None,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = lambda items: items,
) -> dict[str, Any]:
    """Writes shards, vocabulary and `dataset_info.json` of a manifest; returns the info.

    Args:
        rows: the checked manifest, in order of speaking inside each dialogue.
        out: the data set's folder; it appears when all is written.
        options: labels, sizes.
        pieces: the word-piece tokenizer.
        overwrite: whether `out` may be replaced.
        extra: more that the info shall hold (the demo generator's ceilings).
        progress: wraps the rows of a split while they are written.

    Raises:
        UserError: a picture that cannot be read, `out` exists, or no room.
    """
    if out.exists() and overwrite:
        _check_replaceable(out)
    context = _contexts(rows, options.context)
    info: dict[str, Any] = {
        "schema_version": schema.SCHEMA_VERSION,
        "features": [asdict(feature) for feature in schema.RECORD],
        "labels": list(options.labels),
        "face_size": options.face_size,
        "max_faces": max(1, max(len(row.faces) for row in rows)),
        "context": options.context,
        "tokenizer": {
            "name": options.tokenizer,
            "lower_case": pieces.lower_case,
            "sha256": pieces.sha256,
            "file": VOCABULARY,
        },
        "splits": {},
        **(extra or {}),
    }
    with files.new_folder(out, overwrite) as folder:
        try:
            tokenizer.write_vocabulary(folder / VOCABULARY, pieces.vocabulary)
            for split in manifest.SPLITS:
                members = [row for row in rows if row.split == split]
                if members:
                    shards = _write_split(folder, split, members, context, options, pieces, progress)
                    info["splits"][split] = {**_counts(members, options.labels), "shards": shards}
            (folder / INFO).write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except tf.errors.OpError as error:
            raise UserError(
                f"Cannot write {out}: {error.message}. Nothing was left behind; make room or choose another folder."
            ) from None
    return info


def _check_replaceable(out: Path) -> None:
    # the folder goes with all that is in it: a slip of the name must not cost someone's pictures
    if not (out / INFO).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} is no data set: there is no {INFO}. --overwrite replaces only a data set. Name another folder."
        )


def _contexts(rows: Sequence[manifest.Row], size: int) -> dict[tuple[str, str, str], list[manifest.Row]]:
    """The at most `size` utterances before each, oldest first."""
    found = {}
    for members in manifest.dialogues(rows).values():
        for i, row in enumerate(members):
            found[row.key] = members[max(0, i - size) : i]
    return found


def _counts(rows: Sequence[manifest.Row], labels: Sequence[str]) -> dict[str, Any]:
    per_class = Counter(labels[row.label] for row in rows)
    return {
        "records": len(rows),
        "dialogues": len({row.dialogue_id for row in rows}),
        "with_face": sum(bool(row.faces) for row in rows),
        "per_class": {label: per_class[label] for label in labels},
    }


def _write_split(
    folder: Path,
    split: str,
    rows: Sequence[manifest.Row],
    context: dict[tuple[str, str, str], list[manifest.Row]],
    options: PrepareOptions,
    pieces: tokenizer.WordPieceTokenizer,
    progress: Callable[[Sequence[Any]], Iterable[Any]],
) -> list[dict[str, Any]]:
    count = -(-len(rows) // ROWS_PER_SHARD)
    tokens = pieces(tf.constant([row.utterance for row in rows])).to_list()
    pairs = list(zip(rows, tokens, strict=True))
    items = iter(progress(pairs))
    shards = []
    for n in range(count):
        path = folder / f"{split}-{n:05d}-of-{count:05d}.tfrecord"
        size = min(ROWS_PER_SHARD, len(rows) - n * ROWS_PER_SHARD)
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(size):
                row, row_tokens = next(items)
                writer.write(schema.to_example(_record(row, row_tokens, context[row.key], options)))
            writer.flush()
        shards.append({"file": path.name, "records": size, "bytes": path.stat().st_size, "sha256": files.sha256(path)})
    next(items, None)  # lets the progress bar end
    return shards


def _record(
    row: manifest.Row, tokens: list[int], past: Sequence[manifest.Row], options: PrepareOptions
) -> dict[str, Any]:
    faces = [images.read_crop(path, options.face_size, f"{row.where}: ") for path in row.faces]
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "dialogue_id": row.dialogue_id,
        "utterance_id": row.utterance_id,
        "speaker": row.speaker,
        "utterance": row.utterance,
        "tokens": tokens,
        "context": [other.utterance for other in past],
        "context_speaker": [other.speaker for other in past],
        "face_jpeg": faces,
        "face_mask": [1] * len(faces),
        "label": row.label,
        "weight": row.weight,
    }


def read_info(data: Path) -> dict[str, Any]:
    """Reads a data set's `dataset_info.json`.

    Raises:
        UserError: no data set there, broken JSON, or another schema version.
    """
    path = data / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        version = info["schema_version"]
        _ = info["labels"], info["face_size"], info["max_faces"], info["tokenizer"]["sha256"]
        for split in info["splits"].values():
            _ = (
                split["records"],
                [[shard[key] for key in ("file", "records", "bytes", "sha256")] for shard in split["shards"]],
            )
    except FileNotFoundError:
        raise UserError(
            f"No data set at {data}: {INFO} is not there. Make one with: python main.py prepare table "
            f"MANIFEST --out {data}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"Cannot read {path}: {type(error).__name__}: {error}. Prepare the data set again.") from None
    if version != schema.SCHEMA_VERSION:
        raise UserError(
            f"{path}: Schema version {version}. Expected {schema.SCHEMA_VERSION}. Prepare the data set "
            "again with this program."
        )
    return info


def data_spec(info: dict[str, Any]) -> schema.DataSpec:
    """What a model must know of the data set."""
    shards = [shard["sha256"] for split in info["splits"].values() for shard in split["shards"]]
    return schema.DataSpec(
        labels=tuple(info["labels"]),
        face_size=info["face_size"],
        max_faces=info["max_faces"],
        lower_case=info["tokenizer"]["lower_case"],
        tokenizer=info["tokenizer"]["name"],
        tokenizer_sha256=info["tokenizer"]["sha256"],
        data_sha256=hashlib.sha256("".join(shards).encode()).hexdigest(),
    )
