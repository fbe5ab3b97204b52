"""The utterances of a data set as a run reads them, and those that are worth a look."""

from __future__ import annotations

import numpy as np

from emotion_tf import schema
from emotion_tf.data.context import format_lines, format_ragged_lines
from emotion_tf.data.dataset import Rows
from emotion_tf.interpret.batch import Scorer, Utterance

NAMES = ("dialogue_id", "utterance_id", "speaker", "utterance", "face_jpeg", "label", "context", "context_speaker")
MISTAKE, HIT, TORN = "confident mistake", "confident hit", "torn"


def read_utterances(scorer: Scorer, rows: Rows) -> list[Utterance]:
    """Utterances of a data set, in its order, as `Scorer.keep` gives it; later utterances are not read, as they are
    not by `predict`."""
    found = []
    for _, records in rows.enumerate_records().batch(256):
        parsed = schema.parse_examples(records, NAMES)
        said = format_ragged_lines(parsed["context"], parsed["context_speaker"]).to_list()
        utterance = parsed["utterance"]
        if scorer.run.config.text.speaker:
            utterance = format_lines(utterance, parsed["speaker"])
        columns = zip(
            *(parsed[name].numpy() for name in ("dialogue_id", "utterance_id", "label")),
            utterance.numpy(),
            parsed["face_jpeg"].to_list(),
            said,
            strict=True,
        )
        for dialogue, number, label, text, faces, context in columns:
            name = f"{dialogue.decode()}/{number.decode()}"
            before = [line.decode() for line in context]
            found.append(scorer.keep(Utterance(text.decode(), faces, before, name, int(label))))
    return found


def interesting(probabilities: np.ndarray, label: np.ndarray, k: int) -> list[tuple[int, str]]:
    """The k utterances to look at first, and why: a third each (mistakes first where k is no multiple of 3) of

    - the most confident mistakes,
    - the most torn: the two most probable classes are closest,
    - the most confident hits, of each class in turn.

    Args:
        probabilities: float (N, C).
        label: int (N,), the true classes.
        k: how many; fewer where there are not so many.
    """
    predicted, best = probabilities.argmax(axis=1), probabilities.max(axis=1)
    second = np.sort(probabilities, axis=1)[:, -2] if probabilities.shape[1] > 1 else np.zeros_like(best)
    by_confidence, right = np.argsort(-best, kind="stable"), predicted == label
    hits = by_confidence[right[by_confidence]]
    place = [int((predicted[hits[:n]] == predicted[i]).sum()) for n, i in enumerate(hits)]  # among those of its class
    queues = {
        MISTAKE: by_confidence[~right[by_confidence]],
        TORN: np.argsort(best - second, kind="stable"),
        HIT: hits[np.argsort(place, kind="stable")],
    }
    chosen: dict[int, str] = {}
    for n, (why, queue) in enumerate(queues.items()):
        free = [int(i) for i in queue if int(i) not in chosen]
        chosen |= dict.fromkeys(free[: -(-(k - len(chosen)) // (len(queues) - n))], why)
    return list(chosen.items())
