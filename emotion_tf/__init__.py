"""Emotion recognition for the utterances of a dialogue, from text and faces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emotion_tf.serving.predict import Predictor

__all__ = ["__version__", "load"]
__version__ = "0.2.0"


def load(run: str | Path) -> Predictor:
    """Loads a run or an ensemble, ready for `.predict(utterances, faces)`.

    TensorFlow is imported by this function, not by `import emotion_tf`.

    Args:
        run: its folder, such as `saved_models/demo-text-face`.

    Raises:
        emotion_tf.errors.UserError: the folder holds no finished run or ensemble.
    """
    from emotion_tf.runs.ensemble import open_run
    from emotion_tf.serving.predict import Predictor

    return Predictor(open_run(Path(run)))
