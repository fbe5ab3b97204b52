"""Predictions for a film with subtitles, as the page shows them: a timeline of emotions."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.pool import crop_all
from emotion_tf.page.answer import threshold_for
from emotion_tf.page.inputs import MAX_CLIP_SECONDS
from emotion_tf.page.runs import OpenRun, Runs
from emotion_tf.program import program
from emotion_tf.serving import film
from emotion_tf.serving.film import FilmPrediction

MAX_SUBTITLES = 500
MAX_SUBTITLE_BYTES = 2 * 2**20
"""Size of a subtitle file: it is read as a whole before its subtitles are counted."""
MAX_FILM_SECONDS = 600.0
"""Longest time to find the faces of a film."""


@dataclass(frozen=True)
class FilmAnswer:
    """Predictions for a film, as the page shows them.

    Attributes:
        run: name of the run.
        film: name of the file.
        prediction: predictions for its subtitles.
        threshold: least probability of a prediction; below it the page abstains.
        threshold_note: sentence about the threshold.
        csv: the table that `predict-film` writes.
        png: its timeline.
    """

    run: str
    film: str
    prediction: FilmPrediction
    threshold: float
    threshold_note: str
    csv: bytes
    png: bytes


def read_subtitles(path: Path) -> list[film.Subtitle]:
    """Reads the subtitles of a file.

    Raises:
        UserError: the file holds none, or it is too large.
    """
    if path.is_file() and path.stat().st_size > MAX_SUBTITLE_BYTES:
        raise UserError(
            f"{path.name} has {path.stat().st_size / 2**20:.1f} MB. Subtitles of at most {MAX_SUBTITLE_BYTES // 2**20} "
            "MB are allowed."
        )
    try:
        subtitles = film.read_subtitles(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None
    if len(subtitles) > MAX_SUBTITLES:
        raise UserError(
            f"{path.name} has {len(subtitles):,} subtitles. At most {MAX_SUBTITLES} are allowed; "
            f"`{program()} predict-film` takes any number."
        )
    return subtitles


def with_time_limit(items: Iterable[Any], seconds: float) -> Iterator[Any]:
    """Yields the items. Raises UserError when the time is over."""
    end = time.monotonic() + seconds
    for item in items:
        if time.monotonic() > end:
            raise UserError(
                f"Finding the faces of this film takes longer than {seconds / 60:g} minutes. Upload a shorter part; "
                f"`{program()} predict-film` takes any length."
            )
        yield item


def answer_film(
    runs: Runs,
    run: OpenRun,
    clip: Path,
    subtitles: Path,
    precision: float,
    config: CropConfig,
    load: Callable[[], Detector],
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> FilmAnswer:
    """Predicts each subtitle of a film.

    Args:
        runs: the runs of the page.
        run: the run.
        clip: video of the film.
        subtitles: its subtitles.
        precision: wanted precision; the page abstains below the threshold that promises it.
        config: how faces are found.
        load: returns a detector; must be picklable.
        progress: wraps the crops and their number, to show progress.

    Raises:
        UserError: the film or the subtitles cannot be read; there are too many subtitles; it takes too long.
    """
    rows = read_subtitles(subtitles)
    config = replace(config, seconds=min(config.seconds, MAX_CLIP_SECONDS))
    size = run.predictor.facts.face_size
    faces = with_time_limit(crop_all(film.clips_of_subtitles(clip, rows), config, load, size, 1), MAX_FILM_SECONDS)
    crops = list(progress(faces, len(rows)))
    try:
        # not before: others get predictions while faces are searched
        prediction = runs.call(film.predict_film, run.predictor, rows, crops)
    except UserError as error:
        raise UserError(str(error).replace(str(clip), clip.name)) from None
    threshold, note = threshold_for(run.calibration, precision)
    with tempfile.TemporaryDirectory() as folder:
        prediction.write(Path(folder), clip.name, threshold)
        table, timeline = (Path(folder, name).read_bytes() for name in (film.TABLE, film.TIMELINE))
        return FilmAnswer(run.name, clip.name, prediction, threshold, note, table, timeline)
