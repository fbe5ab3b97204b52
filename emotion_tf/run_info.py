"""What `run.json` says of a run, and of its data set. Read without TensorFlow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from emotion_tf import documents
from emotion_tf.documents import Amount, Command, Count, Labels, Length, Name, Pathname, Score, Sha256, Side, Text
from emotion_tf.errors import UserError

FILE = "run.json"
Corpus = Literal["", "meld", "demo"]
"""A corpus that `prepare` knows; empty: the user's own data."""
MAX_WIDTH = 100_000


class Crops(TypedDict, total=False):
    """The `--faces.*` options that `predict` shares with `prepare`; `CropConfig` knows their ranges."""

    detector: Name
    rate: Amount
    most_frames: Count
    policy: Name
    crops: Count


@dataclass(frozen=True)
class DataSpec:
    """The properties of a data set that a model depends on. Stored with every run.

    Attributes:
        labels: class names, in the order of the logits.
        face_size: side of the square face crops in pixels.
        max_faces: largest number of crops of an utterance.
        lower_case: whether the word-piece tokenizer removes case and accents.
        tokenizer: value of `prepare --tokenizer`.
        tokenizer_sha256: hash of the tokenizer's vocabulary and `lower_case`.
        data_sha256: hash of all shards of the data set.
        crops: `--faces.*` options of the face crops; empty: the manifest names images.
        context: largest number of past, and of future, utterances stored with an utterance.
        corpus: meld or demo; empty: the user's own.
    """

    labels: Labels
    face_size: Side
    max_faces: Annotated[Length, Field(ge=1)]
    lower_case: bool
    tokenizer: Pathname
    tokenizer_sha256: Sha256
    data_sha256: Sha256 = ""
    crops: Crops = field(default_factory=Crops)
    context: Length = 0
    corpus: Corpus = ""


@dataclass(frozen=True, kw_only=True)
class RunInfo(DataSpec):
    """The document `run.json`.

    Attributes:
        majority: most frequent class in training.
        class_counts: weighted number of training rows of each class, in the order of the labels.
        command: the command line of the training.
        parameters: number of parameters of the model.
        word_dim: width of the word embedding. A file of word vectors overrides the configuration.
        words_sha256: hash of `words.txt`.
        initial: sentences about the runs whose towers it starts from.
        absent_shares: for each modality, the share of the training rows without it; None if unknown.
        versions: library -> version, and that of this program.
        date: date and time in UTC at which the training began.
        seconds: duration of all epochs with their validation; None before the training is finished.
        machine: processor, number of processors and of GPUs, and system.
        seeded_order: whether the order of the training batches follows from the seed; not with a tf.data service.
        commit: commit of the project, with `-dirty` after changes; empty for an installed package.
    """

    majority: str
    class_counts: tuple[Amount, ...]
    command: Command
    parameters: Count
    word_dim: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    words_sha256: Sha256
    initial: tuple[Text, ...] = ()
    absent_shares: dict[str, Score] | None = None
    versions: dict[str, Name] = field(default_factory=dict)
    date: Annotated[str, Field(max_length=30)] = ""
    seconds: Amount | None = None
    machine: dict[str, Name] = field(default_factory=dict)
    seeded_order: bool = True
    commit: Annotated[str, Field(max_length=100)] = ""

    def __post_init__(self) -> None:
        """Raises UserError for a majority that is no label, or another number of counts than of labels."""
        if self.majority not in self.labels:
            raise UserError(f"Invalid `majority`. Expected one of the labels. Received: {self.majority[:80]!r}.")
        if len(self.class_counts) != len(self.labels):
            raise UserError(
                f"Invalid `class_counts`. Expected {len(self.labels)}, one for each label. Received: "
                f"{len(self.class_counts)}."
            )

    @property
    def spec(self) -> DataSpec:
        """The properties of the data set."""
        return DataSpec(**{field.name: getattr(self, field.name) for field in dataclasses.fields(DataSpec)})


def read_run_info(run: Path) -> RunInfo:
    """Reads `run.json`. Raises UserError if it is invalid."""
    return documents.read(run / FILE, RunInfo, "Copy the run again, or train it again.")
