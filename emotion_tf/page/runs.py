"""The runs that the page offers, loaded when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration, read_calibration
from emotion_tf.folders import ENSEMBLE
from emotion_tf.interpret.batch import CONTEXT, FACE, TEXT, Scorer
from emotion_tf.runs.ensemble import open_run
from emotion_tf.runs.facts import read_facts
from emotion_tf.runs.run import Run
from emotion_tf.serving.predict import Asked, Predictor

MOST_LOADED = 3


def finished_runs(folder: Path) -> list[str]:
    """Names of the trained runs and ensembles in a folder, the newest first."""
    found = [path for name in ("model.keras", ENSEMBLE) for path in folder.glob(f"*/{name}")]
    return [path.parent.name for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


@dataclass(frozen=True)
class OpenRun:
    """A run that is ready to be asked.

    Attributes:
        name: of its folder.
        predictor: what says how probable each class is.
        reads: which of text, face and context matter to it.
        scorer: what explains it; None: nothing does, and `unexplained` says why.
        unexplained: a sentence.
        calibration: its temperatures and thresholds.
    """

    name: str
    predictor: Asked
    reads: tuple[str, ...]
    scorer: Scorer | None
    unexplained: str
    calibration: Calibration


def open_local(path: Path) -> OpenRun:
    """A run or an ensemble, loaded. Raises UserError when it cannot be."""
    run = open_run(path)
    predictor = Predictor(run)
    if isinstance(run, Run):
        scorer = Scorer(run)
        return OpenRun(path.name, predictor, scorer.modalities, scorer, "", run.calibration)
    of_members = {name for member in run.members for name in Scorer(member).modalities}
    reads = tuple(name for name in (TEXT, FACE, CONTEXT) if name in of_members)
    return OpenRun(
        path.name, predictor, reads, None, "What moves an ensemble is not explained: ask its members.", Calibration()
    )


def open_served(path: Path, address: str, model: str, timeout: float) -> OpenRun:
    """A run that TensorFlow Serving answers for; see `serving.client.Client`.

    Args:
        path: the run or an export of it, which tells the labels.
        address: HOST:PORT for gRPC, http://HOST:PORT for REST.
        model: what the server calls it; empty: as its run.
        timeout: seconds for an answer.

    Raises:
        UserError: no such run, or no server that answers for it.
    """
    from emotion_tf.serving.client import Client

    facts = read_facts(path)
    client = Client(address, facts, model, timeout)
    # an export does not say which towers it has; what it was given of both, it does
    tried = client.predict(["Hello!"], [np.zeros((facts.face_size, facts.face_size, 3), np.uint8)])
    does = {TEXT: tried.text_present[0], FACE: tried.face_present[0], CONTEXT: facts.context > 0}
    reads = tuple(name for name, it_does in does.items() if it_does)
    said = f"Answered by {address}; what moved it is shown where the run itself is asked."
    return OpenRun(path.name, client, reads, None, said, read_calibration(path))


class Runs:
    """The runs of a folder; at most three are loaded at a time. One thread at a time asks a model: see `lock`.

    Args:
        folder: of the runs.
        names: of those that may be asked.
        load: opens one of them.

    Attributes:
        names: of the runs, the newest first.
        lock: to be held by who asks a model, which an explanation takes apart for a while.
    """

    def __init__(self, folder: Path, names: list[str], load: Callable[[Path], OpenRun] = open_local) -> None:
        self._folder, self.names, self._load = folder, names, load
        self._loaded: OrderedDict[str, OpenRun] = OrderedDict()
        self.lock = threading.RLock()

    def open(self, name: str) -> OpenRun:
        """A run by its name.

        Raises:
            UserError: no such run, or one that cannot be loaded.
        """
        if name not in self.names:
            raise UserError(f"There is no run {name!r} here. Choose one of the list.")
        with self.lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(self._folder / name)
                while len(self._loaded) > MOST_LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]
