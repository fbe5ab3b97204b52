"""Emotion recognition for the utterances of a dialogue, from text and faces."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# OpenCV refuses larger pictures (`pictures.MAX_PIXELS`) before it allocates memory. cv2 reads the variable on import,
# and Keras imports cv2.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(64 * 1024 * 1024))

if TYPE_CHECKING:
    from emotion_tf.api import Run, load, prepare, train
    from emotion_tf.errors import UserError

__all__ = ["Run", "UserError", "__version__", "load", "prepare", "train"]
__version__ = "0.2.0"
_MODULES = {**dict.fromkeys(("Run", "load", "prepare", "train"), "api"), "UserError": "errors"}
"""Name -> the module that defines it. It is imported when it is first used: `import emotion_tf` takes no time."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
