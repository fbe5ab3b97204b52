"""The runs that the page offers, loaded when they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from emotion_tf.errors import UserError
from emotion_tf.evaluation.choice import Choice
from emotion_tf.interpret.batch import CONTEXT, FACE, TEXT, Scorer
from emotion_tf.run_list import ENSEMBLE
from emotion_tf.serving.predict import Predictor
from emotion_tf.training.ensemble import open_folder
from emotion_tf.training.run_folder import RunFolder

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
        scorer: what explains it; None for an ensemble.
        choice: the thresholds that its validation split gave it.
    """

    name: str
    predictor: Predictor
    scorer: Scorer | None
    choice: Choice

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Which of text, face and context matter to it."""
        if self.scorer is not None:
            return self.scorer.modalities
        members = [Scorer(member).modalities for member in self.predictor.run.members]  # type: ignore[union-attr]
        return tuple(name for name in (TEXT, FACE, CONTEXT) if any(name in member for member in members))


class Runs:
    """The runs of a folder; at most three are loaded at a time. One thread at a time asks a model: see `lock`.

    Attributes:
        names: of the runs, the newest first.
        lock: to be held by who asks a model, which an explanation takes apart for a while.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder, self.names = folder, names
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
                self._loaded[name] = _load(self._folder / name)
                while len(self._loaded) > MOST_LOADED:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(name)
            return self._loaded[name]


def _load(path: Path) -> OpenRun:
    run = open_folder(path)
    predictor = Predictor(run)
    if isinstance(run, RunFolder):
        return OpenRun(path.name, predictor, Scorer(run), run.choice)
    return OpenRun(path.name, predictor, None, Choice())
