"""Utterances of a data set as a run reads them, and the selection of those to explain."""

from __future__ import annotations

import numpy as np

from emotion_tf import schema
from emotion_tf.data.batches import Batches
from emotion_tf.data.context import format_lines, format_ragged_lines
from emotion_tf.data.rows import Rows
from emotion_tf.evaluation.reliability import confidence_of
from emotion_tf.interpret.batch import Scorer, Utterance

NAMES = ("dialogue_id", "utterance_id", "speaker", "utterance", "face_jpeg", "label", "context", "context_speaker")
MISTAKE, HIT, UNDECIDED = "confident mistake", "confident and correct", "undecided"


def read_utterances(scorer: Scorer, rows: Rows) -> list[Utterance]:
    """Reads the utterances of a data set in its order, normalised by the scorer.

    Future utterances are left out, since `predict` does not have them either.
    """
    utterances = []
    for _, records in Batches(rows.enumerate_records().batch(256), rows.local_paths):
        parsed = schema.parse_examples(records, NAMES)
        contexts = format_ragged_lines(parsed["context"], parsed["context_speaker"]).to_list()
        texts = parsed["utterance"]
        if scorer.run.config.text.speaker:
            texts = format_lines(texts, parsed["speaker"])
        columns = zip(
            *(parsed[name].numpy() for name in ("dialogue_id", "utterance_id", "label")),
            texts.numpy(),
            parsed["face_jpeg"].to_list(),
            contexts,
            strict=True,
        )
        for dialogue, number, label, text, faces, context in columns:
            name = f"{dialogue.decode()}/{number.decode()}"
            before = [line.decode() for line in context]
            utterances.append(scorer.normalize(Utterance(text.decode(), faces, before, name, int(label))))
    return utterances


def select_utterances(
    predicted: np.ndarray, probabilities: np.ndarray, label: np.ndarray, k: int
) -> list[tuple[int, str]]:
    """Selects k utterances to explain, and returns the row and the reason of each.

    A third each (mistakes first if k is not a multiple of 3) are

    - the most confident mistakes,
    - the most undecided: the two most probable classes are closest,
    - the most confident correct predictions, of each class in turn.

    Args:
        predicted: int (N,), predicted classes.
        probabilities: float (N, C).
        label: int (N,), true classes.
        k: maximum number of utterances.
    """
    confidence, ordered = confidence_of(probabilities, predicted), np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if probabilities.shape[1] > 1 else confidence
    by_confidence, correct = np.argsort(-confidence, kind="stable"), predicted == label
    hits = by_confidence[correct[by_confidence]]
    rank = [int((predicted[hits[:n]] == predicted[i]).sum()) for n, i in enumerate(hits)]  # within its class
    queues = {
        MISTAKE: by_confidence[~correct[by_confidence]],
        UNDECIDED: np.argsort(margin, kind="stable"),
        HIT: hits[np.argsort(rank, kind="stable")],
    }
    selected: dict[int, str] = {}
    for n, (reason, queue) in enumerate(queues.items()):
        remaining = [int(i) for i in queue if int(i) not in selected]
        selected |= dict.fromkeys(remaining[: -(-(k - len(selected)) // (len(queues) - n))], reason)
    return list(selected.items())
