"""A run and a data set on the workers of a cluster: each process opens them once, and reads one shard after another."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from emotion_tf import files, remote, trust
from emotion_tf.cluster import once
from emotion_tf.data import verify
from emotion_tf.data.dataset import Dataset
from emotion_tf.data.rows import Rows
from emotion_tf.errors import UserError
from emotion_tf.folders import find_run
from emotion_tf.runs.run import Run
from emotion_tf.terminal import with_urls


@dataclass(frozen=True)
class Place:
    """Where workers find a run and a data set, and what these are here.

    Attributes:
        run, data: absolute paths, or URLs.
        model_sha256, data_sha256: hashes of the model and of the data set.
        trusts_everything: whether `--trust` was given.
    """

    run: str
    data: str
    model_sha256: str
    data_sha256: str
    trusts_everything: bool

    @classmethod
    def of(cls, run: Run, dataset: Dataset) -> Place:
        """Returns the place of a run and a data set of this machine. Raises UserError if the run is not finished."""
        run.check_finished()
        hashes = files.sha256(run.model_path), dataset.spec.data_sha256
        return cls(absolute(run.path), absolute(dataset.place), *hashes, trust.trusts_everything())

    def open(self, split: str, number: int) -> tuple[Run, Rows]:
        """Opens the run and a shard of a split on a worker.

        Raises:
            UserError: the run, the data set or the shard is missing, damaged, or not the one of the command.
        """
        run, dataset = _open(self)
        shard = dataset.splits[split].shards[number]
        if dataset.stage is None:  # else it is compared when it is fetched
            verify.verify_shard(dataset.path / shard.file, shard)
        rows = dataset.rows(split)
        return run, replace(rows, paths=(rows.paths[number],))


def absolute(path: str | Path) -> str:
    """Returns where workers find a file or folder of this machine: its absolute path, or its URL."""
    name = with_urls(str(path))
    return remote.url_of(name) if remote.is_url(name) else os.path.abspath(name)


@once
def _open(place: Place) -> tuple[Run, Dataset]:
    run, dataset = Run(find_run(Path(place.run))), Dataset.open(Path(place.data))
    run.check_finished()
    for where, own, expected in (
        (place.run, files.sha256(run.model_path), place.model_sha256),
        (place.data, dataset.spec.data_sha256, place.data_sha256),
    ):
        if own != expected:
            raise UserError(f"{where} is not the one of the command (sha256 differs). Copy it again.")
    with trust.everything(place.trusts_everything):
        _ = run.model  # which the threads share
    return run, dataset
