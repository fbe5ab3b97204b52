"""The runs of the page, loaded on first use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np

from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import Calibration, read_calibration
from emotion_tf.folders import ENSEMBLE
from emotion_tf.interpret.batch import CONTEXT, FIELDS, Scorer
from emotion_tf.runs.ensemble import open_run
from emotion_tf.runs.facts import ModelFacts, read_facts
from emotion_tf.runs.run import Run
from emotion_tf.serving.client import Client
from emotion_tf.serving.predict import RunPredictor
from emotion_tf.serving.predictor import Predictor

P = ParamSpec("P")
R = TypeVar("R")
MOST_LOADED = 3


def finished_runs(folder: Path) -> list[str]:
    """Returns the names of the trained runs and ensembles in a folder, the newest first."""
    paths = [path for name in ("model.keras", ENSEMBLE) for path in folder.glob(f"[!.]*/{name}")]
    return [path.parent.name for path in sorted(paths, key=lambda path: -path.stat().st_mtime)]


@dataclass(frozen=True)
class OpenRun:
    """A loaded run or ensemble.

    Attributes:
        name: name of its folder.
        predictor: predicts probabilities.
        reads: which of text, face and context it reads.
        scorer: explains predictions; None if they cannot be explained.
        unexplained: sentence that says why not.
        calibration: its temperatures and thresholds.
    """

    name: str
    predictor: Predictor
    reads: tuple[str, ...]
    scorer: Scorer | None
    unexplained: str
    calibration: Calibration


def open_local(path: Path) -> OpenRun:
    """Loads a run or an ensemble. Raises UserError if it cannot be loaded."""
    run = open_run(path)
    predictor = RunPredictor(run)
    if isinstance(run, Run):
        scorer = Scorer(run)
        return OpenRun(path.name, predictor, scorer.modalities, scorer, "", run.calibration)
    modalities = {name for member in run.members for name in Scorer(member).modalities}
    reads = tuple(name for name in FIELDS if name in modalities)
    unexplained = "Predictions of an ensemble are not explained; those of its members are."
    return OpenRun(path.name, predictor, reads, None, unexplained, Calibration())


def open_served(path: Path, connect: Callable[[ModelFacts], Client]) -> OpenRun:
    """Opens a run whose predictions come from TensorFlow Serving; see `serving.client.Client`.

    Args:
        path: the run, or an export of it, which has the labels.
        connect: makes the client, from the facts of the run.

    Raises:
        UserError: no such run, or no server answers for it.
    """
    facts = read_facts(path)
    client = connect(facts)
    # an export does not list its towers: a prediction from both inputs shows which of them it reads
    prediction = client.predict(["Hello!"], [np.zeros((facts.face_size, facts.face_size, 3), np.uint8)])
    is_read = {**{name: mask[0] for name, mask in prediction.present.items()}, CONTEXT: facts.context > 0}
    reads = tuple(name for name, value in is_read.items() if value)
    unexplained = f"Predicted by {client.address}. The page explains only runs that it loads itself."
    return OpenRun(path.name, client, reads, None, unexplained, read_calibration(path))


class Runs:
    """The runs of a folder. At most three are loaded at a time.

    Args:
        folder: folder of the runs.
        names: names of the runs that may be opened.
        load: opens a run.

    Attributes:
        names: names of the runs, the newest first.
    """

    def __init__(self, folder: Path, names: list[str], load: Callable[[Path], OpenRun] = open_local) -> None:
        self._folder, self.names, self._load = folder, names, load
        self._loaded: OrderedDict[str, OpenRun] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "models")

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a function that uses a model, after those that came before, and returns its result.

        All of them are called in one thread. An explanation replaces layers' calls while it runs, and oneDNN keeps
        what it has prepared for each shape once more in each thread.
        """
        return self._thread.submit(function, *args, **kwargs).result()

    def open(self, name: str) -> OpenRun:
        """Opens a run by its name. Waits for other calls only if the run must be loaded.

        Raises:
            UserError: no such run, or it cannot be loaded.
        """
        if name not in self.names:
            raise UserError(f"There is no run {name!r}. Choose one from the list.")
        return self._find(name) or self.call(self._open, name)

    def _find(self, name: str) -> OpenRun | None:
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _open(self, name: str) -> OpenRun:
        run = self._find(name)
        if run is None:  # nobody has loaded it meanwhile
            run = self._load(self._folder / name)
            with self._lock:
                self._loaded[name] = run
                while len(self._loaded) > MOST_LOADED:
                    self._loaded.popitem(last=False)
        return run
