"""Emotion recognition for the utterances of a dialogue, from text and faces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# OpenCV refuses larger pictures (`pictures.MAX_PIXELS`) before it allocates memory. cv2 reads the variable on import,
# and Keras imports cv2.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 1024 * 1024))

if TYPE_CHECKING:
    from emotion_tf.serving.predict import Predictor

__all__ = ["__version__", "load"]
__version__ = "0.2.0"


def load(run: str | Path, trust: bool = False) -> Predictor:
    """Loads a run, an ensemble or an export, ready for `.predict(utterances, faces)`.

    TensorFlow is imported by this function, not by `import emotion_tf`.

    Args:
        run: its folder, such as `saved_models/demo-text-face`, or an export, `saved_models/demo-text-face/serving/1`.
        trust: whether to run graphs that this program did not make here for this user, like `--trust`.

    Raises:
        emotion_tf.errors.UserError: the folder holds no finished run, ensemble or export, or its graph is not trusted.
    """
    from emotion_tf.serving.predict import open_predictor
    from emotion_tf.trust import everything

    with everything(trust):
        return open_predictor(Path(run))
