"""Clips in processes of their own, which a clip that hangs or crashes the decoder cannot stop."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
from pebble import ProcessExpired, ProcessPool

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.candidates import Candidates, in_clip
from emotion_tf.faces.crops import FaceCrops, crop_clip
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import Piece
from emotion_tf.processes import Spawn

AHEAD = 16  # clips in work or waiting for each process: a long one keeps no other waiting, and memory stays flat


@dataclass(frozen=True)
class Clip:
    """The film of one utterance: its pieces and, for the policy `boxes`, the given boxes by frame number."""

    pieces: tuple[Piece, ...]
    boxes: Mapping[int, Sequence[float]] | None = None


def crop_all(
    clips: Iterable[Clip | FaceCrops], config: CropConfig, load: Callable[[], Detector], size: int, processes: int
) -> Iterator[FaceCrops]:
    """`crop_clip` of each clip, in the order given; the same result with any number of processes.

    A clip that cannot be decoded, takes longer than `config.seconds`, or takes its process with it, gives a `FaceCrops`
    without crops whose `problem` says why. What is already a `FaceCrops` is passed on.

    Args:
        clips: the clips; read as far ahead as the processes need.
        config: sampling, policy, time limit.
        load: makes a detector; must be picklable, for each process calls it once.
        size: side of a crop in pixels.
        processes: how many; each has its own detector and one thread.

    Raises:
        UserError: the detector cannot be loaded.
    """
    load()  # its fault is told once, before any process starts
    pool = ProcessPool(processes, initializer=_start, initargs=(load,), context=Spawn())
    try:
        waiting: deque[Future[FaceCrops] | FaceCrops] = deque()
        for clip in clips:
            if isinstance(clip, Clip):
                waiting.append(pool.schedule(_crop, (clip, config, size), timeout=config.seconds))
            else:
                waiting.append(clip)
            if len(waiting) >= AHEAD * processes:
                yield _result(waiting.popleft(), config)
        while waiting:
            yield _result(waiting.popleft(), config)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


class CandidatesProcess:
    """One process, kept for many clips one after the other, that finds all faces of each.

    Args:
        load: makes a detector; must be picklable.
    """

    def __init__(self, load: Callable[[], Detector]) -> None:
        self._load = load
        self._begin()

    def _begin(self) -> None:
        self._pool = ProcessPool(1, initializer=_start, initargs=(self._load,), context=Spawn())

    def find(self, path: Path, config: CropConfig, size: int) -> Candidates:
        """The faces of a clip; without any, why. A clip that takes longer than `config.seconds` is given up."""
        if not self._pool.active:  # it died with nothing to do: such as when memory was short
            self.close()
            self._begin()
        try:
            return self._pool.schedule(_candidates, (path, config, size), timeout=config.seconds).result()
        except (TimeoutError, ProcessExpired, BrokenProcessPool) as failure:
            problem, detail = _failure(failure, config)
            return Candidates(problem=problem, detail=detail)

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self._pool.stop()
        self._pool.join()


def _failure(failure: TimeoutError | ProcessExpired | BrokenProcessPool, config: CropConfig) -> tuple[str, str]:
    if isinstance(failure, TimeoutError):
        return "time limit", f"given up after {config.seconds:g} s"
    return "decoder crashed", f"exit code {failure.exitcode}" if isinstance(failure, ProcessExpired) else str(failure)


def _result(done: Future[FaceCrops] | FaceCrops, config: CropConfig) -> FaceCrops:
    if isinstance(done, FaceCrops):
        return done
    try:
        return done.result()
    except (TimeoutError, ProcessExpired) as failure:
        problem, detail = _failure(failure, config)
        return FaceCrops(problem=problem, detail=detail)


_detector: Detector | None = None


def _start(load: Callable[[], Detector]) -> None:
    """Once in each process."""
    global _detector
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's business
    cv2.setNumThreads(1)
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    _detector = load()


def _crop(clip: Clip, config: CropConfig, size: int) -> FaceCrops:
    if _detector is None:
        raise RuntimeError("_start has not run in this process")
    policy = config.policy
    if policy == "boxes" and not clip.boxes:
        # nobody marked who speaks here: the next best that can be told from the film
        policy = "speaking"
    try:
        return crop_clip(clip.pieces, _detector, replace(config, policy=policy), size, clip.boxes)
    except UserError as error:
        return FaceCrops(problem="cannot be decoded", detail=" ".join(str(error).split()))


def _candidates(path: Path, config: CropConfig, size: int) -> Candidates:
    if _detector is None:
        raise RuntimeError("_start has not run in this process")
    try:
        return in_clip(path, _detector, config, size)
    except UserError as error:
        return Candidates(problem="cannot be decoded", detail=" ".join(str(error).split()))
