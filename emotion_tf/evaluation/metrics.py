"""Accuracy, precision, recall, F1 and the majority floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from emotion_tf.evaluation.reliability import calibration_error, class_calibration_errors, confidence_of


def weighted_f1(label: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Returns the headline metric: F1 of each class, averaged with the share of its true labels as weight.

    Args:
        label: int (N,), true classes.
        predicted: int (N,), predicted classes.
        weight: float (N,), or None for equal weights.
    """
    return float(f1_score(label, predicted, average="weighted", sample_weight=weight, zero_division=0))


def metrics(
    label: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    majority: int,
    weight: np.ndarray | None = None,
) -> dict[str, Any]:
    """Returns all metrics of a split.

    Args:
        label: int (N,), true classes.
        predicted: int (N,), predicted classes; not always the most probable ones.
        probabilities: float (N, C), calibrated.
        labels: names of the C classes.
        majority: most frequent class in training, which the floor always predicts.
        weight: float (N,), or None for equal weights.

    Returns:
        A dict of numbers: accuracy, weighted_f1, macro_f1 (over classes that occur or are predicted), log_loss,
        expected_calibration_error, classwise_calibration_error (mean over classes), utterances, majority_floor,
        per_class and the confusion matrix (true classes in rows).
    """
    classes = np.arange(len(labels))
    floor = np.full_like(label, majority)
    return {
        "utterances": len(label),
        "accuracy": float(accuracy_score(label, predicted, sample_weight=weight)),
        "weighted_f1": weighted_f1(label, predicted, weight),
        "macro_f1": float(f1_score(label, predicted, average="macro", sample_weight=weight, zero_division=0)),
        "log_loss": _log_loss(label, probabilities, weight),
        "expected_calibration_error": calibration_error(
            predicted == label, confidence_of(probabilities, predicted), weight
        ),
        "classwise_calibration_error": float(class_calibration_errors(label, probabilities, weight).mean()),
        "majority_floor": {
            "label": labels[majority],
            "accuracy": float(accuracy_score(label, floor, sample_weight=weight)),
            "weighted_f1": weighted_f1(label, floor, weight),
        },
        "per_class": _per_class(label, predicted, probabilities, labels, weight),
        "confusion": confusion_matrix(label, predicted, labels=classes).tolist(),
    }


def _per_class(
    label: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    weight: np.ndarray | None,
) -> dict[str, dict[str, float]]:
    columns = (
        *precision_recall_fscore_support(
            label, predicted, labels=np.arange(len(labels)), sample_weight=weight, zero_division=0
        ),
        np.average(probabilities, axis=0, weights=weight),
        class_calibration_errors(label, probabilities, weight),
    )
    names = ("precision", "recall", "f1", "support", "mean_probability", "calibration_error")
    return {
        name: {column: float(values[i]) for column, values in zip(names, columns, strict=True)}
        for i, name in enumerate(labels)
    }


def _log_loss(label: np.ndarray, probabilities: np.ndarray, weight: np.ndarray | None) -> float:
    """Returns the log loss as scikit-learn's `log_loss` does, whose one-hot matrix and copies take 360 bytes a row."""
    of_label = confidence_of(probabilities, label) / probabilities.sum(axis=1, dtype=np.float64)
    least = np.finfo(np.float64).eps
    return -float(np.average(np.log(np.clip(of_label, least, 1 - least)), weights=weight))
