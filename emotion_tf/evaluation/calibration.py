"""Calibration on the validation split: class biases, temperatures, and the thresholds of selective prediction.

A prediction is the class with the highest logit. Its confidence is the calibrated probability of that class. Without
biases it is the most probable class. With them another class may be more probable: training was told to favour rare
classes, and the probabilities are those of the true class frequencies.

Every function that fits takes the validation split alone. The result is stored with the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from scipy.special import softmax
from typing_extensions import TypedDict

from emotion_tf import documents, files
from emotion_tf.documents import Count, Finite
from emotion_tf.errors import UserError
from emotion_tf.evaluation.reliability import confidence_of
from emotion_tf.evaluation.selective import CONFIDENCE, Threshold, fit_thresholds
from emotion_tf.evaluation.temperature import Temperature, fit_temperature
from emotion_tf.modalities import presence_patterns
from emotion_tf.wording import plural

FILE = "calibration.json"
PATTERNS = presence_patterns()
"""Which modalities an utterance has."""
REPAIR = "Remove the file and run `evaluate --report` to calibrate again; until then probabilities are not calibrated."
MIN_UTTERANCES = 100
MIN_ERRORS = 5


class Outputs(NamedTuple):
    """Outputs of a model on a split.

    Attributes:
        logits: float (N, C).
        label: int (N,), true classes.
        weight: float (N,), weights of the utterances.
        pattern: int (N,), indices into `PATTERNS`: the modalities that are present.
    """

    logits: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    pattern: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The predicted classes, those with the highest logit, int (N,)."""
        return self.logits.argmax(axis=1)


def is_sufficient(wrong: np.ndarray) -> bool:
    """Returns whether a temperature can be fitted on utterances: there are 100, of which 5 are predicted wrongly.

    The relative standard error of a temperature is about 1 / sqrt(N). Without any error the likelihood is highest at
    temperature 0.

    Args:
        wrong: bool (N,), whether the prediction is wrong.
    """
    return len(wrong) >= MIN_UTTERANCES and int(wrong.sum()) >= MIN_ERRORS


@dataclass(frozen=True)
class Temperatures:
    """The divisors of the logits, one for each pattern of present modalities, and what is added before.

    Attributes:
        pooled: temperature of all patterns together; used for a pattern without its own.
        own: pattern -> its own temperature.
        fitted_on: pattern, or "all" -> number of validation utterances, and number of wrong predictions among them.
        biases: a number for each class, which is added to its logit; empty: none.
    """

    pooled: Temperature
    own: Mapping[str, Temperature]
    fitted_on: Mapping[str, tuple[Count, Count]]
    biases: tuple[Finite, ...] = ()

    def __post_init__(self) -> None:
        """Raises UserError for the temperature of an unknown pattern."""
        if unknown := sorted(set(self.own) - set(PATTERNS)):
            raise UserError(f"Invalid `own`. Expected only {', '.join(PATTERNS)}. Received: {unknown[0][:80]!r}.")

    @property
    def values(self) -> np.ndarray:
        """The temperatures in the order of `PATTERNS`, float32 (P,)."""
        return np.array([self.own.get(name, self.pooled) for name in PATTERNS], np.float32)

    def scale(self, logits: Any, pattern: Any, take: Callable[[Any, Any], Any] = np.take) -> Any:
        """Adds the biases to logits (N, C) and divides them by the temperatures of their patterns (N,).

        Takes tensors with `take=tf.gather`, so that the served graph and the evaluation share one rule.
        """
        if self.biases:
            logits = logits + np.array(self.biases, np.float32)
        return logits / take(self.values, pattern)[:, None]

    def probabilities(self, logits: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        """Returns softmax((logits + biases) / T), float32 (N, C)."""
        return softmax(self.scale(logits, pattern), axis=1).astype(np.float32)


NONE = Temperatures(1.0, {}, {})
"""No scaling."""


def fit_temperatures(dev: Outputs, biases: Sequence[float] = ()) -> Temperatures:
    """Fits a temperature for each pattern on the validation split, after the biases were added to the logits.

    A pattern gets its own temperature if its utterances suffice. Otherwise it uses the pooled temperature, which is 1
    if all utterances together are too few.
    """
    wrong = dev.predicted != dev.label
    logits = dev.logits + np.array(biases, np.float32) if biases else dev.logits
    own, counts = {}, {}
    for name, rows in [("all", np.full(len(wrong), True)), *((p, dev.pattern == i) for i, p in enumerate(PATTERNS))]:
        if not rows.any():
            continue
        counts[name] = int(rows.sum()), int(wrong[rows].sum())
        if is_sufficient(wrong[rows]):
            own[name] = fit_temperature(dev.label[rows], logits[rows], dev.weight[rows])
    return Temperatures(own.pop("all", 1.0), own, counts, tuple(biases))


@dataclass(frozen=True)
class Calibration:
    """Everything that is fitted on a run's validation split after training.

    Attributes:
        temperatures: divisors of the logits, and the biases of the classes.
        thresholds: thresholds of the calibrated confidence, one for each target precision; none if the validation
            utterances have weights other than 0 and 1.
        utterances: number of utterances in the validation split, without those of weight 0.
        dialogues: number of their dialogues.
    """

    temperatures: Temperatures = NONE
    thresholds: tuple[Threshold, ...] = ()
    utterances: int = 0
    dialogues: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for more dialogues than utterances, or thresholds that contradict each other."""
        if self.dialogues > self.utterances:
            raise UserError(
                f"Invalid `dialogues`. Expected at most one for each of {plural(self.utterances, 'utterance')}. "
                f"Received: {self.dialogues}."
            )
        targets = [row.target for row in self.thresholds]
        if len(set(targets)) < len(targets):
            raise UserError(f"Invalid `thresholds`. Expected one for each target. Received: {targets}.")
        for row in self.thresholds:
            if (row.threshold is None) != (row.precision is None):
                raise UserError(f"Invalid `thresholds`. Expected a threshold with its precision. Received: {row}.")

    @property
    def fitted_on(self) -> str:
        """The validation utterances, in words."""
        return f"{plural(self.utterances, 'validation utterance')} in {plural(self.dialogues, 'dialogue')}"

    @property
    def unpromised(self) -> str:
        """Sentence about the precisions that cannot be promised; empty if there are none."""
        if not self.utterances:
            return "This run has no thresholds, so it promises no precision."
        if not self.thresholds:
            return "No precision can be promised, because validation utterances have weights other than 0 and 1."
        targets = [f"{row.target:g}" for row in self.thresholds if row.threshold is None]
        if not targets:
            return ""
        precisions = f"{', '.join(targets[:-1])} and {targets[-1]}" if targets[1:] else targets[0]
        return f"A precision of {precisions} cannot be promised with {self.fitted_on}."


def fit_calibration(
    dev: Outputs, dialogue: np.ndarray, shift: np.ndarray | None = None, has_class_weights: bool = False
) -> Calibration:
    """Fits biases, temperatures and thresholds on the validation split.

    What logit adjustment added to the logits in training is the bias of each class: the sum is what the loss calibrated
    (Menon 2021, equation 10). After class weights the biases are fitted.

    Args:
        dev: outputs on the validation split; utterances of weight 0 do not count.
        dialogue: (N,), dialogue of each utterance.
        shift: float (C,), what training added to the logits in the loss, if anything.
        has_class_weights: whether the loss weighted the classes.
    """
    counts = dev.weight > 0
    dev, dialogue = Outputs(*(column[counts] for column in dev)), dialogue[counts]
    biases = np.zeros(0) if shift is None else shift
    wrong = dev.predicted != dev.label
    if has_class_weights and is_sufficient(wrong) and len(np.unique(dialogue)) > 1:
        from emotion_tf.evaluation.class_bias import select_biases  # scikit-learn takes a second to import

        biases = select_biases(dev.label, dev.logits, dev.weight, dialogue)
    temperatures = fit_temperatures(dev, biases.tolist() if biases.any() else ())
    probabilities = temperatures.probabilities(dev.logits, dev.pattern)
    correct, confidence = ~wrong, confidence_of(probabilities, dev.predicted)
    thresholds = tuple(fit_thresholds(correct, confidence, dialogue, dev.weight))
    return Calibration(temperatures, thresholds, len(wrong), len(np.unique(dialogue)))


class CalibrationFile(TypedDict):
    """The document `calibration.json`."""

    fitted_on: Annotated[str, documents.exactly("dev")]
    confidence: Annotated[float, documents.exactly(CONFIDENCE)]
    utterances: Count
    dialogues: Count
    temperatures: Temperatures
    thresholds: tuple[Threshold, ...]


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Writes `calibration.json` into a run's folder."""
    values = {
        "fitted_on": "dev",
        "confidence": CONFIDENCE,
        "utterances": calibration.utterances,
        "dialogues": calibration.dialogues,
        "temperatures": asdict(calibration.temperatures),
        "thresholds": [threshold._asdict() for threshold in calibration.thresholds],
    }
    files.write_text(folder / FILE, json.dumps(values, indent=2) + "\n")


def read_calibration(folder: Path) -> Calibration:
    """Reads `calibration.json`. A run without it has temperature 1 and no thresholds.

    Raises:
        UserError: the file exists and is invalid. Thresholds of another confidence than `CONFIDENCE` promise nothing.
    """
    path = folder / FILE
    if documents.is_missing(path):
        return Calibration()
    values = documents.read(path, CalibrationFile, REPAIR)
    try:
        return Calibration(values["temperatures"], values["thresholds"], values["utterances"], values["dialogues"])
    except UserError as error:
        raise UserError(f"{path}: {error} {REPAIR}") from None
