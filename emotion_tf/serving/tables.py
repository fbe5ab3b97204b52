"""Reads a CSV of utterances and faces, and writes it with predictions, for `predict-table`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from emotion_tf.data import context
from emotion_tf.data.manifest import split_faces
from emotion_tf.errors import UserError
from emotion_tf.evaluation.csv_tables import read_csv
from emotion_tf.evaluation.report import write_predictions
from emotion_tf.faces import encode
from emotion_tf.serving.predictor import Predictor


def read_table(path: Path) -> pd.DataFrame:
    """Reads a CSV with a column utterance, faces (picture paths relative to the table, joined by ;), or both.

    With columns dialogue_id and speaker, earlier rows of a dialogue are the context of later ones.

    Raises:
        UserError: the table is not readable, has neither column, or has no row.
    """
    try:
        table = read_csv(path)
    except FileNotFoundError as error:
        raise UserError(
            f"Cannot read the table {path}: {error.strerror}. Expected a CSV file with a column utterance, faces, or "
            "both."
        ) from None
    if not {"utterance", "faces"} & set(table.columns):
        raise UserError(
            f"{path}: line 1: Neither a column utterance nor faces. Expected one of them. Received: "
            f"{', '.join(table.columns)}."
        )
    if table.empty:
        raise UserError(f"{path}: The table has no row. Expected one row per utterance below the header.")
    table.attrs["path"] = str(path)
    return table


def write_table(path: Path, table: pd.DataFrame, predictor: Predictor, abstain_below: float = 0.0) -> tuple[int, int]:
    """Predicts the emotion of each row and writes the table with columns `predicted` and `p_LABEL`.

    `predicted` is "abstained" where the predicted class has a probability below `abstain_below`.

    Returns:
        The number of rows, and the number of rows with nothing that the model reads.
    """
    blank = [""] * len(table)
    texts, speakers = list(table.get("utterance", blank)), list(table.get("speaker", blank))
    source = Path(table.attrs["path"])
    size = predictor.facts.face_size
    faces: list[Any] = [
        [
            encode.read_crop(source.parent / name, size, f"{source}: row {row}: ")
            for name in split_faces(f"{source}: row {row}", cell)
        ]
        or None
        for row, cell in enumerate(table.get("faces", blank), 1)
    ]
    contexts = None
    if "dialogue_id" in table and predictor.reads_context:
        lines = zip(table["dialogue_id"], speakers, texts, strict=True)
        contexts = context.previous_lines(list(lines), predictor.context)
    if predictor.speaker:
        texts = [context.format_line(speaker, text) for speaker, text in zip(speakers, texts, strict=True)]
    prediction = predictor.predict(texts, faces, contexts)
    rows = table.to_dict("records")
    answers = prediction.predicted, prediction.probabilities
    write_predictions(path, rows, predictor.labels, *answers, abstain_below, follow=True)
    return len(table), int((~prediction.has_input).sum())
