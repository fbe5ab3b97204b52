"""Predictions from raw strings and pictures, by a run, an ensemble or an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from emotion_tf import files
from emotion_tf.errors import UserError
from emotion_tf.evaluation.calibration import FILE as CALIBRATION
from emotion_tf.runs.ensemble import Ensemble, open_run
from emotion_tf.runs.export import Export
from emotion_tf.runs.facts import facts_of, is_export
from emotion_tf.runs.run import Run
from emotion_tf.serving.confined import open_model
from emotion_tf.serving.graph import ServingGraph
from emotion_tf.serving.predictor import Arrays, Predictor, check_answer, full_inputs


class RunPredictor(Predictor):
    """Predictions of a trained run or an ensemble.

    Attributes:
        run: the run or ensemble.
        graph: the functions of raw inputs that an export holds, too.
    """

    def __init__(self, run: Run | Ensemble) -> None:
        self.run, self.facts, self.source = run, facts_of(run), str(run.path)
        runs, vote = (run.members, run.vote) if isinstance(run, Ensemble) else ([run], None)
        self.graph = ServingGraph(runs, run.labels, run.spec.face_size, vote)
        # of an ensemble, those of its first member
        self.model, self.preprocess = self.graph.members[0].model, self.graph.members[0].preprocess

    @property
    def fingerprint(self) -> str:
        """A text that is another one for another model, or after a calibration."""
        members = self.run.members if isinstance(self.run, Ensemble) else [self.run]
        paths = [path for run in members for path in (run.model_path, run.path / CALIBRATION) if path.is_file()]
        return " ".join([super().fingerprint, *map(files.sha256, paths)])

    def _predict_batch(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        inputs = {name: tf.constant(value) for name, value in full_inputs(utterances, contexts, crops).items()}
        outputs = {name: value.numpy() for name, value in self.graph.full(inputs).items()}
        if not np.isfinite(outputs["probabilities"]).all():
            raise UserError(
                f"{self.source}: The model returns nan or infinite numbers. Train it again, or copy it again."
            )
        return outputs


class ExportPredictor(Predictor):
    """Predictions of an export.

    Args:
        export: the export.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, export: Export) -> None:
        self.facts, self.source = export.facts, str(export.path)
        self._saved_model = open_model(export)

    def _predict_batch(self, utterances: list[str], contexts: list[list[str]], crops: list[list[bytes]]) -> Arrays:
        inputs = full_inputs(utterances, contexts, crops)
        try:
            outputs = self._saved_model.run("serve_full", inputs)
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self.source}: serve_full fails: {' '.join(str(error).split())[:200]}.") from None
        return check_answer(outputs, inputs, self.facts, self.source)


def open_predictor(path: Path) -> Predictor:
    """Opens a run, an ensemble or an export. Raises UserError if `path` is none of them, or cannot be loaded."""
    return ExportPredictor(Export.open(path)) if is_export(path) else RunPredictor(open_run(path))
