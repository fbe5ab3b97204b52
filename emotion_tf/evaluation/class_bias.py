"""Biases of the classes: bias-corrected temperature scaling, for models that were trained with class weights.

Class weights change the class frequencies that a model assumes. A temperature cannot change them back; one bias per
class can (Alexandari 2020, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at Label Shift
Adaptation", section 2.2).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from emotion_tf.evaluation.folds import dialogue_folds
from emotion_tf.evaluation.temperature import RANGE, fit_temperature

STRENGTHS = (1e-3, 1e-2, 1e-1)
"""Candidates for the strength of the L2 penalty."""
FOLDS = 5


def select_biases(label: np.ndarray, logits: np.ndarray, weight: np.ndarray, dialogue: np.ndarray) -> np.ndarray:
    """Fits one bias per class, float (C,), or returns zeros if they do not improve on a temperature alone.

    Cross-validation by dialogue decides by the log loss how far the biases are shrunk, and whether there are any: they
    must lower the loss by more than the standard error of that difference over dialogues.

    Args:
        label: int (N,), true classes.
        logits: float (N, C).
        weight: float (N,), weights of the utterances.
        dialogue: (N,), dialogue of each utterance; there are two or more.
    """
    losses = {strength: np.empty(len(label)) for strength in (np.inf, *STRENGTHS)}
    with threadpool_limits(1):  # many small fits: several threads would slow them down
        for train, held_out in dialogue_folds(label, dialogue, FOLDS):
            for strength, loss in losses.items():
                part = label[train], logits[train], weight[train]
                is_alone = strength == np.inf
                temperature, biases = (fit_temperature(*part), 0.0) if is_alone else fit_biases(*part, strength)
                logs = log_softmax((logits[held_out] + biases) / temperature, axis=1)
                loss[held_out] = -weight[held_out] * logs[np.arange(len(held_out)), label[held_out]]
        strength = min(STRENGTHS, key=lambda strength: losses[strength].sum())
        _, index = np.unique(dialogue, return_inverse=True)
        gain = np.bincount(index, losses[np.inf] - losses[strength])
        error = gain.std(ddof=1) * np.sqrt(len(gain))
        return fit_biases(label, logits, weight, strength)[1] if gain.sum() > error else np.zeros(logits.shape[1])


def fit_biases(label: np.ndarray, logits: np.ndarray, weight: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    """Fits the temperature T and biases b that minimise the mean cross-entropy of softmax((logits + b) / T), penalised.

    Args:
        label: int (N,), true classes.
        logits: float (N, C).
        weight: float (N,), weights of the utterances.
        strength: factor of the penalty |b|^2 / 2.

    Returns:
        The temperature, and the biases float (C,), whose mean is 0.
    """
    classes, rows = logits.shape[1], np.arange(len(label))
    logits, share, target = logits.astype(np.float64), weight / weight.sum(), np.eye(classes)[label]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, biases = np.exp(-parameters[0]), parameters[1:]
        scaled = scale * (logits + biases)
        logs = log_softmax(scaled, axis=1)
        error = share[:, None] * (np.exp(logs) - target)
        gradient = np.concatenate([[-(error * scaled).sum()], scale * error.sum(axis=0) + strength * biases])
        return -float(share @ logs[rows, label]) + strength * float(biases @ biases) / 2, gradient

    bounds = [np.log(RANGE), *[(None, None)] * classes]
    parameters = minimize(loss, np.zeros(1 + classes), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(np.exp(parameters[0])), parameters[1:]
