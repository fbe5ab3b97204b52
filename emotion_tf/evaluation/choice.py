"""All that is chosen beside the weights: temperatures and thresholds, by the validation split alone.

Nothing in here takes a second split. What is chosen is kept with the run, and read when the run is evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.evaluation import calibration
from emotion_tf.evaluation.calibration import Outputs, Temperatures
from emotion_tf.evaluation.selective import Threshold, choose_thresholds

NAME = "calibration.json"


@dataclass(frozen=True)
class Choice:
    """What a run was given by its validation split.

    Attributes:
        temperatures: of its logits.
        thresholds: of its calibrated probabilities, for wanted precisions.
        utterances: in the validation split.
    """

    temperatures: Temperatures = calibration.NONE
    thresholds: tuple[Threshold, ...] = ()
    utterances: int = 0


def choose(dev: Outputs) -> Choice:
    """Fits the temperatures and finds the thresholds."""
    temperatures = calibration.fit_temperatures(dev)
    probabilities = temperatures.probabilities(dev.logits, dev.pattern)
    return Choice(temperatures, tuple(choose_thresholds(dev.label, probabilities)), len(dev.label))


def write_choice(folder: Path, choice: Choice) -> None:
    """Keeps it in a run's folder."""
    values = {
        "chosen_on": "dev",
        "utterances": choice.utterances,
        "temperatures": calibration.to_json(choice.temperatures),
        "thresholds": [threshold._asdict() for threshold in choice.thresholds],
    }
    files.write_text(folder / NAME, json.dumps(values, indent=2) + "\n")


def read_choice(folder: Path) -> Choice:
    """What `write_choice` kept; a run without it has temperature 1 and no thresholds.

    Raises:
        UserError: the file is there and cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return Choice()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        thresholds = tuple(Threshold(**{k: float(v) for k, v in one.items()}) for one in values["thresholds"])
        return Choice(calibration.from_json(values["temperatures"]), thresholds, int(values["utterances"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"Cannot read {path}: {error} Remove it, and `evaluate --report` writes it anew; without it probabilities "
            "are those that training left."
        ) from None
