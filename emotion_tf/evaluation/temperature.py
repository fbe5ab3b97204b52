"""Temperature scaling: one divisor of the logits."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = 0.05, 20.0
"""Valid range of temperatures."""
Temperature = Annotated[float, Field(gt=RANGE[0] / 2, lt=RANGE[1] * 2)]


def fit_temperature(label: np.ndarray, logits: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Fits the temperature T that minimises the cross-entropy of softmax(logits / T) (Guo 2017, section 4.2).

    The search range is 0.05 to 20. The cross-entropy is convex in 1 / T, so there is one minimum.
    """
    weight = np.ones(len(label)) if weight is None else weight
    rows, logits = np.arange(len(label)), logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return -float(weight @ log_softmax(logits / np.exp(log_temperature), axis=1)[rows, label])

    return float(np.exp(minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-6}).x))
