"""Inputs from photos, clips and films with subtitles. Faces are found by the code of `prepare`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2

from emotion_tf import files
from emotion_tf.config import CropConfig
from emotion_tf.data import context
from emotion_tf.errors import UserError
from emotion_tf.evaluation.report import write_predictions
from emotion_tf.faces import encode
from emotion_tf.faces.crops import OUTSIDE, UNDECODABLE, FaceCrops, crop_photo
from emotion_tf.faces.detect import load_detector
from emotion_tf.faces.frames import Segment
from emotion_tf.faces.pool import Clip, crop_all
from emotion_tf.kinds import Kind
from emotion_tf.serving.predictor import Predictor

TABLE, TIMELINE = "predictions.csv", "timeline.png"
KIND = Kind("folder of film predictions", (TABLE, TIMELINE), signature="face_problem")
MAX_SUBTITLE_BYTES = 16 << 20
FORMATS = ("srt", "vtt", "ass", "ssa")


@dataclass(frozen=True)
class Subtitle:
    """One subtitle of a film.

    Attributes:
        start: its start in seconds.
        end: its end in seconds.
        text: its text on one line.
    """

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
    if changes.get("policy") == "boxes":
        raise UserError(
            "Invalid `--faces.policy`. Expected a policy that needs no boxes of the speaker, which only `prepare meld` "
            "has. Received: boxes."
        )
    own = {name: value for name, value in prepared.items() if not (name == "policy" and value == "boxes")}
    return CropConfig(**{**own, **changes})


def crop_photos(paths: Sequence[Path], config: CropConfig, model: Path | None, size: int) -> list[bytes]:
    """Returns the aligned crop of the largest face in each photo, as JPEGs.

    Raises:
        UserError: a photo cannot be read or shows no face.
    """
    detect = load_detector(config.detector, model)
    jpegs = []
    for path in paths:
        crops = crop_photo(encode.read_pixels(path), detect, size)
        if not crops.jpegs:
            raise UserError(
                f"No face found in {path}. Expected a photo of a face, or --face-is-crop for an aligned face crop."
            )
        jpegs.append(crops.jpegs[0])
    return jpegs


def crop_clips(
    clips: Iterable[Clip], config: CropConfig, model: Path | None, size: int, processes: int
) -> Iterable[FaceCrops]:
    """Returns the crops of the active speaker in each clip, as `prepare clips` makes them."""
    return crop_all(clips, config, functools.partial(load_detector, config.detector, model), size, processes)


def read_subtitles(path: Path) -> list[Subtitle]:
    """Reads subtitles (SRT, WebVTT, ASS, SSA) in order of time.

    Raises:
        UserError: the file is not readable or holds no subtitles, or a subtitle ends before it starts.
    """
    data = files.read_regular(path, MAX_SUBTITLE_BYTES, "subtitles", "SRT, WebVTT or ASS of at most 16 MB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")  # the encoding of most old SRT files
    try:
        kind = pysubs2.formats.autodetect_format(text[:10_000])
        if kind not in FORMATS:  # pysubs2 reads other formats in part only, and fails in its own ways
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
        raise UserError(f"{path}: No subtitles: the file has none. Expected SRT, WebVTT or ASS.")
    subtitles = [Subtitle(event.start / 1000, event.end / 1000, " ".join(event.plaintext.split())) for event in events]
    if not any(subtitle.text for subtitle in subtitles):
        raise UserError(f"{path}: No subtitles: none of {len(subtitles)} has a text. Expected SRT, WebVTT or ASS.")
    return sorted(subtitles, key=lambda subtitle: subtitle.start)


@dataclass(frozen=True)
class FilmPrediction:
    """Predictions for the N subtitles of a film.

    Attributes:
        subtitles: the subtitles.
        faces: face crops of the active speaker during each subtitle.
        labels: C class names.
        predicted: int (N,), predicted classes.
        probabilities: float32 (N, C).
    """

    subtitles: tuple[Subtitle, ...]
    faces: tuple[FaceCrops, ...]
    labels: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray

    @property
    def outside(self) -> list[FaceCrops]:
        """The subtitles that lie outside the film."""
        return [crops for crops in self.faces if crops.problem == OUTSIDE]

    @property
    def with_face(self) -> int:
        """Number of subtitles with a face."""
        return sum(bool(crops.jpegs) for crops in self.faces)

    def write(self, folder: Path, title: str, abstain_below: float = 0.0) -> None:
        """Writes `predictions.csv` and `timeline.png` into a folder.

        The prediction is "abstained" where the predicted class has a probability below `abstain_below`.

        Raises:
            UserError: a file cannot be written.
        """
        rows = [
            {
                "start": round(subtitle.start, 3),
                "end": round(subtitle.end, 3),
                "utterance": subtitle.text,
                "faces": len(crops.jpegs),
                "face_policy": crops.policy,
                "face_score": crops.score,
                "face_margin": crops.margin if np.isfinite(crops.margin) else "",
                "face_problem": crops.problem,
            }
            for subtitle, crops in zip(self.subtitles, self.faces, strict=True)
        ]
        predictions = self.labels, self.predicted, self.probabilities
        write_predictions(folder / TABLE, rows, *predictions, abstain_below)
        spans = np.array([(subtitle.start, subtitle.end) for subtitle in self.subtitles])
        from emotion_tf.evaluation.timeline import plot_timeline  # Matplotlib, which a clip's faces do not need

        plot_timeline(folder / TIMELINE, spans, *predictions, title, abstain_below)


def predict_film(
    predictor: Predictor,
    subtitles: Sequence[Subtitle],
    crops: Iterable[FaceCrops],
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> FilmPrediction:
    """Predicts the emotion of each subtitle from its text and the crops of the active speaker.

    Args:
        predictor: the model.
        subtitles: N subtitles of the film, which is one dialogue.
        crops: face crops of each subtitle; found while they are read.
        progress: wraps the crops and their number, to show progress.

    Raises:
        UserError: no frame of the film can be read.
    """
    faces = list(progress(crops, len(subtitles)))
    without_frame = [crops for crops in faces if crops.problem in (UNDECODABLE, OUTSIDE)]
    if len(without_frame) == len(faces):
        raise UserError(without_frame[0].detail)
    texts = [subtitle.text for subtitle in subtitles]
    contexts = None
    if predictor.reads_context:
        contexts = context.previous_lines([("", "", text) for text in texts], predictor.context)
    prediction = predictor.predict(texts, [list(crops.jpegs) or None for crops in faces], contexts)
    return FilmPrediction(
        tuple(subtitles), tuple(faces), predictor.labels, prediction.predicted, prediction.probabilities
    )


def clips_of_subtitles(film: Path, subtitles: Sequence[Subtitle]) -> list[Clip]:
    """Returns the part of a film during each subtitle."""
    return [Clip((Segment(film, subtitle.start, subtitle.end),)) for subtitle in subtitles]
