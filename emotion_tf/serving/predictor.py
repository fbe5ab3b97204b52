"""Predictions, whoever makes them: a run, an export or a server. Without TensorFlow, which a client need not have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emotion_tf import schema
from emotion_tf.data import raw
from emotion_tf.errors import UserError
from emotion_tf.evaluation.reliability import confidence_of
from emotion_tf.evaluation.selective import with_abstentions
from emotion_tf.modalities import FACE, MODALITIES, TEXT
from emotion_tf.runs.facts import ModelFacts
from emotion_tf.wording import plural

BATCH = 64
MAX_CROPS = 1024
"""Largest number of face crops of a batch of several utterances, padding included: it bounds the memory."""
SCORES = ("logits", "probabilities")
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Prediction:
    """Predictions for N utterances.

    Attributes:
        labels: the C class names.
        predicted: int (N,), the predicted classes: those with the highest logit.
        probabilities: float32 (N, C), calibrated; each row sums to 1.
        present: modality -> bool (N,), whether the model read it.
    """

    labels: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    present: Mapping[str, np.ndarray]

    @property
    def has_input(self) -> np.ndarray:
        """Whether the model read anything of each utterance, bool (N,)."""
        return np.any(list(self.present.values()), axis=0)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each predicted class, float32 (N,)."""
        return confidence_of(self.probabilities, self.predicted)

    @property
    def label(self) -> list[str]:
        """The predicted class of each utterance."""
        return self.label_or_abstained(0.0)

    def label_or_abstained(self, below: float) -> list[str]:
        """The same, with "abstained" where the confidence is below a threshold."""
        return with_abstentions(self.labels, self.predicted, self.confidence, below)


class Predictor(ABC):
    """A model that predicts from raw inputs, wherever it runs.

    Attributes:
        facts: facts of the model, such as its labels.
        source: where it comes from, for messages: a path, or a model and its server.
    """

    facts: ModelFacts
    source: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The C class names."""
        return self.facts.labels

    @property
    def fingerprint(self) -> str:
        """A text that is another one for another model."""
        return f"{self.source} {self.facts}"

    @property
    def context(self) -> int:
        """Number of previous utterances that are read with an utterance."""
        return self.facts.context

    @property
    def reads_context(self) -> bool:
        """Whether the model reads previous utterances."""
        return self.context > 0

    @property
    def speaker(self) -> bool:
        """Whether the utterance is read with its speaker, `Speaker: utterance`."""
        return self.facts.speaker

    @abstractmethod
    def _predict_batch(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        """Returns `logits`, `probabilities` and each `MODALITY_present` of at most `BATCH` utterances."""

    def predict(
        self,
        utterances: Sequence[str],
        faces: Sequence[raw.Face | Sequence[raw.Face] | None] | None = None,
        contexts: Sequence[Sequence[str]] | None = None,
    ) -> Prediction:
        """Predicts the emotion of each utterance.

        Args:
            utterances: N texts; an empty string is a missing text.
            faces: N aligned face crops: a picture's path, its bytes, uint8 RGB pixels (H, W, 3), a list of these for
                several crops, or None for no face. Default: no faces.
            contexts: for each utterance the previous ones (`Speaker: utterance`), oldest first. Default: none.

        Raises:
            UserError: the numbers of utterances, faces and contexts differ; the model reads no context; a picture
                cannot be read; the server does not answer.
        """
        faces, lines = per_utterance(utterances, faces, contexts)
        crops = [raw.encode_faces(face, self.facts.face_size, i) for i, face in enumerate(faces)]
        if any(lines) and not self.reads_context:
            raise UserError(
                f"{self.source} reads no context. Expected a run trained with --text.context, or no context."
            )
        batches = [
            self._predict_batch(list(utterances[rows]), lines[rows], crops[rows])
            for rows in batch_rows([len(faces) for faces in crops])
        ]
        no_rows = {
            **dict.fromkeys(SCORES, np.zeros((0, len(self.labels)), np.float32)),
            **{f"{modality}_present": np.zeros(0, bool) for modality in MODALITIES},
        }
        outputs = {
            name: np.concatenate([start, *(batch[name] for batch in batches)]) for name, start in no_rows.items()
        }
        present = {modality: outputs[f"{modality}_present"] for modality in MODALITIES}
        return Prediction(self.labels, outputs["logits"].argmax(axis=1), outputs["probabilities"], present)


def check_answer(outputs: Mapping[str, Any], inputs: Arrays, facts: ModelFacts, source: str) -> Arrays:
    """Returns logits, probabilities and presence of an answer of `serve_full`.

    Raises:
        UserError: an output is missing or has another shape; a number is not finite; probabilities do not sum to 1; a
            label is not the one with the highest logit; or a modality is present that was not sent.
    """
    rows, sent = len(inputs["utterance"]), _sent(inputs)
    try:
        scores = {name: np.asarray(outputs[name], np.float32) for name in SCORES}
        present = {f"{modality}_present": np.asarray(outputs[f"{modality}_present"]) for modality in MODALITIES}
        values = np.asarray(outputs["label"]).tolist()
        labels = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        problem = _fault(scores, present, sent, rows, facts)
        if not problem and labels != [facts.labels[i] for i in scores["logits"].argmax(axis=1)]:
            problem = "`label` is not the one with the highest logit"
    except (KeyError, IndexError, ValueError, TypeError, OverflowError, UnicodeDecodeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise UserError(
            f"{source} is not {facts.name}: its outputs do not fit the labels {', '.join(facts.labels)[:100]} "
            f"({' '.join(str(problem).split())[:100]}). Expected an export of that run."
        )
    return {**scores, **present}


def _sent(inputs: Arrays) -> dict[str, np.ndarray]:
    """Returns modality -> whether each utterance was sent with it, bool (N,)."""
    lines = [[utterance, *context] for utterance, context in zip(inputs["utterance"], inputs["context"], strict=True)]
    return {
        TEXT: np.array([any(texts) for texts in lines], bool),
        FACE: np.array([any(crops) for crops in inputs["face_jpeg"]], bool),
    }


def _fault(scores: Arrays, present: Arrays, sent: Mapping[str, np.ndarray], rows: int, facts: ModelFacts) -> str | None:
    """Returns what is wrong with the numbers of an answer; None if nothing is."""
    for name, value in scores.items():
        if value.shape != (rows, len(facts.labels)) or not np.isfinite(value).all():
            return f"`{name}` are no finite numbers of the shape ({rows}, {len(facts.labels)})"
    if not np.allclose(scores["probabilities"].sum(axis=1), 1, atol=1e-3) or scores["probabilities"].min(initial=0) < 0:
        return "`probabilities` do not sum to 1"
    for modality in MODALITIES:
        value = present[f"{modality}_present"]
        if value.shape != (rows,) or value.dtype != bool:
            return f"`{modality}_present` are no {rows} booleans"
        if (value & ~sent[modality]).any():
            return f"`{modality}_present` is true without one"
    return None


def batch_rows(counts: Sequence[int]) -> Iterator[slice]:
    """Yields the rows of each batch: at most `BATCH`, and at most `MAX_CROPS` crops if there are several.

    Args:
        counts: number of crops of each utterance. Those of a batch are padded to the largest number.
    """
    start, most = 0, 1
    for row, count in enumerate(counts):
        most = max(most, count)
        if row > start and (row - start == BATCH or (row + 1 - start) * most > MAX_CROPS):
            yield slice(start, row)
            start, most = row, max(1, count)
    if counts:
        yield slice(start, len(counts))


def full_inputs(
    utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]], lines: int = 1, faces: int = 1
) -> Arrays:
    """Returns the inputs of `serve_full`: utterance (B,), context (B, N), face_jpeg (B, K), and others absent.

    They are padded to N >= `lines` and K >= `faces`.
    """
    encoded = [[line.encode("utf-8", "ignore") for line in context] for context in contexts]
    inputs = {
        "utterance": byte_strings([text.encode("utf-8", "ignore") for text in utterances]),
        "context": byte_strings(raw.pad_rows(encoded, b"", lines)),
        "face_jpeg": byte_strings(raw.pad_rows(crops, b"", faces)),
    }
    absent = {
        f.name: np.zeros((len(utterances), 0), f.dtype) for f in schema.SERVING_FULL_INPUTS if f.name not in inputs
    }
    return inputs | absent


def byte_strings(values: Any) -> np.ndarray:
    """Returns an object array of bytes: NumPy's own dtype for bytes drops trailing zeros."""
    return np.array(values, object)


def per_utterance(
    utterances: Sequence[str], faces: Sequence[Any] | None, contexts: Sequence[Sequence[str]] | None
) -> tuple[Sequence[Any], list[list[str]]]:
    """Returns the face crops and the previous utterances of each utterance, as `Predictor.predict` takes them.

    Raises:
        UserError: the numbers of utterances, faces and contexts differ; or one of them is not a list, or a text not a
            string, such as the NaN of an empty cell.
    """
    if isinstance(utterances, str):
        raise UserError("Invalid `utterances`. Expected a list of strings. Received: one string; put it into a list.")
    _check_texts("utterances", utterances)
    lines = []
    for row, context in enumerate(_one_per_utterance("contexts", contexts, utterances)):
        if isinstance(context, str):
            raise UserError(
                f"Invalid `contexts`. Expected a list of lines for each utterance. Received for row {row} one string: "
                f"{context[:80]!r}. Put it into a list."
            )
        lines.append([] if context is None else list(context))
        _check_texts(f"contexts[{row}]", lines[-1])
    return _one_per_utterance("faces", faces, utterances), lines


def _check_texts(name: str, texts: Sequence[Any]) -> None:
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f'Invalid `{name}[{i}]`. Expected a string, "" if there is none. Received: {text!r:.80}.')


def _one_per_utterance(name: str, values: Sequence[Any] | None, utterances: Sequence[str]) -> Sequence[Any]:
    if values is None:
        return [None] * len(utterances)
    if len(values) != len(utterances):
        raise UserError(
            f"Invalid `{name}`. Expected one entry (or None) for each of {plural(len(utterances), 'utterance')}. "
            f"Received: {len(values)}."
        )
    return values
