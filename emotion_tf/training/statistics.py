"""What a training needs to know of all its utterances: 14 bytes a record, and the number of each different word."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from emotion_tf.config import Config
from emotion_tf.data import context
from emotion_tf.data.tokenizer import WordVocabulary, count_words
from emotion_tf.errors import UserError
from emotion_tf.modalities import FACE, TEXT

CHUNK = 4096
"""Number of utterances that are held at a time."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of N utterances.

    Attributes:
        label: class of each utterance, int64 (N,).
        weight: weight of each utterance, float32 (N,).
        is_present: modality -> whether each utterance has it, bool (N,). As in the model, text is present if the
            utterance, or a line of the context that is read, is not empty.
        words: the most frequent words of the texts that the word branches read, with speakers if the model reads them.
    """

    label: np.ndarray
    weight: np.ndarray
    is_present: Mapping[str, np.ndarray]
    words: WordVocabulary

    def absent_shares(self, config: Config) -> dict[str, float]:
        """Returns, for each modality, the weighted share of the rows that lack it, or lose it to modality dropout."""
        weight = self.weight.astype(np.float64)
        kept = (1 - config.fusion.modality_dropout) / weight.sum()
        return {name: 1 - kept * float(weight[self.is_present[name]].sum()) for name in config.towers}


def collect_statistics(config: Config, rows: Iterable[Mapping[str, Any]]) -> Statistics:
    """Collects the statistics of rows as `pipeline.read_rows` yields them, `CHUNK` at a time.

    Raises:
        UserError: a text tower is trained, and no utterance has a text; or a face tower alone, and none has a face.
    """
    label, weight = array("q"), array("f")
    is_present = {TEXT: array("b"), FACE: array("b")}
    counts: Counter[bytes] = Counter()
    lines = [name for name in ("context", "future") if getattr(config.text, name)]
    with_speaker = bool(lines or config.text.speaker)
    has_text = False
    rest = iter(rows)
    while chunk := list(islice(rest, CHUNK)):
        label.extend(row["label"] for row in chunk)
        weight.extend(row["weight"] for row in chunk)
        is_written = [bool(row["utterance"].strip()) for row in chunk]
        has_text = has_text or any(is_written)
        is_present[TEXT].extend(
            own or any(row[name] for name in lines) for own, row in zip(is_written, chunk, strict=True)
        )
        is_present[FACE].extend(bool(row["faces"]) for row in chunk)
        counts.update(count_words(_texts(chunk, with_speaker)))
    if config.uses_text and not has_text:
        raise UserError(f"{config.data} has no text to learn from. Expected --towers face with such data.")
    if not config.uses_text and not any(is_present[FACE]):
        raise UserError(f"{config.data} has no face to learn from. Expected --towers text with such data.")
    return Statistics(
        np.array(label, np.int64),
        np.array(weight, np.float32),
        {name: np.array(values, bool) for name, values in is_present.items()},
        WordVocabulary.from_counts(counts, config.text.vocabulary_size),
    )


def _texts(rows: Iterable[Mapping[str, Any]], with_speaker: bool) -> list[str]:
    if with_speaker:
        return [context.format_line(row["speaker"], row["utterance"]) for row in rows]
    return [row["utterance"] for row in rows]
