"""Plots of a search: the objective over trials, by hyperparameter, and the importance of each hyperparameter."""

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
from emotion_tf.evaluation.colours import FIRST, GREY, INK, SECOND
from emotion_tf.wording import plural
from tuning.space import Parameter, Range, label

SCORE = "dev_weighted_f1"
MIN_TRIALS = 10
"""Number of finished trials below which importance is not plotted."""
BEST = dict[str, Any](color=SECOND, marker="*", markersize=12, linestyle="none", zorder=3)
"""Style of the best trial."""
BELOW = dict[str, Any](loc="outside lower center", ncol=5, frameon=False)
"""Style of a legend that covers no dot."""
MAX_LETTERS = 18
"""Number of letters in the labels of an axis above which they are rotated."""


def plot_all(folder: Path, trials: pd.DataFrame, searched: Sequence[Parameter], floor: float, seed: int) -> list[Path]:
    """Plots the trials and returns the files. Importance needs `MIN_TRIALS` finished trials."""
    finished = trials[trials["status"] == "finished"].astype({SCORE: float})
    paths = [folder / "objective.png", folder / "hyperparameters.png", folder / "importance.png"]
    _objective(paths[0], trials, floor)
    _panels(paths[1], finished, searched)
    if len(finished) < MIN_TRIALS:
        return paths[:2]
    _importance(paths[2], finished, searched, seed)
    return paths


def _save(path: Path, figure: plt.Figure) -> None:
    with files.new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _objective(path: Path, trials: pd.DataFrame, floor: float) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    number, score = np.arange(1, len(trials) + 1), trials[SCORE].astype(float)
    best = np.fmax.accumulate(score)
    axes.step(number, best, where="post", color=FIRST, label="best so far")
    axes.plot(number, score, "o", color=GREY, markersize=4, label="trial")
    if score.notna().any():
        axes.plot(number[np.nanargmax(score)], score.max(), label="best trial", **BEST)
    broken = trials["status"].to_numpy() == "broken"
    if broken.any():
        axes.plot(number[broken], np.full(broken.sum(), floor), "x", color=INK, label="broken")
    axes.axhline(floor, color=GREY, linestyle=":", label="majority floor")
    axes.set(xlabel="trial, in order of completion", ylabel="weighted F1", title=f"{path.parent.name}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(**BELOW)
    _save(path, figure)


def _panels(path: Path, finished: pd.DataFrame, searched: Sequence[Parameter]) -> None:
    shown = [parameter for parameter in searched if finished[parameter.option].notna().any()] or list(searched[:1])
    columns = min((4, 3, 2), key=lambda columns: -len(shown) % columns) if len(shown) > 4 else len(shown)
    lines = math.ceil(len(shown) / columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(3.2 * columns, 2.7 * lines + 0.3), layout="constrained", sharey=True, squeeze=False
    )
    for axes in grid.flat[len(shown) :]:
        axes.remove()
    for parameter, axes in zip(shown, grid.flat, strict=False):
        _panel(axes, finished[finished[parameter.option].notna()], parameter, finished[SCORE].max())
    for axes in grid[:, 0]:
        axes.set_ylabel("weighted F1")
    figure.legend(*grid.flat[0].get_legend_handles_labels(), **BELOW)
    _save(path, figure)


def _panel(axes: plt.Axes, trials: pd.DataFrame, parameter: Parameter, best: float) -> None:
    """Draws the trials with this hyperparameter; a star marks the one that has the best score of all."""
    values = trials[parameter.option]
    axes.set_title(parameter.option, fontsize=10)
    if isinstance(parameter.domain, Range):
        _dots(axes, values.astype(float).to_numpy(), trials[SCORE].to_numpy(), best)
        if parameter.domain.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(parameter.domain.low, parameter.domain.high)
        axes.margins(x=0.05)
        return
    names = [str(label(value)) for value in parameter.domain]
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(trials))  # separates trials with equal choices
    _dots(axes, [names.index(str(v)) for v in values] + jitter, trials[SCORE].to_numpy(), best)
    is_rotated = sum(map(len, names)) > MAX_LETTERS
    axes.set_xticks(range(len(names)), names, rotation=30 if is_rotated else 0, ha="right" if is_rotated else "center")
    axes.set_xlim(-0.5, len(names) - 0.5)


def _dots(axes: plt.Axes, x: np.ndarray, score: np.ndarray, best: float) -> None:
    is_best = score == best
    axes.plot(x[~is_best], score[~is_best], "o", color=GREY, markersize=4, alpha=0.8, label="trial")
    axes.plot(x[is_best], score[is_best], label="best trial", **BEST)


def encode(finished: pd.DataFrame, searched: Sequence[Parameter]) -> pd.DataFrame:
    """Returns trials as numbers: logarithms for log-uniform ranges, indices for choices.

    An inactive hyperparameter is 1 below the domain, which no active one reaches.
    """
    columns = {}
    for parameter in searched:
        values = finished[parameter.option]
        if isinstance(parameter.domain, Range):
            scale = np.log10 if parameter.domain.log else np.asarray
            numbers = pd.Series(scale(values.astype(float)), values.index)
            columns[parameter.option] = numbers.fillna(float(scale(parameter.domain.low)) - 1)
        else:
            index = {str(label(value)): i for i, value in enumerate(parameter.domain)}
            columns[parameter.option] = values.map(lambda v, index=index: index.get(str(v), -1))
    return pd.DataFrame(columns)


def importance(finished: pd.DataFrame, searched: Sequence[Parameter], seed: int) -> tuple[pd.DataFrame, float]:
    """Computes the permutation importance of each hyperparameter for a random forest that predicts the objective.

    Breiman 2001, "Random Forests", section 10, by scikit-learn, on the training trials of the forest.

    Returns:
        Mean and standard deviation of the loss of R2 by hyperparameter, and the out-of-bag R2 of the forest. With a low
        R2 the importances mean little.
    """
    x, y = encode(finished, searched), finished[SCORE].astype(float)
    forest = RandomForestRegressor(300, oob_score=True, min_samples_leaf=2, random_state=seed).fit(x, y)
    result = permutation_importance(forest, x, y, n_repeats=20, random_state=seed)
    table = pd.DataFrame({"mean": result.importances_mean, "deviation": result.importances_std}, index=x.columns)
    return table.sort_values("mean"), float(forest.oob_score_)


def _importance(path: Path, finished: pd.DataFrame, searched: Sequence[Parameter], seed: int) -> None:
    table, r2 = importance(finished, searched, seed)
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.3 * len(table)), layout="constrained")
    axes.barh(table.index, table["mean"], xerr=table["deviation"], color=FIRST, ecolor=INK)
    axes.set(
        xlabel="loss of R² after permutation",
        title=f"Permutation importance, {plural(len(finished), 'trial')} (out-of-bag R² {r2:.2f})",
    )
    _save(path, figure)
