"""What a search is: all that its trials depend on, as `search.json` keeps it and as workers elsewhere are told."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from emotion_tf.config import Config, file, rules
from emotion_tf.errors import UserError

RESULTS = Path("tuning/results")
ALGORITHMS = {
    "random": "independent draws (Bergstra and Bengio 2012)",
    "bayesian": "where a Gaussian process of the trials so far is promising or unsure (Snoek 2012)",
    "hyperband": "many short trials, of which the better are trained on (Li 2018)",
}
HALVES = 3
"""By what Hyperband cuts the number of trials, and lengthens them, in each round (eta of Li 2018)."""
FREE = ("trials", "command")
"""What may differ when a search goes on."""


@dataclass(frozen=True)
class Plan:
    """A search.

    Attributes:
        config: the configuration that is searched around, with the epochs of a trial.
        search: options to search, as --search names them; none: all that act.
        fix: options to leave alone, as --fix names them.
        algorithm: one of ALGORITHMS.
        folds: the objective is the mean over so many folds; 0: it is that of dev.
        data_sha256: of the data set.
        trials: how many.
        command: that it was started with.
    """

    config: Config
    search: tuple[str, ...]
    fix: tuple[str, ...]
    algorithm: str
    folds: int
    data_sha256: str
    trials: int
    command: str

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        rules.one_of("tuner.algorithm", self.algorithm, ALGORITHMS)
        rules.number("--trials", self.trials, 1)
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"Invalid `--folds`. Expected 0 (dev alone) or at least 2. Received: {self.folds}.")
        if self.algorithm == "hyperband" and self.config.train.epochs < HALVES:
            raise UserError(
                "Invalid `--tuner.epochs`. Expected, with --tuner.algorithm hyperband, at least "
                f"{HALVES} of it and of --train.epochs: the best trials train {HALVES} times as long. "
                f"Received: {self.config.train.epochs}."
            )
        if self.folds and self.algorithm == "hyperband":
            raise UserError(
                "Invalid `--folds`. Expected 0 with --tuner.algorithm hyperband: its trials go on from the weights of "
                f"earlier, shorter ones, of which folds would have several. Received: {self.folds}. Take random or "
                "bayesian."
            )

    def text(self) -> str:
        """As JSON."""
        return file.write_json(self)

    def check_same(self, other: Plan, where: Path) -> None:
        """Refuses to go on with this one, in the folder `where`, as another. Raises UserError."""
        for field in dataclasses.fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name not in FREE and ours != theirs:
                raise UserError(
                    f"{where} is a search with another {_difference(ours, theirs, field.name)}. Expected that one with "
                    "--resume: leave other options away, take another --name, or --overwrite it."
                )


def _difference(ours: object, theirs: object, name: str) -> str:
    """The first option that differs."""
    if dataclasses.is_dataclass(ours):
        for field in dataclasses.fields(ours):
            one, other = getattr(ours, field.name), getattr(theirs, field.name)
            if one != other:
                return _difference(one, other, f"{name}.{field.name}".removeprefix("config."))
    return f"{name} ({ours!r}, not {theirs!r})"


def from_text(text: str) -> Plan:
    """The inverse of `Plan.text`."""
    return file.from_dict(Plan, json.loads(text), "the chief's search")
