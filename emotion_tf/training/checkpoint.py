"""Checkpoints of a training run: its variables and its state, as NumPy files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
from pydantic import Field

from emotion_tf import documents, files
from emotion_tf.arrays import open_arrays
from emotion_tf.documents import Amount, Count, Finite
from emotion_tf.errors import UserError
from emotion_tf.folders import check_no_link

LAST = "last.npz"
REPAIR = "Train again with --overwrite."


@dataclasses.dataclass(frozen=True)
class State:
    """State of a training run.

    Attributes:
        epoch: number of finished epochs.
        best: weighted F1 on dev of the best epoch.
        best_epoch: the best epoch, from 0.
        seconds: duration of all finished epochs.
    """

    epoch: Count = 0
    best: Finite = -1.0
    best_epoch: Annotated[int, Field(ge=-1, le=10**9)] = -1
    seconds: Amount = 0.0

    def after_epoch(self, score: float, seconds: float) -> State:
        """Returns the state after another epoch with weighted F1 `score` on dev."""
        is_best = score > self.best
        return State(
            epoch=self.epoch + 1,
            best=score if is_best else self.best,
            best_epoch=self.epoch if is_best else self.best_epoch,
            seconds=self.seconds + seconds,
        )

    @property
    def epochs_since_best(self) -> int:
        """Number of finished epochs after the best one."""
        return self.epoch - 1 - self.best_epoch if self.epoch else 0


@dataclasses.dataclass(frozen=True)
class SavedState(State):
    """The document `about` in a checkpoint: the state, and the first epoch of the phase if it has a base."""

    base: Count | None = None


class Checkpoints:
    """The checkpoints of one training run.

    A phase that uses cached features of frozen networks changes only some variables. The others are saved once, when
    the phase begins, in the file of its base; `last.npz` and `best-EPOCH.npz` then hold the changed variables and refer
    to the base.

    Args:
        folder: folder of the files.
        variables: weights, seeds, auxiliary heads and averages, always in the same order.
        writes: whether this process writes. Of several hosts, one does; the others only read.
    """

    def __init__(self, folder: Path, variables: Sequence[Any], writes: bool = True) -> None:
        self.folder, self.variables, self.writes = folder, tuple(variables), writes
        check_no_link(folder)
        if writes:
            folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Whether a checkpoint exists."""
        return (self.folder / name).is_file()

    def save_base(self, first_epoch: int) -> None:
        """Writes all variables as the base of the phase that begins with `first_epoch`, unless the file exists."""
        if self.writes and not self.has(_base_name(first_epoch)):
            self._save(_base_name(first_epoch), {}, {}, None)

    def save(
        self,
        name: str,
        state: State,
        optimizer: keras.Optimizer | None = None,
        trained: Collection[int] | None = None,
        base: int | None = None,
    ) -> None:
        """Writes a checkpoint. Raises UserError if a weight is not finite.

        Args:
            name: name of the file.
            state: state of the training run.
            optimizer: optimizer whose variables are saved, too.
            trained: `id` of the variables that the phase changes; the others are in the base. None: all are saved.
            base: first epoch of the phase, if it has a base.
        """
        if not self.writes:
            return
        arrays = {f"optimizer/{i}": v.numpy() for i, v in enumerate(optimizer.variables)} if optimizer else {}
        self._save(name, arrays, {**dataclasses.asdict(state), "base": base}, trained)

    def delete_other_best(self, state: State) -> None:
        """Deletes the checkpoints of best epochs except that of `state`."""
        for path in self.folder.glob(best_name("*")) if self.writes else ():
            if path.name != best_name(state.best_epoch):
                path.unlink()

    def load(self, name: str) -> State:
        """Loads the variables of a checkpoint and of its base; returns the state."""
        about = self._read_about(name)
        if about.base is not None:
            self._assign(_base_name(about.base), "model", self.variables, partial=False)
        self._assign(name, "model", self.variables, partial=about.base is not None)
        return State(about.epoch, about.best, about.best_epoch, about.seconds)

    def load_optimizer(self, name: str, optimizer: keras.Optimizer) -> None:
        """Loads the variables of the optimizer from a checkpoint."""
        self._assign(name, "optimizer", optimizer.variables, partial=False)

    def _save(self, name: str, arrays: dict[str, Any], about: dict[str, Any], trained: Collection[int] | None) -> None:
        model = {f"model/{i}": v.numpy() for i, v in enumerate(self.variables) if trained is None or id(v) in trained}
        for key, value in model.items():
            if not np.isfinite(value).all():
                name = self.variables[int(key.removeprefix("model/"))].name
                raise UserError(f"The weights {name!r} became nan or infinite. Lower --train.learning-rate.")
        with files.new_file(self.folder / name) as temporary:
            np.savez(temporary, about=json.dumps(about), **model, **arrays)  # type: ignore[arg-type]

    def _read_about(self, name: str) -> SavedState:
        with open_arrays(self.folder / name, REPAIR) as arrays:
            text = str(arrays["about"])
        return documents.parse(text, SavedState, str(self.folder / name), REPAIR)

    def _assign(self, name: str, kind: str, variables: Sequence[Any], partial: bool) -> None:
        """Assigns the arrays of a file to variables. Raises UserError if they belong to another model."""
        with open_arrays(self.folder / name, REPAIR) as arrays:
            for i, variable in enumerate(variables):
                value = arrays.get(f"{kind}/{i}")
                if value is None and partial:
                    continue
                if value is None or value.shape != tuple(variable.shape):
                    raise UserError(
                        f"{self.folder / name}: The checkpoint belongs to another model ({kind} variable {i}, "
                        f"{variable.name}). {REPAIR}"
                    )
                variable.assign(value)


def best_name(epoch: int | str) -> str:
    """Returns the name of the checkpoint of a best epoch. It stays until `last.npz` knows a later one."""
    return f"best-{epoch}.npz"


def _base_name(first_epoch: int) -> str:
    return f"base-{first_epoch}.npz"
