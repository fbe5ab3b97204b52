"""A film with subtitles on the page: its timeline of emotions, with the utterance and the face of each moment."""

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
from emotion_tf.page.inputs import SECONDS
from emotion_tf.page.runs import OpenRun, Runs
from emotion_tf.program import program
from emotion_tf.serving import film
from emotion_tf.serving.film import FilmPrediction

MOST_SUBTITLES = 500
MOST_BYTES = 2 * 2**20
"""Of a file of subtitles, at most: it is read as a whole before its subtitles are counted."""
LONGEST = 600.0
"""Seconds for the faces of a film, at most."""


@dataclass(frozen=True)
class FilmAnswer:
    """A film as it is shown.

    Attributes:
        run: name of the run.
        film: name of the file.
        prediction: of each subtitle.
        threshold: least probability of a class that is said to be sure.
        csv: the table that `predict-film` writes.
        png: its timeline.
    """

    run: str
    film: str
    prediction: FilmPrediction
    threshold: float
    csv: bytes
    png: bytes


def read_lines(path: Path) -> list[film.Line]:
    """The subtitles of a file.

    Raises:
        UserError: none can be read, or too many.
    """
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(
            f"{path.name} has {path.stat().st_size / 2**20:.1f} MB. At most {MOST_BYTES // 2**20} MB of subtitles are "
            "taken here."
        )
    try:
        lines = film.read_subtitles(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None
    if len(lines) > MOST_SUBTITLES:
        raise UserError(
            f"{path.name} has {len(lines):,} subtitles. At most {MOST_SUBTITLES} are taken here; "
            f"`{program()} predict-film` takes any number."
        )
    return lines


def within(items: Iterable[Any], seconds: float) -> Iterator[Any]:
    """The items, while there is time.

    Raises:
        UserError: there is no more.
    """
    end = time.monotonic() + seconds
    for item in items:
        if time.monotonic() > end:
            raise UserError(
                f"This film takes longer than {seconds / 60:g} minutes, so it was given up. Give a shorter part of it; "
                f"`{program()} predict-film` takes any length."
            )
        yield item


def answer_film(
    runs: Runs,
    run: OpenRun,
    clip: Path,
    subtitles: Path,
    wanted: float,
    config: CropConfig,
    load: Callable[[], Detector],
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> FilmAnswer:
    """Asks a run for each subtitle of a film.

    Raises:
        UserError: the film or the subtitles cannot be read, there are too many, or it takes too long.
    """
    lines = read_lines(subtitles)
    config = replace(config, seconds=min(config.seconds, SECONDS))
    size = run.predictor.about.face_size
    found_faces = within(crop_all(film.clips_of(clip, lines), config, load, size, 1), LONGEST)
    crops = list(progress(found_faces, len(lines)))
    try:
        with runs.lock:  # only now: others get their answers while faces are looked for
            found = film.predict_film(run.predictor, lines, crops)
    except UserError as error:
        raise UserError(str(error).replace(str(clip), clip.name)) from None
    threshold, _ = threshold_for(run.calibration.thresholds, wanted)
    with tempfile.TemporaryDirectory() as folder:
        found.write(Path(folder), clip.name, threshold)
        table, timeline = (Path(folder, name).read_bytes() for name in (film.TABLE, film.TIMELINE))
        return FilmAnswer(run.name, clip.name, found, threshold, table, timeline)
