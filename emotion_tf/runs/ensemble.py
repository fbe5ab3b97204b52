"""An ensemble's folder: `ensemble.json` names its members, which stay where they are, and how they vote."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.evaluation import model_card, report
from emotion_tf.evaluation.compare import Compared
from emotion_tf.evaluation.votes import Vote
from emotion_tf.folders import ENSEMBLE
from emotion_tf.runs.run import Run
from emotion_tf.schema import DataSpec

HASHED = ("model.keras", "config.json", "vocab.txt", "words.txt", "calibration.json")
"""What a run's predictions follow from, where it has them."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Contents of `saved_models/NAME` as `ensemble` wrote it."""

    path: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """Contents of `ensemble.json`. Raises UserError when it cannot be read."""
        try:
            found = json.loads((self.path / ENSEMBLE).read_text(encoding="utf-8"))
            _ = [found["vote"]["method"], *((one["path"], one["sha256"]) for one in found["members"])]
            return found
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Cannot read {self.path / ENSEMBLE} ({type(error).__name__}: {error}). Expected the file that "
                "`ensemble` wrote; make the ensemble again."
            ) from None

    @cached_property
    def vote(self) -> Vote:
        """How the members' probabilities become one."""
        return Vote.from_json(self.about["vote"])

    @cached_property
    def members(self) -> list[Run]:
        """The members' runs. Raises UserError when one is not there, or is not what it was."""
        found = []
        for one in self.about["members"]:
            path = Path(os.path.normpath(self.path / one["path"]))
            if not path.is_dir():
                raise UserError(
                    f"{self.path}: Its member {path} is not there. Put it back, or make the ensemble again without it; "
                    "an export holds all its members."
                )
            if digest(path) != one["sha256"]:
                raise UserError(
                    f"{self.path}: Its member {path} has changed since: the votes were fitted to the model that it "
                    "held. Make the ensemble again with --overwrite."
                )
            found.append(Run(path))
        return found

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.spec.labels

    @property
    def spec(self) -> DataSpec:
        """What the members know of their data, which is the same."""
        return self.members[0].spec


def open_folder(path: Path) -> Run | Ensemble:
    """A run or an ensemble, whichever the folder holds."""
    return Ensemble(path) if (path / ENSEMBLE).is_file() else Run(path)


def digest(path: Path) -> str:
    """Hash of the files of a run that its predictions follow from. Raises UserError when it is unfinished."""
    Run(path).check_finished()
    hashes = [files.sha256(path / name) if (path / name).is_file() else "" for name in HASHED]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def check_members(paths: Sequence[Path]) -> list[Run]:
    """The runs, if they can be members of one ensemble.

    Raises:
        UserError: fewer than two, the same twice, no run, an unfinished one, other labels or data than the first's, or
            some that read the utterance with its speaker beside some that do not.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)) or len({path.name for path in paths}) < len(paths):
        raise UserError(f"Expected two or more different runs. Received: {', '.join(map(str, paths)) or 'none'}.")
    for path in paths:
        if (path / ENSEMBLE).is_file():
            raise UserError(f"{path} is an ensemble. Expected runs: name its members in its place.")
    runs = [Run(path) for path in paths]
    for run in runs:
        run.check_finished()
        for name in ("labels", "data_sha256"):
            ours, first = getattr(run.spec, name), getattr(runs[0].spec, name)
            if ours != first:
                raise UserError(
                    f"{run.path} and {runs[0].path} were trained on different data: {name} is {ours!r} and {first!r}. "
                    "Expected runs on the same data set."
                )
    speakers = {run.config.text.speaker: run.path for run in runs if run.config.uses_text}
    if len(speakers) > 1:
        raise UserError(
            f"{speakers[True]} reads the utterance with its speaker (--text.speaker) and {speakers[False]} without. "
            "Expected members that are given the same utterance."
        )
    return runs


def write_ensemble(
    out: Path,
    members: Sequence[Run],
    vote: Vote,
    results: Mapping[str, Compared],
    about: dict[str, Any],
    overwrite: bool,
) -> None:
    """Writes an ensemble's folder: `ensemble.json`, model card, and of each split metrics, predictions and confusion.

    Args:
        out: the folder.
        members: as `check_members` returns them. Their paths are kept relative: all can move together.
        vote: how they vote.
        results: split -> what `evaluation.ensemble.apply` made of the vote.
        about: more that `ensemble.json` shall hold; data and command also go beside the metrics.
        overwrite: whether `out` may be replaced.
    """
    there = [
        {
            "name": run.path.name,
            "path": os.path.relpath(run.path.resolve(), out.resolve()),
            "sha256": digest(run.path),
            "seed": run.config.train.seed,
        }
        for run in members
    ]
    sizes = {"parameters": next(iter(results.values())).parameters, "labels": list(members[0].labels)}
    context = {"command": about["command"], "data": about["data"], "seed": [one["seed"] for one in there]}
    with files.new_folder(out, overwrite) as folder:
        values = {"vote": vote.to_json(), "members": there, **sizes, **about}
        (folder / ENSEMBLE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        for split, run in results.items():
            report.write_metrics(folder / "metrics.json", split, {**run.metrics, **context})
            run.table.to_csv(folder / f"predictions_{split}.csv", index=False)
            title = f"{out.name}: {split}, weighted F1 {run.metrics['weighted_f1']:.3f}"
            report.plot_confusion(folder / f"confusion_{split}.png", run.metrics["confusion"], members[0].labels, title)
    model_card.write(out)
