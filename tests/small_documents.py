"""A valid document of each kind that is read: functions that write and read it."""

from __future__ import annotations

import json

from helpers import ensemble_info, run_info

from emotion_tf import config
from emotion_tf.evaluation import results, vote
from emotion_tf.evaluation.calibration import Calibration, Temperatures, read_calibration, write_calibration
from emotion_tf.evaluation.selective import Threshold
from emotion_tf.run_info import read_run_info

LABELS = ("joy", "fear", "anger")
SCORES = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3.0}
METRICS = {
    "utterances": 9, "accuracy": 0.5, "weighted_f1": 0.5, "macro_f1": 0.5, "data": "d", "command": "c",
    "majority_floor": {"label": "joy", "accuracy": 0.5, "weighted_f1": 0.5},
    "per_class": {label: SCORES for label in LABELS}, "intervals": {"accuracy": [0.25, 0.75], "macro_f1": None},
}  # fmt: skip


def stacking():
    zeros = ((0.0,) * 3,) * 3
    return vote.Vote("stacking", coefficients=(zeros, zeros), bias=(0.0,) * 3, strength=1.0)


def calibration():
    own = {"text only": 2.0}
    return Calibration(Temperatures(1.5, own, {"all": (9, 3)}, (0.5, 0.0, 0.0)), (Threshold(0.8, 0.5, 0.4, 0.9),), 9, 3)


WRITE = {
    "run.json": lambda path: path.write_text(run_info(LABELS, absent_shares={"text": 0.5}, crops={"rate": 8.0})),
    "config.json": lambda path: path.write_text(config.to_json(config.Config())),
    "calibration.json": lambda path: write_calibration(path.parent, calibration()),
    "ensemble.json": lambda path: path.write_text(ensemble_info(LABELS, "ab")),
    "metrics.json": lambda path: path.write_text(json.dumps({"test": METRICS})),
    "cross-validated metrics.json": lambda path: path.write_text(
        json.dumps({"pooled": [METRICS], "command": "c", "data": "d", "folds": []})
    ),
}
READ = {
    "run.json": lambda path: read_run_info(path.parent),
    "config.json": config.read_config,
    "calibration.json": lambda path: read_calibration(path.parent),
    "ensemble.json": lambda path: vote.read_ensemble_info(path.parent),
    "metrics.json": lambda path: results.read_metrics(path.parent),
    "cross-validated metrics.json": lambda path: results.read_cross_validation(path.parent),
}
