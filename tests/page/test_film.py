"""A film on the page, without a browser."""

from __future__ import annotations

import io
import itertools
import types

import pandas as pd
import pytest
import synthetic_faces
from stub_predictor import Certain

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration
from emotion_tf.evaluation.selective import Threshold
from emotion_tf.page import film
from emotion_tf.page.html import MOST_TICKS, _clock, _ticks, film_html

SRT = "1\n00:00:00,000 --> 00:00:00,700\nYou did it!\n\n2\n00:00:00,800 --> 00:00:01,400\nNo.\n"


def answer(tmp_path, precision=0.9):
    clip = synthetic_faces.write_speaker(tmp_path / "clip.mp4")
    (tmp_path / "film.srt").write_text(SRT, encoding="utf-8")
    runs = types.SimpleNamespace(call=lambda function, *args: function(*args))
    run = types.SimpleNamespace(
        name="run",
        predictor=Certain(),
        calibration=Calibration(thresholds=(Threshold(0.7, 0.5, 0.5, 0.7),), utterances=200),
    )
    without_progress = lambda items, total: items  # noqa: E731
    return film.answer_film(
        runs, run, clip, tmp_path / "film.srt", precision, CropConfig(), synthetic_faces.load_detector, without_progress
    )


def test_a_threshold_out_of_reach_is_so_for_certainty_too(tmp_path):
    film_answer = answer(tmp_path)
    assert film_answer.prediction.probabilities.max() == 1.0 and film_answer.prediction.with_face == 2
    assert pd.read_csv(io.BytesIO(film_answer.csv)).predicted.tolist() == ["abstained"] * 2
    assert "Not sure" in film_html(film_answer) and "90 % cannot be promised" in film_html(film_answer)


def test_a_film_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "MAX_FILM_SECONDS", 0.0)
    with pytest.raises(UserError, match="^Finding the faces of this film takes longer than 0 minutes"):
        answer(tmp_path)


def test_a_large_file_of_subtitles_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large.srt"
    with path.open("wb") as file:
        file.truncate(3 * 2**20)
    monkeypatch.setattr(film.film, "read_subtitles", None)
    with pytest.raises(UserError, match=r"^large.srt has 3.0 MB. Subtitles of at most 2 MB"):
        film.read_subtitles(path)


def test_too_many_subtitles_and_none(tmp_path):
    (tmp_path / "many.srt").write_text(SRT * 251, encoding="utf-8")
    with pytest.raises(UserError, match="^many.srt has 502 subtitles. At most 500"):
        film.read_subtitles(tmp_path / "many.srt")
    with pytest.raises(UserError, match="^Cannot read the subtitles gone.srt"):
        film.read_subtitles(tmp_path / "gone.srt")


def test_the_timeline_has_a_scale_a_legend_and_a_dot_at_what_is_predicted(tmp_path):
    page = film_html(answer(tmp_path, 0.0))
    assert '<span style="left: 71.4286%">0:01</span>' in page and page.count('class="tick"') == 2  # of 1.4 seconds
    assert "probability 0 %" in page and page.count('%"><b></b></i>') == 2
    assert film_html(answer(tmp_path)).count('%"><b></b></i>') == 0  # of 90 %, which is not reached
    assert "<b>joy</b>: joy 100.00 %, fear 0.00 %<" in page


@pytest.mark.parametrize("end", [0.4, 1.4, 5.9, 61.0, 7_000.0, 100_000.0])
def test_a_scale_has_few_round_ticks_within_the_film(end):
    ticks = _ticks(end)
    assert ticks[0] == 0 and len(ticks) <= MOST_TICKS + 1 and ticks[-1] < end
    assert len({b - a for a, b in itertools.pairwise(ticks)}) <= 1


@pytest.mark.parametrize(
    "seconds, expected",
    [(0.0, "0:00.0"), (59.94, "0:59.9"), (59.97, "1:00.0"), (119.96, "2:00.0"), (3600.5, "60:00.5")],
)
def test_the_clock_is_rounded_before_it_is_split(seconds, expected):
    assert _clock(seconds) == expected
