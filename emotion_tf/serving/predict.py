"""From raw strings and pictures to probabilities: what a run, an export and a server are asked alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from emotion_tf.data import raw
from emotion_tf.errors import UserError
from emotion_tf.evaluation.selective import with_abstentions
from emotion_tf.runs.ensemble import Ensemble, open_run
from emotion_tf.runs.export import Export
from emotion_tf.runs.facts import ModelFacts, facts_of, is_export
from emotion_tf.runs.run import Run
from emotion_tf.serving.graph import Graph

BATCH = 64
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """What a model says of N utterances.

    Attributes:
        labels: the C class names.
        probabilities: float32 (N, C), each row sums to 1.
        text_present: bool (N,), whether it read a text.
        face_present: bool (N,), whether it read a face.
    """

    labels: tuple[str, ...]
    probabilities: np.ndarray
    text_present: np.ndarray
    face_present: np.ndarray

    @property
    def label(self) -> list[str]:
        """The most probable class of each utterance."""
        return self.label_or_abstained(0.0)

    def label_or_abstained(self, below: float) -> list[str]:
        """The same, but "abstained" where no class has a probability of at least `below`."""
        return with_abstentions(self.labels, self.probabilities, below)


class Asked(ABC):
    """A model that can be asked, wherever it runs.

    Attributes:
        about: what has to be known of it.
        where: what names it to the user.
    """

    about: ModelFacts
    where: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The C class names."""
        return self.about.labels

    @property
    def context(self) -> int:
        """How many of the lines said before an utterance are read."""
        return self.about.context

    @property
    def reads_context(self) -> bool:
        """Whether the lines said before an utterance matter to this model."""
        return self.context > 0

    @property
    def speaker(self) -> bool:
        """Whether the utterance is read with its speaker, `Speaker: utterance`."""
        return self.about.speaker

    @abstractmethod
    def _ask(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        """What the model says of at most `BATCH` utterances: `probabilities`, `text_present`, `face_present`."""

    def predict(
        self,
        utterances: Sequence[str],
        faces: Sequence[raw.Face | Sequence[raw.Face] | None] | None = None,
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Prediction:
        """Predicts the emotion of each utterance.

        Args:
            utterances: N texts; an empty one is absent.
            faces: N aligned face crops: a picture's path, its bytes, uint8 RGB pixels (H, W, 3), a list of these for
                several crops, or None for no face. None: no faces at all.
            contexts: of each, the lines said before it (`Speaker: utterance`), oldest first. None: none.

        Raises:
            UserError: the numbers of utterances, faces and contexts differ, a context for a model that reads none, a
                picture cannot be read, or a server does not answer as it should.
        """
        if isinstance(utterances, str):
            raise UserError(
                "Invalid `utterances`. Expected a list of strings. Received: one string; put it into a list."
            )
        each = enumerate(_each("faces", faces, utterances))
        crops = [raw.encode_faces(face, self.about.face_size, i) for i, face in each]
        said = [list(lines or ()) for lines in _each("contexts", contexts, utterances)]
        if any(said) and not self.reads_context:
            raise UserError(
                f"{self.where} reads no context. Expected a run trained with --text.context, or no context given."
            )
        batches = [
            self._ask(list(utterances[i : i + BATCH]), said[i : i + BATCH], crops[i : i + BATCH])
            for i in range(0, len(utterances), BATCH)
        ]
        none = {
            "probabilities": np.zeros((0, len(self.labels)), np.float32),
            "text_present": np.zeros(0, bool),
            "face_present": np.zeros(0, bool),
        }
        found = {name: np.concatenate([empty, *(batch[name] for batch in batches)]) for name, empty in none.items()}
        return Prediction(self.labels, **found)


class Predictor(Asked):
    """A trained run, or an ensemble, ready for raw inputs.

    Attributes:
        run: its folder.
        graph: its functions of raw inputs, which are exported too.
    """

    def __init__(self, run: Run | Ensemble) -> None:
        self.run, self.about, self.where = run, facts_of(run), str(run.path)
        runs, vote = (run.members, run.vote) if isinstance(run, Ensemble) else ([run], None)
        self.graph = Graph(runs, run.labels, run.spec.face_size, vote)
        # of a run; of an ensemble those of its first member
        self.model, self.preprocess = self.graph.parts[0].model, self.graph.parts[0].preprocess

    def _ask(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        given = map(tf.constant, full_inputs(utterances, contexts, crops).values())
        return {name: value.numpy() for name, value in self.graph.full(*given).items()}


class ExportPredictor(Asked):
    """An export, ready for raw inputs.

    Args:
        export: opened, which checks its files.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, export: Export) -> None:
        self.about, self.where = export.facts, str(export.path)
        self._saved_model = export.load()

    def _ask(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        return self._saved_model.run("serve_full", full_inputs(utterances, contexts, crops))


def open_predictor(path: Path) -> Asked:
    """Opens a run, an ensemble or an export. Raises UserError if `path` is none of them, or cannot be loaded."""
    return ExportPredictor(Export.open(path)) if is_export(path) else Predictor(open_run(path))


def full_inputs(
    utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]], lines: int = 1, faces: int = 1
) -> Arrays:
    """Inputs of `serve_full`: utterance (B,), context (B, N), face_jpeg (B, K), N >= `lines` and K >= `faces`."""
    said = [[line.encode("utf-8", "ignore") for line in of_one] for of_one in contexts]
    return {
        "utterance": strings([text.encode("utf-8", "ignore") for text in utterances]),
        "context": strings(raw.pad_rows(said, b"", lines)),
        "face_jpeg": strings(raw.pad_rows(crops, b"", faces)),
    }


def strings(values: Any) -> np.ndarray:
    """Bytes as an array of objects: NumPy's own dtype of bytes loses zeros at their end."""
    return np.array(values, object)


def _each(name: str, given: Sequence[Any] | None, utterances: Sequence[str]) -> Sequence[Any]:
    if given is None:
        return [None] * len(utterances)
    if len(given) != len(utterances):
        raise UserError(
            f"Invalid `{name}`. Expected one entry (or None) for each of {len(utterances)} utterances. "
            f"Received: {len(given)}."
        )
    return given
