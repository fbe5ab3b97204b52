"""Face crops of many clips in a pool of processes, which survives clips that hang or crash the decoder."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from pebble import ProcessExpired, ProcessPool

from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.candidates import Candidates, find_in_clip
from emotion_tf.faces.crops import OUTSIDE, UNDECODABLE, FaceCrops, crop_clip
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import OutsideClip, Segment, frame_at
from emotion_tf.processes import Spawn, end_with_parent, limit_memory

AHEAD = 16  # clips queued for each process: enough that a long clip does not block the others, in bounded memory
MEMORY = 2 * 1024**3  # bytes for one clip: a stream may have larger frames than its container declares


@dataclass(frozen=True)
class Clip:
    """The video of one utterance: its segments and, for the policy `boxes`, the speaker's boxes by frame number."""

    segments: tuple[Segment, ...]
    boxes: Mapping[int, Sequence[float]] | None = None


def crop_all(
    clips: Iterable[Clip | FaceCrops], config: CropConfig, load: Callable[[], Detector], size: int, processes: int
) -> Iterator[FaceCrops]:
    """Yields the `crop_clip` of each clip, in order. The result does not depend on the number of processes.

    A clip that cannot be decoded, exceeds `config.seconds` or crashes its process gives a `FaceCrops` without crops and
    with a `problem`. An element that is a `FaceCrops` already is yielded as it is.

    Args:
        clips: the clips; consumed only as far ahead as the processes need.
        config: sampling, policy, time limit.
        load: makes a detector; must be picklable, because each process calls it once.
        size: side of a crop in pixels.
        processes: number of processes; each has its own detector and one thread.

    Raises:
        UserError: the detector cannot be loaded.
    """
    load()  # raises once, before any process starts
    pool = ProcessPool(processes, initializer=_start, initargs=(load,), context=Spawn())
    try:
        pending: deque[Future[FaceCrops] | FaceCrops] = deque()
        for clip in clips:
            if isinstance(clip, Clip):
                pending.append(pool.schedule(_crop, (clip, config, size), timeout=config.seconds))
            else:
                pending.append(clip)
            if len(pending) >= AHEAD * processes:
                yield _result(pending.popleft(), config)
        while pending:
            yield _result(pending.popleft(), config)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


class CandidatesProcess:
    """A process that finds all faces of one clip after another.

    Args:
        load: makes a detector; must be picklable.
    """

    def __init__(self, load: Callable[[], Detector]) -> None:
        self._load = load
        self._begin()

    def _begin(self) -> None:
        self._pool = ProcessPool(1, initializer=_start, initargs=(self._load,), context=Spawn())

    def find(self, path: Path, config: CropConfig, size: int) -> Candidates:
        """Returns the faces of a clip, or the problem. Gives up after `config.seconds`."""
        if not self._pool.active:  # it died while idle, for example for lack of memory
            self.close()
            self._begin()
        try:
            return self._pool.schedule(_candidates, (path, config, size), timeout=config.seconds).result()
        except (TimeoutError, ProcessExpired, BrokenProcessPool) as failure:
            problem, detail = _failure(failure, config)
            return Candidates(problem=problem, detail=detail)

    def close(self) -> None:
        """Ends the process, even if it is busy."""
        self._pool.stop()
        self._pool.join()


def frames_at(places: Iterable[tuple[Sequence[Segment], float]], seconds: float) -> Iterator[np.ndarray | None]:
    """Yields the `frame_at` of each (segments, time) from another process; None also after `seconds` or a crash."""
    pool = ProcessPool(1, initializer=_start, initargs=(None,), context=Spawn())
    try:
        for place in places:
            try:
                pixels = pool.schedule(_frame_at, place, timeout=seconds).result()
            except (TimeoutError, ProcessExpired):
                pixels = None
            yield pixels
    finally:
        pool.stop()
        pool.join()


def _failure(failure: TimeoutError | ProcessExpired | BrokenProcessPool, config: CropConfig) -> tuple[str, str]:
    if isinstance(failure, TimeoutError):
        return "time limit", f"given up after {config.seconds:g} s"
    return "decoder crashed", f"exit code {failure.exitcode}" if isinstance(failure, ProcessExpired) else str(failure)


def _result(task: Future[FaceCrops] | FaceCrops, config: CropConfig) -> FaceCrops:
    if isinstance(task, FaceCrops):
        return task
    try:
        return task.result()
    except (TimeoutError, ProcessExpired) as failure:
        problem, detail = _failure(failure, config)
        return FaceCrops(problem=problem, detail=detail)


_detector: Detector | None = None


def _start(load: Callable[[], Detector] | None) -> None:
    """Initialises a process of the pool, with a detector if it needs one."""
    global _detector
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    end_with_parent()
    cv2.setNumThreads(1)
    _detector = load() if load else None
    limit_memory(MEMORY)


def _crop(clip: Clip, config: CropConfig, size: int) -> FaceCrops:
    if _detector is None:
        raise RuntimeError("_start has not run in this process")
    policy = config.policy
    if policy == "boxes" and not clip.boxes:
        # this utterance has no boxes: fall back to mouth motion
        policy = "speaking"
    try:
        return crop_clip(clip.segments, _detector, replace(config, policy=policy), size, clip.boxes)
    except (UserError, MemoryError, cv2.error) as error:
        problem = OUTSIDE if isinstance(error, OutsideClip) else UNDECODABLE
        return FaceCrops(problem=problem, detail=_detail(error, clip.segments[0].path))


def _candidates(path: Path, config: CropConfig, size: int) -> Candidates:
    if _detector is None:
        raise RuntimeError("_start has not run in this process")
    try:
        return find_in_clip(path, _detector, config, size)
    except (UserError, MemoryError, cv2.error) as error:
        return Candidates(problem=UNDECODABLE, detail=_detail(error, path))


def _frame_at(segments: Sequence[Segment], time: float) -> np.ndarray | None:
    try:
        return frame_at(segments, time)
    except (UserError, MemoryError, cv2.error):
        return None


def _detail(error: Exception, path: Path) -> str:
    if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
        raise error
    if not isinstance(error, UserError):
        error = UserError(f"Cannot decode the clip {path}: its frames take more than {MEMORY >> 30} GB of memory.")
    return " ".join(str(error).split())
