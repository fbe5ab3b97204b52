"""A prepared data set: its shards, its vocabulary, and the facts of `dataset_info.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from emotion_tf import documents, files, remote, remote_folders, schema, trust
from emotion_tf.data import record_rules, tokenizer, verify
from emotion_tf.data.record_rules import RecordRules, check_split
from emotion_tf.data.rows import Rows
from emotion_tf.data.staging import Stage
from emotion_tf.documents import Amount, Count, FileName, Labels, Length, Pathname, Sha256, Share, Side, Text, exactly
from emotion_tf.errors import UserError
from emotion_tf.kinds import Kind
from emotion_tf.program import program
from emotion_tf.progress import track
from emotion_tf.run_info import Corpus, Crops, DataSpec
from emotion_tf.terminal import say
from emotion_tf.wording import plural

INFO = "dataset_info.json"
VOCABULARY = "vocab.txt"
LONG_CHECK = 1000
"""Number of records whose check takes seconds, and is announced."""
KIND = Kind("data set", (INFO, VOCABULARY), signature='"schema_version"')  # other libraries have such an INFO, too


@dataclass(frozen=True)
class Shard:
    """A TFRecord file: name in the data set's folder, number of records, size in bytes, and SHA-256."""

    file: FileName
    records: Count
    bytes: Count
    sha256: Sha256


@dataclass(frozen=True)
class Split:
    """A split of a data set.

    Attributes:
        records: number of utterances.
        dialogues: number of dialogues.
        with_face: number of utterances with at least one face crop.
        per_class: label -> number of utterances.
        shards: the files, in order.
    """

    records: Count
    dialogues: Count
    with_face: Count
    per_class: Mapping[str, Count]
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Tokenizer:
    """The word-piece tokenizer of a data set.

    Attributes:
        name: value of `prepare --tokenizer`.
        lower_case: whether case and accents are removed.
        sha256: hash of the vocabulary and `lower_case`.
        file: vocabulary file in the data set's folder.
    """

    name: Pathname
    lower_case: bool
    sha256: Sha256
    file: FileName = VOCABULARY


class ClipOptions(Crops, total=False):
    """The options of the face crops, the hash of the detector, and the folder of the clips (`ClipSource.to_json`)."""

    seconds: Amount
    detector_model: Sha256 | None
    root: Pathname


class UnusedClip(TypedDict):
    """An utterance without the faces of its clip: the key of its row, the segments, and why they are not used."""

    row: list[Text]
    clip: list[Text]
    problem: Text
    detail: Text


class Account(TypedDict, total=False):
    """Counts of rows and clips (`account.summarize`)."""

    rows: dict[str, dict[str, Count]]
    clips: dict[str, dict[str, Count]]
    notes: list[Text]
    not_used: list[UnusedClip]


class Demo(TypedDict, total=False):
    """Description of the demo generator (`demo.write_demo`)."""

    generator: Text
    seed: Count
    utterances: Count
    face_size: Side
    best_accuracy: dict[str, dict[str, Share]]
    bayes_accuracy: Any
    undecidable: Any
    shares: Any


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The document `dataset_info.json`.

    Attributes:
        schema_version: version of the records.
        labels: class names, in the order of the logits.
        face_size: side of the face crops in pixels.
        max_faces: largest number of face crops of an utterance.
        context: largest number of past, and of future, utterances stored with an utterance.
        tokenizer: the word-piece tokenizer.
        splits: split -> its counts and shards.
        faces: options of the face crops; empty if the manifest names images.
        account: counts of rows and clips; empty if the manifest names images.
        demo: description of the generator; empty for other data.
        corpus: meld or demo; empty: the user's own.
        notes: remarks of `prepare`.
        features: features of a record, for readers without this program.
    """

    schema_version: Annotated[int, exactly(schema.SCHEMA_VERSION)]
    labels: Labels
    face_size: Side
    max_faces: Annotated[Length, Field(ge=1)]
    context: Length
    tokenizer: Tokenizer
    splits: Mapping[str, Split]
    faces: ClipOptions = field(default_factory=ClipOptions)
    account: Account = field(default_factory=Account)
    demo: Demo = field(default_factory=Demo)
    corpus: Corpus = ""
    notes: tuple[Text, ...] = ()
    features: tuple[schema.Feature, ...] = schema.RECORD

    def __post_init__(self) -> None:
        """Raises UserError if a split counts other labels, or in another order."""
        for name, split in self.splits.items():
            if tuple(split.per_class) != self.labels:
                raise UserError(
                    f"Invalid `splits.{name}.per_class`. Expected a number for each of the labels "
                    f"{', '.join(self.labels)}, in their order. Received: {', '.join(split.per_class)}."
                )


@dataclass(frozen=True, kw_only=True)
class Dataset(DatasetInfo):
    """A data set as `prepare` writes it.

    Attributes:
        path: the folder; of a data set in object storage, a local one without its shards.
        stage: fetches the shards, if they are in object storage.
    """

    path: Path
    stage: Stage | None = None

    @classmethod
    def open(cls, path: Path) -> Dataset:
        """Reads `dataset_info.json`. The shards are not read; see `verify`.

        Args:
            path: the folder, or its URL in object storage.

        Raises:
            UserError: there is no data set at `path`, the JSON is invalid, or the schema version differs; the store
                does not answer.
        """
        if remote.is_url(path):
            return cls._open_remote(remote.Store(path))
        files.restore_missing(path, KIND)
        info = documents.read(
            path / INFO,
            DatasetInfo,
            "Prepare the data set again with this program.",
            missing=f"No data set at {path}: {INFO} does not exist. Make one with: {program()} prepare table MANIFEST "
            f"--out {path}",
            defaults=True,  # older programs left out what was empty
        )
        return cls(path=path, **vars(info))

    @classmethod
    def _open_remote(cls, store: remote.Store) -> Dataset:
        """Copies what is beside the shards to a local folder."""
        path = remote_folders.local_folder("data", store.url)
        remote_folders.copy_file(store, INFO, path)
        dataset = cls.open(path)
        remote_folders.copy_file(store, dataset.tokenizer.file, path)
        shards = [shard for split in dataset.splits.values() for shard in split.shards]
        return dataclasses.replace(dataset, stage=Stage(store, shards))

    @property
    def place(self) -> str:
        """The folder of the data set, or its URL."""
        return self.stage.store.url if self.stage else str(self.path)

    def to_json(self) -> str:
        """Returns the text of `dataset_info.json`. Raises UserError if it could not be read (`documents.check`)."""
        values = dataclasses.asdict(dataclasses.replace(self, stage=None))
        del values["path"], values["stage"]
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        documents.check(text, DatasetInfo)
        return text

    def verify(self) -> None:
        """Compares the vocabulary and every shard with `dataset_info.json`, and checks the content of the records.

        The content is checked once for a data set that this user has not made.

        Raises:
            UserError: as `read_vocabulary`, `verify_shards` and `check_split` do.
        """
        pieces = self.read_vocabulary()
        if self.stage is None:  # else each shard is compared when it is fetched
            verify.verify_shards(self.path, self.splits)
        verify.verify_counts(self.path, self.splits)
        if not trust.has_passed(self._check_key):
            self._check_records(self.record_rules(len(pieces)))
            trust.remember_check(self._check_key, f"records of the data set {self.path.name}, checked")

    def _check_records(self, rules: RecordRules) -> None:
        total = sum(split.records for split in self.splits.values())
        if total >= LONG_CHECK:
            say(f"Checking {plural(total, 'record')} of {self.path}, once.", file=sys.stderr)
        for name, split in self.splits.items():
            progress = partial(track, total=split.records, title=f"checking {name}", unit="records")
            check_split(name, self.rows(name).files(), rules, progress)

    def record_rules(self, pieces: int) -> RecordRules:
        """Returns the rules of the records, given the number of entries of the vocabulary."""
        return RecordRules(len(self.labels), self.face_size, self.max_faces, self.context, pieces)

    @property
    def _check_key(self) -> str:
        about = f"records that pass version {record_rules.VERSION}: {files.sha256(self.path / INFO)}"
        return hashlib.sha256(about.encode()).hexdigest()

    def read_vocabulary(self) -> list[str]:
        """Reads the word pieces. Raises UserError if they are not those of `dataset_info.json`."""
        path = self.path / self.tokenizer.file
        if not path.is_file():  # a pipe would block
            raise UserError(f"{path}: The vocabulary is missing. Expected a text file. {verify.REPAIR}")
        pieces = tokenizer.read_vocabulary(path)
        if tokenizer.hash_vocabulary(pieces, self.tokenizer.lower_case) != self.tokenizer.sha256:
            raise UserError(f"{path}: The vocabulary is not the one of {INFO} (sha256 differs). {verify.REPAIR}")
        return pieces

    def rows(self, *splits: str) -> Rows:
        """Returns all utterances of one or several splits. Raises UserError if a split does not exist."""
        for split in splits:
            if split not in self.splits:
                raise UserError(
                    f"No split {split!r} in {self.path}. Expected one of: {', '.join(self.splits)}. Add such rows to "
                    "the manifest and prepare it again."
                )
        paths = tuple(str(self.path / shard.file) for split in splits for shard in self.splits[split].shards)
        return Rows(paths, stage=self.stage)

    def sample(self, split: str, count: int) -> Rows:
        """Returns `count` utterances of a split at even distances, or all if it has no more; see `rows`."""
        rows = self.rows(split)
        records = self.splits[split].records
        return rows if records <= count else rows.select(np.linspace(0, records - 1, count).astype(np.int64))

    @property
    def hashes(self) -> dict[str, str]:
        """Path of every shard, as in `Rows.paths` -> SHA-256."""
        return {str(self.path / shard.file): shard.sha256 for split in self.splits.values() for shard in split.shards}

    def remember(self) -> None:
        """Notes that this user has made the data set, whose records `write_dataset` has checked."""
        trust.remember_check(self._check_key, f"records of the data set {self.path.name}, written")
        trust.remember(files.sha256(self.path / INFO), f"data set {self.path.name}")

    @cached_property
    def is_own(self) -> bool:
        """Whether this user has made the data set."""
        return trust.is_trusted(files.sha256(self.path / INFO))

    @cached_property
    def spec(self) -> DataSpec:
        """The properties of the data set that a model depends on."""
        return DataSpec(
            labels=self.labels,
            face_size=self.face_size,
            max_faces=self.max_faces,
            lower_case=self.tokenizer.lower_case,
            tokenizer=self.tokenizer.name,
            tokenizer_sha256=self.tokenizer.sha256,
            data_sha256=hashlib.sha256("".join(self.hashes.values()).encode()).hexdigest(),
            crops=cast(Crops, {name: value for name, value in self.faces.items() if name in Crops.__annotations__}),
            context=self.context,
            corpus=self.corpus,
        )

    def best_accuracy(self, split: str) -> dict[str, float]:
        """Returns the Bayes accuracy on a demo split: modalities that are read -> accuracy. Empty for other data."""
        return self.demo.get("best_accuracy", {}).get(split, {})
