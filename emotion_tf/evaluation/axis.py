"""The axis of the bars in a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator


class Axis(NamedTuple):
    """The axis that the bars of a table share, from its lowest to its highest tick."""

    low: float
    high: float

    def position(self, value: float) -> float:
        """Returns the position of a value in percent of the axis."""
        return 100 * (value - self.low) / (self.high - self.low)


def zoomed_axis(values: Iterable[float | None]) -> Axis:
    """Returns the shortest axis with round ends that holds all finite values; None does not count."""
    finite = [value for value in values if value is not None and np.isfinite(value)] or [0.0, 1.0]
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(min(finite), max(finite))
    return Axis(float(ticks[0]), float(ticks[-1]))
