"""Reads a CSV of utterances and faces, and writes it with predictions, for `predict-table`: part after part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice, tee
from pathlib import Path

import pandas as pd

from emotion_tf import trust
from emotion_tf.cluster import compute, once
from emotion_tf.csv_rows import read_rows
from emotion_tf.data import context
from emotion_tf.data.manifest import split_faces
from emotion_tf.errors import UserError
from emotion_tf.evaluation.csv_tables import to_csv, unescape
from emotion_tf.evaluation.report import with_predictions
from emotion_tf.faces import encode
from emotion_tf.folders import find_run
from emotion_tf.progress import track
from emotion_tf.runs.place import absolute
from emotion_tf.serving.answers import open_answers
from emotion_tf.serving.predictor import Prediction, Predictor

PART = 256
"""Number of rows that are read, predicted and written together."""
Row = dict[str, str]
Part = list[tuple[int, Row]]
"""Consecutive rows, each with its number from 1."""


def read_table(path: Path) -> Iterator[Row]:
    """Yields the rows of a CSV with a column utterance, faces (paths relative to the table, joined by ;), or both.

    With columns dialogue_id and speaker, earlier rows of a dialogue are the context of later ones.

    Raises:
        UserError: the table is not readable, has neither column, or has no row.
    """
    try:
        rows = read_rows(path)
        _, header = next(rows)
    except FileNotFoundError as error:
        raise UserError(
            f"Cannot read the table {path}: {error.strerror}. Expected a CSV file with a column utterance, faces, or "
            "both."
        ) from None
    names = [unescape(name) or f"Unnamed: {number}" for number, name in enumerate(header)]
    if not {"utterance", "faces"} & set(names):
        raise UserError(
            f"{path}: line 1: Neither a column utterance nor faces. Expected one of them. Received: {', '.join(names)}."
        )
    is_empty = True
    for _, cells in rows:
        yield dict(zip(names, map(unescape, cells), strict=True))
        is_empty = False
    if is_empty:
        raise UserError(f"{path}: The table has no row. Expected one row per utterance below the header.")


def count_rows(path: Path) -> int:
    """Returns the number of rows of a table. Raises UserError as `read_table`, before anything is predicted."""
    return sum(1 for _ in read_table(path))


def write_table(
    out: Path, path: Path, predictor: Predictor, total: int, abstain_below: float = 0.0, scheduler: str = ""
) -> tuple[int, int]:
    """Predicts the emotion of each row and writes the table with columns `predicted` and `p_LABEL`.

    `PART` rows are held, and as many lines of each dialogue as the model reads. A file that an interruption ended is
    continued.

    Args:
        out: the CSV to write.
        path: the table.
        predictor: the model.
        total: number of rows of the table.
        abstain_below: `predicted` is "abstained" where the predicted class has a smaller probability.
        scheduler: address of a scheduler of Dask, whose workers predict the parts; empty: `predictor` does.

    Returns:
        The number of rows, and the number of rows with nothing that the model reads.
    """
    lines = Lines(predictor)
    model = f"{predictor.fingerprint} {abstain_below}"
    with open_answers(out, model, lambda count: islice(read_table(path), count)) as answers:
        done = answers.progress.rows
        rows = enumerate(read_table(path), 1)
        for number, row in islice(rows, done):  # an earlier call has answered them
            lines.add(number, row)
        parts, written = tee(iter(lambda: list(islice(rows, PART)), []))  # workers are some parts ahead of the file
        inputs = ((part, [lines.add(*row) for row in part]) for part in parts)
        counts = -(-total // PART), "predicting"
        if scheduler:
            place = absolute(predictor.source), _identity(predictor), trust.trusts_everything(), Path(absolute(path))
            tasks = ((*place, *of_part) for of_part in inputs)
            predictions = compute(scheduler, predict_part, tasks, *counts, "part", done // PART)
        else:
            own = (predict_rows(*of_part, path, predictor) for of_part in inputs)
            predictions = track(own, *counts, "parts", done // PART)
        for prediction, part in zip(predictions, written, strict=False):
            table = pd.DataFrame([row for _, row in part])
            answer = prediction.predicted, prediction.probabilities
            table = with_predictions(table, predictor.labels, *answer, abstain_below)
            text = to_csv(table, header=not answers.progress.rows)
            answers.write([row for _, row in part], text, int((~prediction.has_input).sum()))
        return answers.progress.rows, answers.progress.unread


class Lines:
    """The lines before each row of a table in its dialogue, of which a model reads the last ones."""

    def __init__(self, predictor: Predictor) -> None:
        self.count = predictor.context if predictor.reads_context else 0
        self._of_dialogue: dict[str, deque[str]] = {}

    def add(self, number: int, row: Mapping[str, str]) -> list[str]:
        """Returns the lines before a row, oldest first, and adds its own. Without dialogues there are none."""
        if not self.count or "dialogue_id" not in row:
            return []
        lines = self._of_dialogue.setdefault(row["dialogue_id"], deque(maxlen=self.count))
        before = list(lines)
        if utterance := row.get("utterance", ""):
            lines.append(context.format_line(row.get("speaker", ""), utterance))
        return before


def predict_rows(rows: Part, contexts: list[list[str]], path: Path, predictor: Predictor) -> Prediction:
    """Predicts the emotion of some rows of a table.

    Args:
        rows: the rows.
        contexts: the lines before each row.
        path: the table, in whose folder the faces are.
        predictor: the model.

    Raises:
        UserError: a picture cannot be read.
    """
    size = predictor.facts.face_size
    texts, faces = [], []
    for number, row in rows:
        text, where = row.get("utterance", ""), f"{path}: row {number}"
        names = split_faces(where, row.get("faces", ""))
        crops = [encode.read_crop(path.parent / name, size, f"{where}: ") for name in names]
        faces.append(crops or None)
        texts.append(context.format_line(row.get("speaker", ""), text) if predictor.speaker else text)
    return predictor.predict(texts, faces, contexts)


def predict_part(
    run: str, identity: str, trusts_everything: bool, path: Path, rows: Part, contexts: list[list[str]]
) -> Prediction:
    """Predicts the emotion of some rows on a worker; `identity` is that of the command's model. See `predict_rows`."""
    return predict_rows(rows, contexts, path, _open(run, identity, trusts_everything))


@once
def _open(run: str, identity: str, trusts_everything: bool) -> Predictor:
    from emotion_tf.serving.predict import open_predictor

    with trust.everything(trusts_everything):
        predictor = open_predictor(find_run(Path(run)))
    if _identity(predictor) != identity:
        raise UserError(f"{run} is not the model of the command (sha256 differs). Copy it again.")
    return predictor


def _identity(predictor: Predictor) -> str:
    """Returns the fingerprint of a model, wherever it is."""
    return predictor.fingerprint.removeprefix(predictor.source)
