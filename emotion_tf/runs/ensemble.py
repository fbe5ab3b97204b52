"""The folder of an ensemble. `ensemble.json` names the members, which stay in their own folders, and the vote."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from emotion_tf import documents, files
from emotion_tf.errors import UserError
from emotion_tf.evaluation import model_card, report
from emotion_tf.evaluation.compare import RunResults
from emotion_tf.evaluation.csv_tables import to_csv
from emotion_tf.evaluation.vote import EnsembleInfo, Member, Vote, read_ensemble_info
from emotion_tf.folders import ENSEMBLE, ENSEMBLE_KIND, local_run, reference
from emotion_tf.run_info import DataSpec
from emotion_tf.runs.run import Run

HASHED = ("model.keras", "config.json", "vocab.txt", "words.txt", "calibration.json")
"""Files that determine the predictions of a run; a run may lack some."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The ensemble in `saved_models/NAME`."""

    path: Path

    @cached_property
    def info(self) -> EnsembleInfo:
        """Contents of `ensemble.json`. Raises UserError if it cannot be read."""
        return read_ensemble_info(self.path)

    @property
    def vote(self) -> Vote:
        """How the members' probabilities are combined."""
        return self.info.vote

    @cached_property
    def members(self) -> list[Run]:
        """The members. Raises UserError if one is missing or has changed."""
        runs = []
        for member in self.info.members:
            path = local_run(member.path, self.path)
            if not path.is_dir():
                raise UserError(
                    f"{self.path}: Its member {path} does not exist. Restore it, or make an ensemble without it; "
                    "an export holds all its members."
                )
            if digest(path) != member.sha256:
                raise UserError(
                    f"{self.path}: Its member {path} has changed. The vote was fitted to "
                    "another model. Make the ensemble again with --overwrite."
                )
            runs.append(Run(path))
            if runs[-1].labels != self.info.labels:
                raise UserError(
                    f"{self.path / ENSEMBLE}: Invalid `labels`. Expected those of the member {path}: "
                    f"{', '.join(runs[-1].labels)}. Received: {', '.join(self.info.labels)}. Make the ensemble again."
                )
        return runs

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.spec.labels

    @property
    def spec(self) -> DataSpec:
        """Properties of the data set, which are the same for all members."""
        return self.members[0].spec


def open_run(path: Path) -> Run | Ensemble:
    """Returns the run or the ensemble in a folder."""
    files.restore_missing(path, ENSEMBLE_KIND)
    return Ensemble(path) if os.path.isfile(path / ENSEMBLE) else Run(path)


def digest(path: Path) -> str:
    """Returns the hash of the files that determine a run's predictions. Raises UserError for an unfinished run."""
    Run(path).check_finished()
    hashes = [files.sha256(path / name) if (path / name).is_file() else "" for name in HASHED]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def check_members(paths: Sequence[Path]) -> list[Run]:
    """Opens runs and checks that they can be members of one ensemble.

    Raises:
        UserError: there are fewer than two runs, a duplicate or an unfinished run; or the runs differ in their labels,
            their data, or whether they read the utterance with its speaker.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)) or len({path.name for path in paths}) < len(paths):
        raise UserError(f"Expected two or more different runs. Received: {', '.join(map(str, paths)) or 'none'}.")
    for path in paths:
        if os.path.isfile(path / ENSEMBLE):
            raise UserError(f"{path} is an ensemble. Expected runs: name its members instead.")
    runs = [Run(path) for path in paths]
    for run in runs:
        run.check_finished()
        for name in ("labels", "data_sha256"):
            value, first = getattr(run.spec, name), getattr(runs[0].spec, name)
            if value != first:
                raise UserError(
                    f"{run.path} and {runs[0].path} were trained on different data: {name} is {value!r} and {first!r}. "
                    "Expected runs on the same data set."
                )
    speakers = {run.config.text.speaker: run.path for run in runs if run.config.uses_text}
    if len(speakers) > 1:
        raise UserError(
            f"{speakers[True]} reads the utterance with its speaker (--text.speaker) and {speakers[False]} without. "
            "Expected members that read the same text."
        )
    return runs


def write_ensemble(
    out: Path,
    members: Sequence[Run],
    vote: Vote,
    results: Mapping[str, RunResults],
    metadata: dict[str, Any],
    overwrite: bool,
) -> None:
    """Writes the folder of an ensemble: `ensemble.json`, model card, metrics, predictions and confusion matrices.

    Args:
        out: the folder.
        members: as `check_members` returns them. Relative paths are stored, so that all folders can move together, or
            URLs.
        vote: how the members' probabilities are combined.
        results: split -> metrics and predictions of the vote.
        metadata: further values of `ensemble.json`; `data` and `command` are also stored with the metrics.
        overwrite: whether to replace `out` if it exists.
    """
    from emotion_tf.evaluation import figures  # not needed to open an ensemble

    entries = tuple(
        Member(
            name=run.path.name,
            path=reference(run.path, out),
            sha256=digest(run.path),
            seed=run.config.train.seed,
        )
        for run in members
    )
    info = EnsembleInfo(
        vote=vote,
        members=entries,
        labels=members[0].labels,
        parameters=next(iter(results.values())).parameters,
        **metadata,
    )
    context = {"command": info.command, "data": info.data, "seed": [entry.seed for entry in entries]}
    with files.new_folder(out, ENSEMBLE_KIND, overwrite) as folder:
        (folder / ENSEMBLE).write_text(documents.to_json(info), encoding="utf-8")
        for split, run in results.items():
            report.write_metrics(folder / "metrics.json", split, {**run.metrics, **context})
            to_csv(run.table, folder / f"predictions_{split}.csv")
            title = f"{out.name}: {split}, weighted F1 {run.metrics['weighted_f1']:.3f}"
            figures.plot_confusion(
                folder / f"confusion_{split}.png", run.metrics["confusion"], members[0].labels, title
            )
        (folder / model_card.NAME).write_text(model_card.text(folder, out.name), encoding="utf-8")
