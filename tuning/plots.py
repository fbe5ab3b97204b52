"""Pictures of a search: the objective over time, by each hyperparameter, and which of them matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, NullFormatter
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from emotion_tf import files
from tuning.space import Parameter, Range, label

SCORE = "dev_weighted_f1"
ENOUGH = 10
"""Finished trials below which a forest of them says nothing."""
LETTERS = 18
"""Of all labels of an axis, above which they are turned."""


def plot_all(folder: Path, trials: pd.DataFrame, searched: Sequence[Parameter], floor: float, seed: int) -> list[Path]:
    """Draws what can be drawn of these trials; returns the pictures."""
    done = trials[trials["status"] == "finished"].astype({SCORE: float})
    paths = [folder / "objective.png", folder / "hyperparameters.png", folder / "importance.png"]
    _objective(paths[0], trials, floor)
    _panels(paths[1], done, searched)
    if len(done) < ENOUGH:
        return paths[:2]
    _importance(paths[2], done, searched, seed)
    return paths


def _save(path: Path, figure: plt.Figure) -> None:
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _objective(path: Path, trials: pd.DataFrame, floor: float) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    at, score = np.arange(1, len(trials) + 1), trials[SCORE].astype(float)
    best = np.fmax.accumulate(score)
    axes.step(at, best, where="post", color="tab:blue", label="best so far")
    axes.plot(at, score, "o", color="0.35", markersize=4, label="trial")
    broken = trials["status"].to_numpy() == "broken"
    if broken.any():
        axes.plot(at[broken], np.full(broken.sum(), floor), "x", color="tab:red", label="broken")
    axes.axhline(floor, color="0.6", linestyle=":", label="majority floor")
    axes.set(xlabel="trials, in the order in which they ended", ylabel="weighted F1", title=f"{path.parent.name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")
    _save(path, figure)


def _panels(path: Path, done: pd.DataFrame, searched: Sequence[Parameter]) -> None:
    columns = min(4, len(searched))
    lines = math.ceil(len(searched) / columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(3.2 * columns, 2.7 * lines), layout="constrained", sharey=True, squeeze=False
    )
    for axes in grid.flat[len(searched) :]:
        axes.axis("off")
    for one, axes in zip(searched, grid.flat, strict=False):
        _panel(axes, done[done[one.option].notna()], one)
    for axes in grid[:, 0]:
        axes.set_ylabel("weighted F1")
    _save(path, figure)


def _panel(axes: plt.Axes, acting: pd.DataFrame, one: Parameter) -> None:
    values, style = acting[one.option], dict[str, Any](markersize=4, alpha=0.7)
    axes.set_title(one.option, fontsize=10)
    if isinstance(one.domain, Range):
        axes.plot(values.astype(float), acting[SCORE], "o", **style)
        if one.domain.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(one.domain.low, one.domain.high)
        axes.margins(x=0.05)
        return
    names = [str(label(value)) for value in one.domain]
    beside = np.random.default_rng(0).uniform(-0.15, 0.15, len(acting))  # or equal choices would hide each other
    axes.plot([names.index(str(v)) for v in values] + beside, acting[SCORE], "o", **style)
    turned = sum(map(len, names)) > LETTERS
    axes.set_xticks(range(len(names)), names, rotation=30 if turned else 0, ha="right" if turned else "center")
    axes.set_xlim(-0.5, len(names) - 0.5)


def encoded(done: pd.DataFrame, searched: Sequence[Parameter]) -> pd.DataFrame:
    """Trials as numbers: logarithms where that is how they were drawn, choices by number, -1 for what did not act."""
    columns = {}
    for one in searched:
        values = done[one.option]
        if isinstance(one.domain, Range):
            numbers = values.astype(float)
            columns[one.option] = (np.log10(numbers) if one.domain.log else numbers).fillna(-1)
        else:
            number = {str(label(value)): i for i, value in enumerate(one.domain)}
            columns[one.option] = values.map(lambda v, number=number: number.get(str(v), -1))
    return pd.DataFrame(columns)


def importance(done: pd.DataFrame, searched: Sequence[Parameter], seed: int) -> tuple[pd.DataFrame, float]:
    """How much worse a random forest of the trials predicts the objective when one hyperparameter is shuffled.

    Breiman 2001, "Random Forests", section 10, by scikit-learn; on the trials that the forest was made of.

    Returns:
        A table of mean and deviation over shufflings, by hyperparameter; and the forest's R2 on trials that a tree has
        not seen, without which the table means little.
    """
    x, y = encoded(done, searched), done[SCORE].astype(float)
    forest = RandomForestRegressor(300, oob_score=True, min_samples_leaf=2, random_state=seed).fit(x, y)
    found = permutation_importance(forest, x, y, n_repeats=20, random_state=seed)
    table = pd.DataFrame({"mean": found.importances_mean, "deviation": found.importances_std}, index=x.columns)
    return table.sort_values("mean"), float(forest.oob_score_)


def _importance(path: Path, done: pd.DataFrame, searched: Sequence[Parameter], seed: int) -> None:
    table, fit = importance(done, searched, seed)
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.3 * len(table)), layout="constrained")
    axes.barh(table.index, table["mean"], xerr=table["deviation"], color="tab:blue", ecolor="0.4")
    axes.set(
        xlabel="loss of R² when it is shuffled",
        title=f"Importance by a forest of {len(done)} trials (R² on unseen trials {fit:.2f})",
    )
    _save(path, figure)
