"""Answers frames of a visitor's camera one by one, and follows a face from frame to frame. No frame is kept."""

from __future__ import annotations

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from emotion_tf import pictures
from emotion_tf.errors import UserError
from emotion_tf.faces.align import CROP_SIZE, align
from emotion_tf.faces.crops import encode_square
from emotion_tf.faces.detect import Detector, Face
from emotion_tf.faces.track import LONGEST_GAP, Track, link
from emotion_tf.interpret.batch import CONTEXT
from emotion_tf.page.answer import threshold_for
from emotion_tf.page.inputs import MAX_CHARACTERS, MAX_LINES, read_texts
from emotion_tf.page.runs import Runs

MAX_FRAME_PIXELS = 1280 * 1280
MAX_VISITORS = 20
"""Number of visitors whose faces are followed; those of others begin anew with each frame."""
MAX_WAITING = 4
"""Frames in work at a time, above which a frame is refused: the next one is newer."""
BUSY = "Other visitors are being answered. The next frame is tried in a moment."
NOTHING = "There is no face in the picture, and no text."
HIDDEN = "The face that is followed is hidden at the moment, and there is no text."
Line = Annotated[str, Field(max_length=MAX_CHARACTERS + 1)]


class LiveRequest(BaseModel):
    """A frame of the camera, and what is said.

    Attributes:
        visitor: name of the visitor's session, made up by the page.
        run: name of the run.
        precision: least precision of an answer; 0: always answer.
        text: the utterance.
        context: previous utterances, the oldest first.
        frame: a JPEG, as base64.
    """

    visitor: Annotated[str, Field(min_length=1, max_length=64)]
    run: Annotated[str, Field(max_length=1000)]
    precision: Annotated[float, Field(ge=0, le=1)] = 0.0
    text: Line = ""
    context: Annotated[list[Line], Field(max_length=MAX_LINES)] = []
    frame: Annotated[str, Field(max_length=2**21)]


@dataclass
class FollowedFaces:
    """The faces in a visitor's frames: a track holds the last detection alone.

    Attributes:
        tracks: the faces that may come again.
        followed: the face that is answered.
        frames: number of frames.
    """

    tracks: list[Track] = field(default_factory=list)
    followed: Track | None = None
    frames: int = 0

    def update(self, faces: list[Face]) -> list[tuple[Face, bool]]:
        """Links the faces of the next frame. Returns each with whether it is followed, which one of them is.

        The face that is followed is the largest one at first, and stays the same until it is lost.
        """
        self.tracks = [track for track in self.tracks if self.frames - 1 - track.index[-1] <= LONGEST_GAP]
        links = [(face, track or Track(0)) for face, track in link(self.tracks, faces)]
        self.tracks += [track for _, track in links if not track.index]
        for face, track in links:
            track.index, track.faces = [self.frames], [face]
        self.frames += 1
        if links and not any(track is self.followed for track in self.tracks):
            self.followed = max(links, key=lambda row: float(np.prod(row[0].box[2:])))[1]
        return [(face, track is self.followed) for face, track in links]


class Live:
    """Answers frames of cameras.

    Args:
        runs: the runs of the page.
        load: returns a detector of faces.
    """

    def __init__(self, runs: Runs, load: Callable[[], Detector]) -> None:
        self._runs, self._load = runs, load
        self._detect: Detector | None = None
        self._visitors: OrderedDict[str, FollowedFaces] = OrderedDict()
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(MAX_WAITING)

    def answer(self, data: Any) -> dict[str, Any]:
        """Returns the answer to a `LiveRequest`: the boxes of faces, and probabilities or a notice.

        Boxes are left, top, width and height in shares of the frame, the face that is followed first.
        """
        if not self._free.acquire(blocking=False):
            return {"notice": BUSY, "boxes": []}
        try:
            return self._answer(LiveRequest.model_validate(data))
        except ValidationError:
            return {"notice": "This is no frame of the page's camera.", "boxes": []}
        except UserError as error:
            return {"notice": " ".join(str(error).split()), "boxes": []}
        finally:
            self._free.release()

    def _answer(self, request: LiveRequest) -> dict[str, Any]:
        run = self._runs.open(request.run)
        text, context = read_texts(request.text, "\n".join(request.context))
        boxes, crop = self._find_face(request.visitor, _decode(request.frame), run.predictor.facts.face_size)
        if not (text or crop):
            return {"notice": HIDDEN if boxes else NOTHING, "boxes": boxes}
        lines = context if CONTEXT in run.reads else ()
        prediction = self._runs.call(run.predictor.predict, [text], [[crop] if crop else None], [lines])
        threshold, _ = threshold_for(run.calibration, request.precision)
        probabilities, predicted = prediction.probabilities[0], int(prediction.predicted[0])
        return {
            "boxes": boxes,
            "labels": list(prediction.labels),
            "probabilities": [float(p) for p in probabilities],
            "predicted": predicted,
            "sure": float(probabilities[predicted]) >= threshold,
        }

    def _find_face(self, visitor: str, pixels: np.ndarray, size: int) -> tuple[list[list[float]], bytes | None]:
        """Returns the boxes of all faces, and the aligned crop of the one that is followed as a JPEG."""
        with self._lock:  # a detector has state: the size of its picture
            self._detect = self._detect or self._load()
            faces = self._visitors.setdefault(visitor, FollowedFaces()).update(self._detect(pixels))
            self._visitors.move_to_end(visitor)
            while len(self._visitors) > MAX_VISITORS:
                self._visitors.popitem(last=False)
        faces.sort(key=lambda row: not row[1])
        scale = np.array([*pixels.shape[1::-1]] * 2, float)
        boxes = [[round(float(x), 4) for x in face.box / scale] for face, _ in faces]
        if not faces or not faces[0][1]:
            return boxes, None
        return boxes, encode_square(align(pixels, faces[0][0].landmarks, CROP_SIZE), size)


def _decode(frame: str) -> np.ndarray:
    try:
        data = base64.b64decode(frame, validate=True)
        width, height = pictures.jpeg_size(data) or (0, 0)
        if not 0 < width * height <= MAX_FRAME_PIXELS:
            raise ValueError
        return pictures.decode(data)
    except (binascii.Error, ValueError):
        raise UserError("The frame of the camera cannot be decoded.") from None
