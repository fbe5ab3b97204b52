"""Frames and moments a second of `predict-film`: `python -m benchmarks.film RUN CLIP [--model YUNET] [--processes 2]`.

A moment is a subtitle of two seconds; CLIP has one after the other. The limit is a loop in one process that only
decodes every frame of the clip and detects faces in the sampled ones, times the number of processes. The model is
loaded before.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path

import cv2

from benchmarks import Measure, make_parser, run_benchmark, show_measures
from benchmarks.faces import CONFIG, seconds_of_loop
from emotion_tf.errors import UserError
from emotion_tf.faces.containers import open_clip
from emotion_tf.faces.detect import YUNET, load_detector
from emotion_tf.quiet import start_tensorflow

MOMENT = 2.0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    arguments = make_parser(__doc__)
    arguments.add_argument("run", type=Path)
    arguments.add_argument("clip", type=Path)
    arguments.add_argument("--model", type=Path, default=YUNET, help="YuNet's ONNX file")
    arguments.add_argument("--processes", type=int, default=2)
    return arguments


def main() -> None:
    """Measures both and prints the table."""
    arguments = parser().parse_args()
    if arguments.processes < 1:
        raise UserError(f"Expected `--processes` of at least 1. Received: {arguments.processes}.")
    start_tensorflow()
    from emotion_tf.runs.ensemble import open_run
    from emotion_tf.serving import film
    from emotion_tf.serving.predict import RunPredictor

    frames, rate = _count_frames(arguments.clip)
    starts = [i * MOMENT for i in range(max(1, int(frames / rate / MOMENT)))]
    subtitles = [film.Subtitle(start, start + MOMENT, "I am so happy that you came.") for start in starts]
    predictor = RunPredictor(open_run(arguments.run))
    predictor.predict([subtitles[0].text], [None])
    load = functools.partial(load_detector, "yunet", arguments.model)
    bare = seconds_of_loop([arguments.clip], load) / arguments.processes
    start = time.perf_counter()
    clips = film.clips_of_subtitles(arguments.clip, subtitles)
    size = predictor.facts.face_size
    film.predict_film(predictor, subtitles, film.crop_clips(clips, CONFIG, arguments.model, size, arguments.processes))
    seconds = time.perf_counter() - start
    measures = [
        Measure("frames a second", f"{frames / seconds:.0f}", f"{bare / seconds:.2f}"),
        Measure("moments a second", f"{len(subtitles) / seconds:.2f}"),
    ]
    show_measures(f"predict-film, {arguments.clip.name}, {frames} frames, {arguments.processes} processes", measures)


def _count_frames(path: Path) -> tuple[int, float]:
    capture, frames = open_clip(path), 0
    while capture.grab():
        frames += 1
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if not frames or not rate > 0:
        raise UserError(f"{path}: No frame can be read. Expected a film.")
    return frames, rate


if __name__ == "__main__":
    run_benchmark(main)
