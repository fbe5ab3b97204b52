"""What a run says of an utterance, and why."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emotion_tf.errors import UserError
from emotion_tf.evaluation.selective import Threshold
from emotion_tf.interpret.batch import CONTEXT, FACE, TEXT, Utterance
from emotion_tf.interpret.explain import explain
from emotion_tf.interpret.explanation import Explanation
from emotion_tf.page.inputs import Given
from emotion_tf.page.runs import OpenRun

NEVER = 2.0
"""A threshold that no probability reaches."""
NAMES = {TEXT: "text", FACE: "a face", CONTEXT: "what was said before"}


@dataclass(frozen=True)
class Answer:
    """An answer as it is shown.

    Attributes:
        run: name of the run.
        labels: C class names.
        probabilities: float32 (C,), calibrated.
        threshold: least probability of a class that is said to be sure.
        sure: sentence on the threshold.
        explanation: why; None: see the notes.
        notes: sentences on what was not used or not possible.
        seconds: that prediction and explanation took.
    """

    run: str
    labels: tuple[str, ...]
    probabilities: np.ndarray
    threshold: float
    sure: str
    explanation: Explanation | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    @property
    def is_sure(self) -> bool:
        """Whether the most probable class reaches the threshold."""
        return float(self.probabilities[self.best]) >= self.threshold

    def table(self) -> pd.DataFrame:
        """All numbers of the answer, one a row: what (probability, word, modality), of what, and the number."""
        rows = [("probability", name, float(p)) for name, p in zip(self.labels, self.probabilities, strict=True)]
        if self.explanation is not None:
            rows += [("word", word, value) for word, value in self.explanation.words]
            rows += [("modality", name, value) for name, value in self.explanation.shapley_values.items()]
        return pd.DataFrame(rows, columns=["what", "of", "value"]).assign(run=self.run)


def threshold_for(thresholds: tuple[Threshold, ...], wanted: float) -> tuple[float, str]:
    """The threshold at which a run is as precise as wanted on its validation split, and a sentence on it.

    Args:
        thresholds: of the run; those that all utterances together reach are not among them.
        wanted: precision; 0: any answer will do.
    """
    if not wanted:
        return 0.0, "It always answers."
    often = f"right in {wanted:.0%} of its answers on validation"
    if not thresholds:
        return 0.0, "It has no threshold, so it always answers."
    for one in thresholds:
        if one.target == wanted:
            return one.threshold, f"From {one.threshold:.2%} up it was {often}."
    if any(one.target > wanted for one in thresholds):
        return 0.0, f"Without a threshold it was {often}, or in more."
    return NEVER, f"At no threshold was it {often}."


def answer(run: OpenRun, given: Given, wanted: float) -> Answer:
    """Asks a run; to be called by one thread at a time.

    Args:
        run: the run.
        given: the utterance; its faces are crops of any size.
        wanted: precision on validation below which it says that it is not sure.

    Raises:
        UserError: nothing was given that this run reads.
    """
    began = time.perf_counter()
    has = {TEXT: bool(given.text), FACE: bool(given.faces), CONTEXT: bool(given.past)}
    if not any(has[name] for name in run.reads):
        reads = " and ".join(NAMES[name] for name in run.reads)
        raise UserError(f"Nothing was given that {run.name} reads, which is {reads}.")
    notes = [f"It does not read {NAMES[name]}." for name in has if has[name] and name not in run.reads]
    past = given.past if CONTEXT in run.reads else ()
    prediction = run.predictor.predict([given.text], [list(given.faces) or None], [past])
    found = None
    if run.scorer is None:
        notes.append(run.unexplained)
    else:
        (found,) = explain(run.scorer, [Utterance(given.text, given.faces, past)], check=False)
    threshold, sure = threshold_for(run.calibration.thresholds, wanted)
    probabilities = prediction.probabilities[0]
    seconds = time.perf_counter() - began
    return Answer(run.name, prediction.labels, probabilities, threshold, sure, found, tuple(notes), seconds)
