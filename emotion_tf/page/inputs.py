"""What a visitor gives, checked: texts of bearable length, and the faces of a picture or a clip."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_tf.config import CropConfig
from emotion_tf.data import images
from emotion_tf.errors import UserError
from emotion_tf.faces.candidates import Candidates, find_in_photo
from emotion_tf.faces.crops import FaceCrops
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.pool import CandidatesProcess

LONGEST_TEXT = 2000
MOST_LINES = 50
SECONDS = 30.0
"""For the faces of one clip, at most."""
PROBLEMS = {
    "no face found": "No face was found in {name}, so only the text counts.",
    "time limit": "{name} takes too long to look through: {detail}. Give a shorter clip.",
    "decoder crashed": "{name} cannot be decoded. Give a video such as MP4.",
    "cannot be decoded": "{name} cannot be decoded. Give a video such as MP4.",
}


@dataclass(frozen=True)
class Given:
    """An utterance as it is shown to a run.

    Attributes:
        text: what is said; empty: nothing.
        past: the lines said before it, oldest first.
        faces: aligned crops, JPEGs.
    """

    text: str = ""
    past: tuple[str, ...] = ()
    faces: tuple[bytes, ...] = ()


def read_texts(text: str | None, past: str | None) -> tuple[str, tuple[str, ...]]:
    """The utterance, and the lines before it without empty ones.

    Raises:
        UserError: longer than anybody speaks.
    """
    text, lines = (text or "").strip(), tuple(line.strip() for line in (past or "").splitlines() if line.strip())
    for name, said in (("utterance", text), *(("line said before", line) for line in lines)):
        if len(said) > LONGEST_TEXT:
            raise UserError(f"The {name} has {len(said):,} characters. At most {LONGEST_TEXT:,} are taken: shorten it.")
    if len(lines) > MOST_LINES:
        raise UserError(f"{len(lines):,} lines were said before. At most {MOST_LINES} are taken: keep the last ones.")
    return text, lines


class FaceFinder:
    """Finds the faces of pictures and clips, as `prepare` does.

    Args:
        config: how faces are found.
        load: makes a detector; must be picklable.
    """

    def __init__(self, config: CropConfig, load: Callable[[], Detector]) -> None:
        self.config, self._detect = config, load()
        self._clips = CandidatesProcess(load)
        # one each: who gives a picture does not wait for anybody's clip
        self._lock, self._clip_lock = threading.Lock(), threading.Lock()

    def of_picture(self, path: Path, size: int, is_crop: bool) -> Candidates:
        """The faces of a picture, the largest first; with `is_crop` the picture is one.

        Raises:
            UserError: it cannot be read.
        """
        try:
            if is_crop:
                return Candidates((FaceCrops(jpegs=(images.read_crop(path, size),), policy="crop"),))
            pixels = images.read_pixels(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), path.name)) from None
        with self._lock:  # a detector keeps the size of its picture
            return find_in_photo(pixels, self._detect, size)

    def of_clip(self, path: Path, size: int) -> Candidates:
        """The faces of a clip, the one that speaks first.

        Raises:
            UserError: it cannot be decoded, or takes too long.
        """
        with self._clip_lock:
            found = self._clips.find(path, replace(self.config, seconds=min(self.config.seconds, SECONDS)), size)
        if found.problem and found.problem != "no face found":
            raise UserError(PROBLEMS[found.problem].format(name=path.name, detail=found.detail))
        return found

    def find(self, picture: Path | None, clip: Path | None, size: int, is_crop: bool) -> Candidates:
        """The faces of what was given; of nothing, none.

        Raises:
            UserError: both were given, or one cannot be read.
        """
        if picture is not None and clip is not None:
            raise UserError("A picture and a clip were given. Take one of them away.")
        if picture is not None:
            return self.of_picture(picture, size, is_crop)
        return Candidates() if clip is None else self.of_clip(clip, size)

    def close(self) -> None:
        """Ends the process for clips."""
        self._clips.close()
