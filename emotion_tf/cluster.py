"""A function on a cluster of Dask: in the order of its items, with tries that outlive workers."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import pickle
import platform
import queue
import re
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from emotion_tf import __version__
from emotion_tf.errors import UserError
from emotion_tf.progress import track
from emotion_tf.quiet import start_tensorflow
from emotion_tf.terminal import say

AHEAD = 16  # items that are read for each thread: enough that a long one does not block the others, in bounded memory
TRIES = 3
"""Workers that may end while they run an item, until it is given up."""
POLL = 0.5
"""Seconds between two looks at which workers there are."""
TIMEOUT = 20
"""Seconds after which a scheduler that does not answer is lost."""
EXTRA = "emotion_tf[cluster]"
END = object()
T = TypeVar("T")
_start = threading.Lock()  # of TensorFlow, in a worker of several threads


def check_scheduler(address: str) -> None:
    """Raises UserError for what cannot be the address of a scheduler, or if Dask is not installed."""
    match = re.fullmatch(r"(tcp|tls)://[^\s/:]+:(\d{1,5})|(tcp|tls)://\[[\da-fA-F:.]+\]:(\d{1,5})", address)
    port = int(match[2] or match[4]) if match else 0
    if not 0 < port < 2**16:
        raise UserError(
            f"Invalid `--scheduler`. Expected the address of Dask's scheduler, tcp://HOST:PORT. Received: {address!r}."
        )
    if importlib.util.find_spec("distributed") is None:
        raise UserError(f"--scheduler needs Dask, which is not installed. Install it with: pip install '{EXTRA}'")


@functools.cache
def versions() -> dict[str, str]:
    """Returns what has to be the same on all machines for the same bytes: library -> version."""
    import cv2
    import distributed
    import numpy

    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {"numpy": numpy.__version__, "opencv": cv2.__version__, "distributed": distributed.__version__}
    return {"Python": python, "emotion_tf": __version__, **libraries}


def _run(expected: dict[str, str], function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Runs an item on a worker, after a comparison of versions."""
    _check_versions(expected, versions())
    return function(*arguments)


def _check_versions(expected: dict[str, str], own: dict[str, str]) -> None:
    for name, version in own.items():
        if expected.get(name) != version:
            raise UserError(
                f"The worker on {socket.gethostname()} has {name} {version}. Expected that of this machine, "
                f"{expected.get(name)}: the result depends on it. Install the same on all workers."
            )


def compute(
    scheduler: str,
    function: Callable[..., T],
    parts: Iterable[tuple[Any, ...]],
    total: int,
    title: str,
    unit: str,
    done: int = 0,
) -> Iterator[T]:
    """Yields `function(*part)` of each part, in order, from the workers of a scheduler, and displays the progress.

    Args:
        scheduler: address of the scheduler.
        function: a function of a module that the workers can import. It may use TensorFlow.
        parts: its arguments; read only as far ahead as the workers need.
        total, title, done: as for `track`.
        unit: name of a part, such as "shard".

    Raises:
        UserError: as `connect` and `Cluster.map` do; `function` has raised one; a worker has another version of
            TensorFlow or Keras; a part has ended `TRIES` workers.
    """
    lost: Any = object()
    items = ((_model_versions(), pickle.dumps((function, part))) for part in parts)
    with connect(scheduler) as cluster:
        results = track(cluster.map(_compute, items, lost), total, title, f"{unit}s", done)
        for number, result in enumerate(results, done + 1):
            if result is lost:
                raise UserError(
                    f"{title}: {TRIES} workers ended in {unit} {number} of {total}, often for lack of memory. Look at "
                    "their logs."
                )
            yield result


def _compute(expected: dict[str, str], pickled: bytes) -> Any:
    """Runs a pickled function on a worker, which starts TensorFlow before the modules of the function import it."""
    _check_versions(expected, _model_versions())
    with _start:
        start_tensorflow()
        function, part = pickle.loads(pickled)
    try:
        return function(*part)
    except UserError as error:
        raise type(error)(f"The worker on {socket.gethostname()}: {error}") from None


@functools.cache
def _model_versions() -> dict[str, str]:
    return {
        name: next((of.version for of in importlib.metadata.distributions(name=name)), "none")
        for name in ("tensorflow", "keras")
    }


def once(function: Callable[..., T]) -> Callable[..., T]:
    """Decorates what opens a model on a worker: its threads share the last one, which the first of them opens."""
    cached, lock = functools.lru_cache(maxsize=1)(function), threading.Lock()

    @functools.wraps(function)
    def locked(*arguments: Any) -> T:
        with lock:
            return cached(*arguments)

    return locked


@dataclass(eq=False)
class Item:
    """An item that a worker runs.

    Attributes:
        number: place among all items.
        arguments: arguments of the function.
        deaths: workers that ended while they ran it.
        worker: address of the worker that runs it.
    """

    number: int
    arguments: tuple[Any, ...]
    deaths: int = 0
    worker: str = ""

    @property
    def runs_alone(self) -> bool:
        """Whether the last try is next, in which no other item on the worker may be to blame."""
        return self.deaths == TRIES - 1


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Yields the cluster of a scheduler.

    Raises:
        UserError: the address is invalid, Dask is not installed, or the scheduler does not answer.
    """
    check_scheduler(address)
    from distributed import Client

    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it says is raised, too
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other versions, which `versions` compares
        try:
            client = Client(address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # a TypeError: no certificates for tls://
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"No scheduler of Dask at {address}: {reason}. Start one with `dask scheduler`, and workers with `dask "
                "worker`."
            ) from None
    try:
        yield Cluster(client, address)
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that has ended
            client.close(timeout=TIMEOUT / 4)


class Cluster:
    """The workers of a scheduler.

    An item is given to one thread of one worker, not to Dask's queues: when a worker ends, only the items that it ran
    are to blame. They are tried again. After `TRIES` - 1 such ends an item runs alone on its worker, so that no item is
    given up for another's fault.

    Args:
        client: Dask's client.
        address: address of the scheduler, for messages.
    """

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._running: dict[Any, Item] = {}  # by their futures
        self._waiting: deque[Item] = deque()
        self._suspects: deque[Item] = deque()  # which run alone
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()  # futures, from a thread of Dask's
        self._workers: dict[str, int] = {}  # address -> number of threads
        self._next_look = 0.0
        self._has_said_so = False

    def map(self, function: Callable[..., Any], items: Iterable[Any], lost: Any) -> Iterator[Any]:
        """Yields `function(*item)` of each item, in order. An item that is no tuple is yielded as it is.

        Args:
            function: a function of a module that the workers can import.
            items: the items; consumed only as far ahead as the workers need.
            lost: stands for the result of an item that has ended `TRIES` workers.

        Raises:
            UserError: `function` has raised one; the scheduler is lost; a worker lacks this program, or has another
                version of it, of Python or of a library.
        """
        source, results, has_more = iter(items), dict[int, Any](), True
        number, count = 0, 0  # items that were yielded, and read
        try:
            while True:
                self._look()
                while has_more and count - number < AHEAD * max(1, sum(self._workers.values())):
                    item = next(source, END)
                    if item is END:
                        has_more = False
                    elif isinstance(item, tuple):
                        self._waiting.append(Item(count, item))
                    else:
                        results[count] = item
                    count += has_more
                for given_up in self._start(function):
                    results[given_up.number] = lost
                while number in results:
                    yield results.pop(number)
                    number += 1
                if number < count:
                    results |= self._collect()
                elif not has_more:
                    return
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel(list(self._running), force=True)
            self._running.clear()

    def _look(self) -> None:
        """Looks which workers there are, and takes the items of those that have ended back."""
        if time.monotonic() < self._next_look:
            return
        try:
            self._workers = self._client.nthreads()
        except OSError:  # as Dask's errors of connections are
            raise self._lost() from None
        self._next_look = time.monotonic() + POLL
        if not self._workers and not self._has_said_so:
            say(f"No worker at {self._address}: waiting for one", file=sys.stderr, flush=True)
        self._has_said_so = not self._workers
        for future, item in list(self._running.items()):
            if item.worker not in self._workers:
                self._take_back(future)

    def _take_back(self, future: Any) -> None:
        item = self._running.pop(future)
        future.cancel()
        item.deaths += 1
        (self._suspects if item.deaths >= TRIES - 1 else self._waiting).appendleft(item)

    def _start(self, function: Callable[..., Any]) -> list[Item]:
        """Starts as many items as there are free threads; returns the items that are given up."""
        given_up = [item for item in self._suspects if item.deaths >= TRIES]
        self._suspects = deque(item for item in self._suspects if item.deaths < TRIES)
        on: dict[str, list[Item]] = {address: [] for address in self._workers}
        for item in self._running.values():
            on.setdefault(item.worker, []).append(item)
        quietest = min(self._workers, key=lambda address: len(on[address]), default="")
        for address, threads in self._workers.items():
            if any(item.runs_alone for item in on[address]):
                continue
            if self._suspects and (address == quietest or not on[address]):  # which takes no other items until then
                if not on[address]:
                    self._submit(self._suspects.popleft(), address, function)
                continue
            for _ in range(min(threads - len(on[address]), len(self._waiting))):
                self._submit(self._waiting.popleft(), address, function)
        return given_up

    def _submit(self, item: Item, address: str, function: Callable[..., Any]) -> None:
        item.worker = address
        future = self._client.submit(
            _run, versions(), function, item.arguments, workers=[address], allow_other_workers=False, pure=False
        )
        self._running[future] = item
        future.add_done_callback(self._done.put)

    def _collect(self) -> dict[int, Any]:
        """Waits for results, at most until the next look; returns those that there are: number -> result."""
        import distributed

        results: dict[int, Any] = {}
        unanswered: list[Any] = []  # until after the next look: their workers may have ended with the results
        with contextlib.suppress(queue.Empty):
            future = self._done.get(timeout=max(0.0, self._next_look - time.monotonic()))
            while True:
                if future in self._running:
                    try:
                        results |= self._result(future)
                    except distributed.TimeoutError:
                        unanswered.append(future)
                future = self._done.get_nowait()
        for future in unanswered:
            self._done.put(future)
        return results

    def _result(self, future: Any) -> dict[int, Any]:
        import distributed

        try:
            result = future.result(timeout=2 * POLL)
        except distributed.KilledWorker:  # of workers with one address, which Dask started again before a look
            self._take_back(future)
            return {}
        except (distributed.CancelledError, distributed.comm.CommClosedError):  # the scheduler has ended
            raise self._lost() from None
        except (ModuleNotFoundError, AttributeError) as error:
            if "emotion_tf" not in str(error):
                raise
            raise UserError(
                f"A worker of {self._address} cannot run this program: {error}. Install emotion_tf {__version__} "
                f"there, {EXTRA}."
            ) from None
        return {self._running.pop(future).number: result}

    def _lost(self) -> UserError:
        return UserError(f"The scheduler at {self._address} does not answer any more. Start it and its workers again.")
