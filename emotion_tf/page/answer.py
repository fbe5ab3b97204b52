"""A run's prediction for an utterance, with its explanation."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration
from emotion_tf.evaluation.selective import PROMISE, round_down
from emotion_tf.interpret.batch import CONTEXT, FIELDS, Utterance
from emotion_tf.interpret.explain import explain
from emotion_tf.interpret.explanation import Explanation
from emotion_tf.modalities import MODALITIES
from emotion_tf.page.runs import OpenRun

NEVER = 2.0
"""A threshold that no probability reaches."""
NAMES = {**{name: row.title for name, row in MODALITIES.items()}, CONTEXT: "previous utterances"}


@dataclass(frozen=True)
class Answer:
    """A prediction with its explanation, as the page shows it.

    Attributes:
        run: name of the run.
        labels: C class names.
        predicted: index of the predicted class.
        probabilities: float32 (C,), calibrated.
        threshold: least probability of a prediction; below it the page abstains.
        threshold_note: sentence about the threshold.
        explanation: attributions of the prediction; None if there are none, which a note explains.
        notes: sentences about inputs that the run does not read, and about a missing explanation.
        seconds: duration of prediction and explanation.
    """

    run: str
    labels: tuple[str, ...]
    predicted: int
    probabilities: np.ndarray
    threshold: float
    threshold_note: str
    explanation: Explanation | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def is_sure(self) -> bool:
        """Whether the probability of the predicted class reaches the threshold."""
        return float(self.probabilities[self.predicted]) >= self.threshold

    def table(self) -> pd.DataFrame:
        """All numbers, one per row: `what` (probability, word, modality), `of` (its name) and `value`."""
        rows = [("probability", name, float(p)) for name, p in zip(self.labels, self.probabilities, strict=True)]
        if self.explanation is not None:
            rows += [("word", word, value) for word, value in self.explanation.words]
            what = "modality (not to be trusted)" if self.explanation.shapley_notes else "modality"
            rows += [(what, name, value) for name, value in self.explanation.shapley_values.items()]
        return pd.DataFrame(rows, columns=["what", "of", "value"]).assign(run=self.run)


def threshold_for(calibration: Calibration, precision: float) -> tuple[float, str]:
    """Returns the threshold above which a run promises a precision, and a sentence about it.

    Args:
        calibration: calibration of the run.
        precision: wanted precision; 0: always predict.
    """
    if not precision:
        return 0.0, "It always answers."
    if not calibration.thresholds:
        return NEVER, f"{calibration.unpromised} It never answers."
    threshold = next((row.threshold for row in calibration.thresholds if row.target == precision), None)
    if threshold is None:
        return NEVER, f"{100 * precision:.0f} % cannot be promised with {calibration.fitted_on}: it never answers."
    least = f"{100 * round_down(threshold, 4):.2f} %"
    answers = f"its answers with at least {least}" if threshold else "all its answers"
    return (
        threshold,
        f"On validation, at least {100 * precision:.0f} % of {answers} were right, and {PROMISE} as many are on data "
        "like it.",
    )


def answer_utterance(run: OpenRun, utterance: Utterance, precision: float) -> Answer:
    """Predicts and explains an utterance. See `Runs.call`.

    Args:
        run: the run.
        utterance: the utterance; its faces are crops of any size.
        precision: wanted precision; the page abstains below the threshold that promises it.

    Raises:
        UserError: the utterance has no input that the run reads.
    """
    start = time.perf_counter()
    has = [name for name, field in FIELDS.items() if getattr(utterance, field)]
    if not set(has) & set(run.reads):
        reads = " and ".join(NAMES[name] for name in run.reads)
        raise UserError(f"{run.name} reads {reads}. Enter one of them.")
    notes = [f"This run does not read {NAMES[name]}." for name in has if name not in run.reads]
    if CONTEXT not in run.reads:
        utterance = replace(utterance, context=())
    faces, contexts = [list(utterance.faces) or None], [utterance.context]
    prediction = run.predictor.predict([utterance.text], faces, contexts)
    explanation = None
    if run.scorer is None:
        notes.append(run.unexplained)
    else:
        (explanation,) = explain(run.scorer, [utterance], check=False)
    threshold, note = threshold_for(run.calibration, precision)
    predicted, probabilities = int(prediction.predicted[0]), prediction.probabilities[0]
    seconds = time.perf_counter() - start
    return Answer(
        run.name, prediction.labels, predicted, probabilities, threshold, note, explanation, tuple(notes), seconds
    )
