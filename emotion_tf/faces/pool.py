"""Face crops of many clips in a pool of processes, which survives clips that hang or crash the decoder."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from pebble import ProcessExpired, ProcessPool

from emotion_tf.cluster import TRIES, connect
from emotion_tf.config import CropConfig
from emotion_tf.errors import UserError
from emotion_tf.faces.candidates import Candidates, find_in_clip
from emotion_tf.faces.crops import OUTSIDE, UNDECODABLE, FaceCrops, crop_clip
from emotion_tf.faces.detect import Detector
from emotion_tf.faces.frames import OutsideClip, Segment, frame_at
from emotion_tf.processes import Spawn, end_with_parent, limit_memory

R = TypeVar("R", FaceCrops, Candidates)
AHEAD = 16  # clips queued for each process: enough that a long clip does not block the others, in bounded memory
CRASHED = "decoder crashed"
MEMORY = 2 * 1024**3  # bytes for one clip: a stream may have larger frames than its container declares


@dataclass(frozen=True)
class Clip:
    """The video of one utterance: its segments and, for the policy `boxes`, the speaker's boxes by frame number."""

    segments: tuple[Segment, ...]
    boxes: Mapping[int, Sequence[float]] | None = None


def crop_all(
    clips: Iterable[Clip | FaceCrops], config: CropConfig, load: Callable[[], Detector], size: int, processes: int
) -> Generator[FaceCrops]:
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
    own = _OwnProcess()
    threads = ThreadPoolExecutor(processes)
    started: list[ClipProcess] = []

    def crop(clip: Clip) -> FaceCrops:
        if own.process is None:
            own.process = ClipProcess(load)
            started.append(own.process)
        return own.process.crop(clip, config, size)

    pending: deque[Future[FaceCrops] | FaceCrops] = deque()
    try:
        for clip in clips:
            pending.append(threads.submit(crop, clip) if isinstance(clip, Clip) else clip)
            if len(pending) >= AHEAD * processes:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in started:
            process.close()
        threads.shutdown()


def crop_all_on(
    scheduler: str, clips: Iterable[Clip | FaceCrops], config: CropConfig, load: Callable[[], Detector], size: int
) -> Generator[FaceCrops]:
    """`crop_all` on the workers of a cluster of Dask, with the same results.

    A clip whose worker ends is tried again. One that ends `TRIES` workers is given up with a `problem`.

    Args:
        scheduler: address of the scheduler.
        clips, config, load, size: as for `crop_all`. The workers have the same files at the same paths.

    Raises:
        UserError: as `crop_all` does, and as `cluster.connect` and `Cluster.map` do; or a worker lacks a clip.
    """
    load()
    folder, lost = Path.cwd(), FaceCrops(problem="worker ended", detail=f"{TRIES} workers ended in this clip")
    items = ((clip, config, size, load, folder) if isinstance(clip, Clip) else clip for clip in clips)
    with connect(scheduler) as cluster:
        yield from cluster.map(_crop_on_worker, items, lost)


class ClipProcess:
    """A process that opens one clip after another. Another one takes its place if a clip hangs or ends it.

    It has one clip at a time. When a process ends, Pebble may not have read yet which of several it was in, and would
    blame the one before.

    Args:
        load: makes a detector; must be picklable.
        folder: the working directory of the process; None: that of this one.
    """

    def __init__(self, load: Callable[[], Detector], folder: Path | None = None) -> None:
        self._arguments = load, folder
        self._task: Future[Any] | None = None
        self._begin()

    def _begin(self) -> None:
        self._pool = ProcessPool(1, initializer=_start, initargs=self._arguments, context=Spawn())

    def crop(self, clip: Clip, config: CropConfig, size: int) -> FaceCrops:
        """Returns the `crop_clip` of a clip, or the problem. Gives up after `config.seconds`."""
        return self._run(_crop, (clip, config, size), config, FaceCrops)

    def find(self, path: Path, config: CropConfig, size: int) -> Candidates:
        """Returns the faces of a clip, or the problem. Gives up after `config.seconds`."""
        return self._run(_candidates, (path, config, size), config, Candidates)

    def _run(self, function: Callable[..., R], arguments: Sequence[Any], config: CropConfig, failed: type[R]) -> R:
        tries = 3
        while True:
            if not self._pool.active:  # it died while idle, for example for lack of memory
                self.close()
                self._begin()
            try:
                self._task = self._pool.schedule(function, arguments, timeout=config.seconds)
                return self._task.result()
            except TimeoutError:
                return failed(problem="time limit", detail=f"given up after {config.seconds:g} s")
            except ProcessExpired as failure:
                return failed(problem=CRASHED, detail=f"exit code {failure.exitcode}")
            except BrokenProcessPool as failure:  # it ended before Pebble read that it had begun
                tries -= 1
                if not tries:
                    return failed(problem=CRASHED, detail=str(failure))

    def close(self) -> None:
        """Ends the process, even if it is busy: a thread that waits for it has a CancelledError then."""
        if self._task:
            self._task.cancel()
        self._pool.stop()
        self._pool.join()


class _OwnProcess(threading.local):
    """The process of a thread, and what it was started with."""

    process: ClipProcess | None = None
    key: tuple[bytes, Path] | None = None


_own = _OwnProcess()


def _crop_on_worker(clip: Clip, config: CropConfig, size: int, load: Callable[[], Detector], folder: Path) -> FaceCrops:
    """Returns `crop_clip` of a clip on a worker of Dask, where a clip may end a process of its own, too."""
    for segment in clip.segments:
        if not (folder / segment.path).is_file():
            raise UserError(
                f"The worker on {socket.gethostname()} has no file {folder / segment.path}. Expected the clips on "
                "storage that all workers have, at the same path."
            )
    key = pickle.dumps(load), folder
    if _own.key != key:
        load()  # raises once, before the process starts
        if _own.process:
            _own.process.close()
        multiprocessing.current_process().daemon = False  # Dask's nanny starts workers that may start no process
        _own.process, _own.key = ClipProcess(load, folder), key
    if _own.process is None:
        raise RuntimeError("a thread without a process")
    return _own.process.crop(clip, config, size)


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


def _result(task: Future[FaceCrops] | FaceCrops) -> FaceCrops:
    return task if isinstance(task, FaceCrops) else task.result()


_detector: Detector | None = None


def _start(load: Callable[[], Detector] | None, folder: Path | None = None) -> None:
    """Initialises a process of the pool, with a detector if it needs one, in a folder if it is another one."""
    global _detector
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    end_with_parent()
    cv2.setNumThreads(1)
    if folder and folder.is_dir():
        os.chdir(folder)  # paths, and the messages about them, are relative as on the machine that asks
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
