"""The emotion of each utterance of a dialogue, from what was said and the face that said it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emotion_tf.serving.predict import Predictor

__version__ = "0.1.0"


def load(run: str) -> Predictor:
    """Loads a run or an ensemble of `saved_models/`, ready for `.predict(utterances, faces)`.

    Raises:
        emotion_tf.errors.UserError: there is no finished run.
    """
    from pathlib import Path

    from emotion_tf.runs.ensemble import open_folder
    from emotion_tf.serving.predict import Predictor

    return Predictor(open_folder(Path(run)))
