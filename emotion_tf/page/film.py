"""A film with subtitles on the page: its timeline of emotions, with the utterance and the face of each moment."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
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
from emotion_tf.serving import film
from emotion_tf.serving.film import FilmPrediction

MOST_SUBTITLES = 500


@dataclass(frozen=True)
class FilmAnswer:
    """A film as it is shown.

    Attributes:
        run: name of the run.
        film: name of the file.
        prediction: of each subtitle.
        threshold: least probability of a class that is said to be sure.
        csv: the table that `predict --subtitles` writes.
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
    try:
        lines = film.read_subtitles(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from None
    if len(lines) > MOST_SUBTITLES:
        raise UserError(
            f"{path.name} has {len(lines):,} subtitles. At most {MOST_SUBTITLES} are taken here; "
            "`python main.py predict --subtitles` takes any number."
        )
    return lines


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
        UserError: the film or the subtitles cannot be read, or there are too many.
    """
    lines = read_lines(subtitles)
    config = replace(config, seconds=min(config.seconds, SECONDS))
    size = run.predictor.about.face_size
    crops = list(progress(crop_all(film.clips_of(clip, lines), config, load, size, 1), len(lines)))
    try:
        with runs.lock:  # only now: others get their answers while faces are looked for
            found = film.predict_film(run.predictor, lines, crops)
    except UserError as error:
        raise UserError(str(error).replace(str(clip), clip.name)) from None
    threshold, _ = threshold_for(run.choice.thresholds, wanted)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "film.csv"
        picture = found.write(out, clip.name, min(threshold, 1.0))
        return FilmAnswer(run.name, clip.name, found, threshold, out.read_bytes(), picture.read_bytes())
