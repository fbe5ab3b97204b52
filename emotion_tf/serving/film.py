"""`predict` from photos, clips and films with subtitles: faces are found by the code of `prepare`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2

from emotion_tf.config import CropConfig
from emotion_tf.data import context, images
from emotion_tf.errors import UserError
from emotion_tf.evaluation.report import write_predictions
from emotion_tf.evaluation.timeline import plot_timeline
from emotion_tf.faces.crops import FaceCrops, crop_photo
from emotion_tf.faces.detect import load_detector
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip, crop_all
from emotion_tf.serving.predict import Asked

TABLE, TIMELINE = "predictions.csv", "timeline.png"
FORMATS = ("srt", "vtt", "ass", "ssa")


@dataclass(frozen=True)
class Line:
    """One subtitle: seconds and text."""

    start: float
    end: float
    text: str


def crop_config(prepared: Mapping[str, Any], changes: Mapping[str, Any]) -> CropConfig:
    """Returns how faces are found: as in a data set, but for some options.

    Args:
        prepared: options of the data set, `DataSpec.crops`. Its policy "boxes" is left out: it needs boxes.
        changes: the options that differ.

    Raises:
        UserError: an option has an invalid value.
    """
    own = {name: value for name, value in prepared.items() if not (name == "policy" and value == "boxes")}
    return CropConfig(**{**own, **changes})


def crop_photos(paths: Sequence[Path], config: CropConfig, model: Path | None, size: int) -> list[bytes]:
    """The aligned crop of the largest face in each photo.

    Raises:
        UserError: a picture that cannot be read, or shows no face.
    """
    detect = load_detector(config.detector, model)
    found = [crop_photo(images.read_pixels(path), detect, size) for path in paths]
    for path, crops in zip(paths, found, strict=True):
        if not crops.jpegs:
            raise UserError(
                f"No face found in {path}. Expected a photo of a face; a picture that is an aligned face crop already "
                "needs --face-is-crop."
            )
    return [crops.jpegs[0] for crops in found]


def crop_clips(
    clips: Iterable[Clip], config: CropConfig, model: Path | None, size: int, processes: int
) -> Iterable[FaceCrops]:
    """The crops of the person who speaks, as `prepare clips` makes them."""
    return crop_all(clips, config, functools.partial(load_detector, config.detector, model), size, processes)


def read_subtitles(path: Path) -> list[Line]:
    """Subtitles (SRT, WebVTT, ASS, SSA), in order of time.

    Raises:
        UserError: not readable, no subtitles, or one that ends before it starts.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read the subtitles {path}: {error.strerror}. Expected an existing file.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # as most old SRT files are
    try:
        kind = pysubs2.formats.autodetect_format(text[:10_000])
        if kind not in FORMATS:  # what else pysubs2 reads, it reads in part, and fails in its own ways
            raise ValueError(f"the format {kind} is not read")
        events = [event for event in pysubs2.SSAFile.from_string(text, format_=kind) if not event.is_comment]
    except (pysubs2.exceptions.Pysubs2Error, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: No subtitles: {reason}. Expected SRT, WebVTT or ASS.") from None
    for n, event in enumerate(events, 1):
        if event.end <= event.start:
            raise UserError(
                f"{path}: Subtitle {n} ends before it starts. Expected start < end. Received: {event.start / 1000:g} "
                f"and {event.end / 1000:g} seconds, {event.plaintext[:40]!r}."
            )
    if not events:
        raise UserError(f"{path}: Not one subtitle. Expected SRT, WebVTT or ASS.")
    lines = [Line(event.start / 1000, event.end / 1000, " ".join(event.plaintext.split())) for event in events]
    return sorted(lines, key=lambda line: line.start)


@dataclass(frozen=True)
class FilmPrediction:
    """What a model says of a film with subtitles; all lists have one entry a subtitle.

    Attributes:
        lines: the subtitles.
        faces: the crops of the face that speaks.
        labels: C class names.
        probabilities: float32 (N, C).
    """

    lines: tuple[Line, ...]
    faces: tuple[FaceCrops, ...]
    labels: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def with_face(self) -> int:
        """How many utterances had a face."""
        return sum(bool(one.jpegs) for one in self.faces)

    def write(self, folder: Path, title: str, abstain_below: float = 0.0) -> None:
        """Writes `predictions.csv` and `timeline.png` into a folder.

        The prediction is "abstained" where no class has a probability of at least `abstain_below`.

        Raises:
            UserError: a file cannot be written.
        """
        rows = [
            {
                "start": round(line.start, 3),
                "end": round(line.end, 3),
                "utterance": line.text,
                "faces": len(one.jpegs),
                "face_policy": one.policy,
                "face_score": one.score,
                "face_margin": one.margin if np.isfinite(one.margin) else "",
                "face_problem": one.problem,
            }
            for line, one in zip(self.lines, self.faces, strict=True)
        ]
        write_predictions(folder / TABLE, rows, self.labels, self.probabilities, abstain_below)
        spans = np.array([(line.start, line.end) for line in self.lines])
        plot_timeline(folder / TIMELINE, spans, self.labels, self.probabilities, title, abstain_below)


def predict_film(
    predictor: Asked,
    lines: Sequence[Line],
    crops: Iterable[FaceCrops],
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> FilmPrediction:
    """Predicts each subtitle of a film from its text and the crops of who speaks.

    Raises:
        UserError: not one frame of the film could be read.
    """
    found = list(progress(crops, len(lines)))
    problems = [one for one in found if one.problem == "cannot be decoded"]
    if len(problems) == len(found):
        raise UserError(problems[0].detail)
    contexts = None
    if predictor.reads_context:  # the film is one dialogue
        contexts = context.previous_lines([("", "", line.text) for line in lines], predictor.context)
    faces = [list(one.jpegs) or None for one in found]
    prediction = predictor.predict([line.text for line in lines], faces, contexts)
    return FilmPrediction(tuple(lines), tuple(found), predictor.labels, prediction.probabilities)


def clips_of(film: Path, lines: Sequence[Line]) -> list[Clip]:
    """The part of a film that each subtitle stands for."""
    return [Clip((Segment(film, line.start, line.end),)) for line in lines]
