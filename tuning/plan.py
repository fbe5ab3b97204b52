"""The plan of a search: everything that its trials depend on, stored in `search.json` and sent to remote workers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from emotion_tf import documents
from emotion_tf.config import Config, rules, smoke
from emotion_tf.config.rules import Range
from emotion_tf.errors import UserError
from emotion_tf.kinds import Kind

RESULTS = Path("tuning/results")
SEARCH = Kind("search", ("search.json",), "summary.json", ("best.json",))
ALGORITHMS = {
    "random": "independent draws (Bergstra and Bengio 2012)",
    "bayesian": "upper confidence bound of a Gaussian process (Snoek 2012)",
    "hyperband": "many short trials, the best of which continue (Li 2018)",
}
HYPERBAND_FACTOR = 3
"""Factor by which Hyperband reduces the number of trials and lengthens them in each round (eta of Li 2018)."""
TRIALS, FOLDS = Range(1, 100_000), Range(0, 1000)
MAY_CHANGE = ("trials", "command")
"""Fields that may differ when a search is resumed."""


@dataclass(frozen=True)
class Plan:
    """The plan of a search.

    Attributes:
        config: base configuration, with the epochs of a trial.
        search: words of --search; empty: all options with an effect.
        fix: words of --fix.
        algorithm: one of ALGORITHMS.
        folds: number of folds whose mean score is the objective; 0: the score on dev.
        data_sha256: hash of the data set.
        trials: number of trials.
        command: command line that started the search.
        smoke: whether trials are as short as `--smoke` makes them. The configuration stays that of a whole training.
    """

    config: Config
    search: tuple[str, ...]
    fix: tuple[str, ...]
    algorithm: str
    folds: Annotated[int, FOLDS]
    data_sha256: str
    trials: Annotated[int, TRIALS]
    command: str
    smoke: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for an invalid value."""
        rules.one_of("tuner.algorithm", self.algorithm, ALGORITHMS)
        rules.check_fields(self)
        if self.folds == 1:
            raise UserError(f"Invalid `--folds`. Expected 0 (dev alone) or at least 2. Received: {self.folds}.")
        if self.algorithm == "hyperband" and self.config.train.epochs < HYPERBAND_FACTOR:
            raise UserError(
                f"Invalid `--tuner.epochs`. Expected at least {HYPERBAND_FACTOR}, as for --train.epochs, with "
                f"--tuner.algorithm hyperband, which trains its best trials {HYPERBAND_FACTOR} times as long. "
                f"Received: {self.config.train.epochs}."
            )
        if self.folds and self.algorithm == "hyperband":
            raise UserError(
                "Invalid `--folds`. Expected 0 with --tuner.algorithm hyperband, whose trials continue an earlier "
                f"one. Received: {self.folds}. Choose random or bayesian."
            )

    def of_trial(self, config: Config) -> Config:
        """Returns the configuration that a trial trains for a configuration of the space."""
        return smoke(config) if self.smoke else config

    def to_json(self) -> str:
        """Returns the plan as JSON."""
        return documents.to_json(self)

    def check_same(self, other: Plan, where: Path) -> None:
        """Raises UserError if the search in the folder `where` cannot be resumed with another plan."""
        for field in dataclasses.fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name not in MAY_CHANGE and ours != theirs:
                raise UserError(
                    f"{where} is a search with another {_difference(ours, theirs, field.name)}. Expected the same "
                    "options to continue it: leave out the others, choose another --name, or --overwrite it."
                )


def _difference(ours: object, theirs: object, name: str) -> str:
    """Returns the first option that differs, with both values."""
    if dataclasses.is_dataclass(ours):
        for field in dataclasses.fields(ours):
            values = getattr(ours, field.name), getattr(theirs, field.name)
            if values[0] != values[1]:
                return _difference(*values, f"{name}.{field.name}".removeprefix("config."))
    return f"{name} ({ours!r}, not {theirs!r})"


def from_json(text: str) -> Plan:
    """Returns the plan that a chief sends."""
    return documents.parse(text, Plan, "The chief's search", "Start the workers with the version of the chief.")
