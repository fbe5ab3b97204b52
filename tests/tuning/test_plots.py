"""The numbers behind the plots of a search."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from tuning import plots
from tuning.plots import SCORE, encode, importance, plot_all
from tuning.space import Parameter, Range

RATE = Parameter("train.pretrained_rate", Range(0.01, 0.3, log=True))
GAMMA = Parameter("train.focal_gamma", Range(-3.0, 4.0))
UNITS = Parameter("text.gru_units", (32, 64))


def test_an_inactive_hyperparameter_is_no_value_of_its_domain():
    """The logarithm of a rate of 0.1 is -1; so is a value of the range of the other one."""
    trials = pd.DataFrame(
        {RATE.option: [0.1, None, 0.01], GAMMA.option: [None, -1.0, -3.0], UNITS.option: [64, None, 32]}, dtype=object
    )
    encoded = encode(trials, [RATE, GAMMA, UNITS])
    np.testing.assert_allclose(encoded[RATE.option], [-1, -3, -2])
    np.testing.assert_allclose(encoded[GAMMA.option], [-4, -1, -3])
    assert encoded[UNITS.option].tolist() == [1, -1, 0]


def test_a_switched_off_rate_is_told_from_a_rate_of_a_tenth():
    """The objective is high with a rate of 0.1 and low without one; the forest sees the difference."""
    active = np.arange(40) % 2 == 0
    trials = pd.DataFrame({RATE.option: np.where(active, 0.1, None), SCORE: np.where(active, 0.6, 0.3)}, dtype=object)
    table, r2 = importance(trials, [RATE], seed=0)
    assert r2 > 0.9 and table.loc[RATE.option, "mean"] > 1


def test_the_best_trial_is_marked_no_panel_is_empty_and_legends_cover_no_dot(tmp_path, monkeypatch):
    figures = {}
    monkeypatch.setattr(plots, "_save", lambda path, figure: figures.update({path.stem: figure}))
    scores = [0.5, 0.7, None, 0.6]
    trials = pd.DataFrame(
        {
            "status": ["finished", "finished", "broken", "finished"],
            SCORE: scores,
            RATE.option: [0.1, 0.02, 0.1, 0.3],
            GAMMA.option: None,
            UNITS.option: [32, 64, 32, 64],
        }
    )
    plot_all(tmp_path, trials, [RATE, GAMMA, UNITS], 0.4, 0)
    assert [axes.get_title() for axes in figures["hyperparameters"].axes] == [RATE.option, UNITS.option]
    for axes in figures["hyperparameters"].axes + figures["objective"].axes:
        (star,) = (line for line in axes.lines if line.get_marker() == "*")
        assert list(star.get_ydata()) == [0.7] and axes.get_legend() is None
    for figure in figures.values():
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert all(legend.y1 <= axes.get_tightbbox().y0 for axes in figure.axes)
        plt.close(figure)
