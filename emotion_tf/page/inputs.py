"""Checks a visitor's inputs: the length of texts, and the faces of a picture or a clip."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces import encode
from emotion_tf.faces.candidates import Candidates, find_in_photo
from emotion_tf.faces.crops import NO_FACE, FaceCrops
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.pool import ClipProcess

MAX_CHARACTERS = 2000
MAX_LINES = 50
MAX_CLIP_SECONDS = 30.0
"""Longest time to find the faces of one clip."""
PROBLEMS = {
    "time limit": "Finding the faces in {name} takes too long: {detail}. Upload a shorter clip.",
    "decoder crashed": "{name} cannot be decoded. Upload a video such as MP4.",
    "cannot be decoded": "{name} cannot be decoded. Upload a video such as MP4.",
}


def read_texts(text: str | None, context: str | None) -> tuple[str, tuple[str, ...]]:
    """Returns the text of an utterance, and the previous utterances without empty lines.

    Raises:
        UserError: a text is too long, or there are too many lines.
    """
    text, lines = (text or "").strip(), tuple(line.strip() for line in (context or "").splitlines() if line.strip())
    for name, value in (("utterance", text), *(("previous utterance", line) for line in lines)):
        if len(value) > MAX_CHARACTERS:
            raise UserError(f"The {name} has {len(value):,} characters. At most {MAX_CHARACTERS:,} are allowed.")
    if len(lines) > MAX_LINES:
        raise UserError(f"There are {len(lines):,} previous utterances. At most {MAX_LINES} are allowed.")
    return text, lines


class FaceFinder:
    """Finds the faces in pictures and clips, as `prepare` does.

    Args:
        config: how faces are found.
        load: returns a detector; must be picklable.
    """

    def __init__(self, config: CropConfig, load: Callable[[], Detector]) -> None:
        self.config, self._detect = config, load()
        self._clips = ClipProcess(load)
        # two locks: a picture does not wait for another visitor's clip
        self._lock, self._clip_lock = threading.Lock(), threading.Lock()

    def find_in_picture(self, path: Path, size: int, is_crop: bool) -> Candidates:
        """Returns the faces in a picture, the largest first. With `is_crop`, the picture is an aligned crop itself.

        Raises:
            UserError: the picture cannot be read.
        """
        try:
            with self._lock:  # a large picture takes 200 MB, and a detector has state: the size of its picture
                if is_crop:
                    return Candidates((FaceCrops(jpegs=(encode.read_crop(path, size),), policy="crop"),))
                return find_in_photo(encode.read_pixels(path), self._detect, size)
        except UserError as error:
            raise UserError(str(error).replace(str(path), path.name)) from None

    def find_in_clip(self, path: Path, size: int) -> Candidates:
        """Returns the faces in a clip, the active speaker first.

        Raises:
            UserError: the clip cannot be decoded, or takes too long.
        """
        config = replace(self.config, seconds=min(self.config.seconds, MAX_CLIP_SECONDS))
        with self._clip_lock:
            candidates = self._clips.find(path, config, size)
        if candidates.problem and candidates.problem != NO_FACE:
            raise UserError(PROBLEMS[candidates.problem].format(name=path.name, detail=candidates.detail))
        return candidates

    def find(self, picture: Path | None, clip: Path | None, size: int, is_crop: bool) -> Candidates:
        """Returns the faces in a picture or a clip; none without either.

        Raises:
            UserError: there are both, or the file cannot be read.
        """
        if picture is not None and clip is not None:
            raise UserError("There is a picture and a clip. Remove one of them.")
        if picture is not None:
            return self.find_in_picture(picture, size, is_crop)
        return Candidates() if clip is None else self.find_in_clip(clip, size)

    def close(self) -> None:
        """Ends the process that reads clips."""
        self._clips.close()
