"""The distribution of the demo data set: emotions, kinds of text and face, and the exact posteriors.

Every utterance has an emotion, a kind of text and a kind of face (see `demo_text` and `demo_faces`). The text and the
images depend on their kinds only. The joint table P(emotion, text kind, face kind) therefore gives the exact posterior
of the emotion from the text, from the face, and from both.

The emotions of a dialogue are independent, except for answers. After an utterance whose text determines its emotion,
the next speaker may answer "Yes, me too, Tavo." and has the same emotion. The text of an answer is compatible with all
emotions; together with the previous text, it determines one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from emotion_tf.data.demo_faces import EXPRESSIONS, FACE_KINDS, HIDDEN, NO_FACE
from emotion_tf.data.demo_text import ECHO, TEMPLATES

EMOTIONS = tuple(EXPRESSIONS)
TEXT_KINDS = tuple(TEMPLATES)
PRIOR = dict(zip(EMOTIONS, (0.26, 0.17, 0.13, 0.14, 0.12, 0.09, 0.09), strict=True))
DIALOGUE_LENGTHS = (5, 12)
# Shares of (text, face) among utterances that are not answers, equal for all emotions. `clear` determines the emotion,
# `ambiguous` leaves several; an ambiguous face is `decided` if only one emotion is compatible with both text and face.
CELLS = {
    ("clear", "clear"): 0.40,
    ("clear", "ambiguous"): 0.125,
    ("clear", HIDDEN): 0.07,
    ("clear", NO_FACE): 0.09,
    ("ambiguous", "clear"): 0.215,
    ("ambiguous", "decided"): 0.08,
    ("ambiguous", "undecided"): 0.011,
    ("ambiguous", HIDDEN): 0.005,
    ("ambiguous", NO_FACE): 0.004,
}
ANSWER_FACES = {"clear": 0.8, "ambiguous": 0.08, HIDDEN: 0.05, NO_FACE: 0.07}
ANSWER_RATE = 0.145  # after an utterance whose text determines its emotion
CERTAIN = 0.999
UNDECIDABLE_LIMIT = 0.05


def compatible(kind: str) -> tuple[str, ...]:
    """Returns the emotions that are compatible with a kind of text or face."""
    return EMOTIONS if kind in (ECHO, HIDDEN, NO_FACE) else tuple(kind.split("|"))


@cache
def fresh_joint() -> np.ndarray:
    """Returns P(emotion, text kind, face kind) of utterances that are not answers, float64 (E, T, F)."""
    joint = np.zeros((len(EMOTIONS), len(TEXT_KINDS), len(FACE_KINDS)))
    for e, emotion in enumerate(EMOTIONS):
        for (text, face), share in CELLS.items():
            pairs = [(t, f) for t in _kinds(TEXT_KINDS, text, emotion) for f in _kinds(FACE_KINDS, face, emotion)]
            if face in ("decided", "undecided"):
                pairs = [(t, f) for t, f in pairs if (len(_shared_emotions(t, f)) == 1) == (face == "decided")]
            for t, f in pairs:
                joint[e, TEXT_KINDS.index(t), FACE_KINDS.index(f)] += PRIOR[emotion] * share / len(pairs)
    return joint


@cache
def answer_faces() -> np.ndarray:
    """Returns P(face kind | emotion) of answers, float64 (E, F)."""
    table = np.zeros((len(EMOTIONS), len(FACE_KINDS)))
    for e, emotion in enumerate(EMOTIONS):
        for face, share in ANSWER_FACES.items():
            kinds = _kinds(FACE_KINDS, face, emotion)
            table[e, [FACE_KINDS.index(kind) for kind in kinds]] += share / len(kinds)
    return table


@cache
def joint() -> np.ndarray:
    """Returns P(emotion, text kind, face kind) of all utterances, including answers, float64 (E, T, F)."""
    clear = fresh_joint()[:, _clear_texts()].sum(axis=(1, 2))
    # An answer has the emotion of the utterance before it, whose text determines its emotion.
    answers = (clear / clear.sum())[:, None] * answer_faces()
    share = _answer_share(float(clear.sum()))
    table = (1 - share) * fresh_joint()
    table[:, TEXT_KINDS.index(ECHO)] = share * answers
    return table


def posteriors(symbols: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the exact posterior of the emotion of every row.

    Args:
        symbols: int (N, 4) as `sample_dialogue` returns it.

    Returns:
        float64 (N, E) for `text`, `face`, `both` (text and face), `both_with_context` and `text_with_context`, where
        the context is the text of the previous utterance.
    """
    _, text, face, before = symbols.T
    views = {"text": joint().sum(axis=2)[:, text], "face": joint().sum(axis=1)[:, face], "both": joint()[:, text, face]}
    beliefs = {view: (mass / mass.sum(axis=0)).T for view, mass in views.items()}
    answer = text == TEXT_KINDS.index(ECHO)
    for view in ("both", "text"):
        # only answers depend on the context
        beliefs[f"{view}_with_context"] = np.where(answer[:, None], np.eye(len(EMOTIONS))[before], beliefs[view])
    return beliefs


def sample_dialogue(length: int, rng: np.random.Generator) -> np.ndarray:
    """Samples the symbols of a dialogue, int64 (length, 4): emotion, text kind, face kind, previous emotion.

    The values are indices of `EMOTIONS`, `TEXT_KINDS`, `FACE_KINDS` and `EMOTIONS`; the last is 0 in the first row.
    """
    rows = np.zeros((length, 4), np.int64)
    chance = rng.random((length, 2))
    fresh, faces = _cumulative()
    echo = TEXT_KINDS.index(ECHO)
    for i in range(length):
        before = rows[i - 1]
        if i and before[1] in _clear_texts() and chance[i, 0] < ANSWER_RATE:
            face = int(np.searchsorted(faces[before[0]], chance[i, 1], side="right"))
            rows[i, :3] = before[0], echo, face
        else:
            rows[i, :3] = np.unravel_index(np.searchsorted(fresh, chance[i, 1], side="right"), fresh_joint().shape)
        rows[i, 3] = before[0] if i else 0
    return rows


def describe(symbols: dict[str, np.ndarray]) -> dict[str, Any]:
    """Describes the splits, with the accuracies that a model can reach.

    Args:
        symbols: split -> symbols, as `sample_dialogue` returns them.

    Returns:
        A dict for JSON. `best_accuracy` is the expected accuracy of the Bayes classifier on the rows of the split: the
        mean of the largest posterior probability, which no model exceeds except by chance. `bayes_accuracy` is the
        accuracy of that classifier on this sample. `undecidable` counts the rows whose text and face do not determine
        the emotion without context. `shares` are relative to the rows.
    """
    description: dict = {
        "best_accuracy": {},
        "bayes_accuracy": {},
        "undecidable": {"limit": UNDECIDABLE_LIMIT},
        "shares": {},
    }
    for split, rows in symbols.items():
        beliefs = posteriors(rows)
        confidence = {view: belief.max(axis=1) for view, belief in beliefs.items()}
        description["best_accuracy"][split] = {view: round(float(best.mean()), 6) for view, best in confidence.items()}
        description["bayes_accuracy"][split] = {
            view: round(float((belief.argmax(axis=1) == rows[:, 0]).mean()), 6) for view, belief in beliefs.items()
        }
        doubtful = confidence["both"] < CERTAIN
        description["undecidable"][split] = {"rows": int(doubtful.sum()), "share": round(float(doubtful.mean()), 6)}
        counts = np.bincount(rows[:, 0], minlength=len(EMOTIONS)) / len(rows)
        description["shares"][split] = {
            "emotions": {name: round(float(share), 6) for name, share in zip(EMOTIONS, counts, strict=True)},
            "ambiguous_text": round(float((confidence["text"] < CERTAIN).mean()), 6),
            "ambiguous_face": round(float((confidence["face"] < CERTAIN).mean()), 6),
            "no_face": round(float((rows[:, 2] == FACE_KINDS.index(NO_FACE)).mean()), 6),
            "answers": round(float((rows[:, 1] == TEXT_KINDS.index(ECHO)).mean()), 6),
        }
    return description


def _kinds(kinds: tuple[str, ...], group: str, emotion: str) -> list[str]:
    """Returns the kinds of a group of `CELLS` that are compatible with an emotion."""
    if group in (HIDDEN, NO_FACE):
        return [group]
    if group == "clear":
        return [emotion]
    return [kind for kind in kinds if "|" in kind and emotion in compatible(kind)]


def _shared_emotions(text: str, face: str) -> set[str]:
    return set(compatible(text)) & set(compatible(face))


@cache
def _clear_texts() -> tuple[int, ...]:
    """Returns the indices of the kinds of text that determine the emotion."""
    return tuple(t for t, kind in enumerate(TEXT_KINDS) if len(compatible(kind)) == 1)


@cache
def _cumulative() -> tuple[np.ndarray, np.ndarray]:
    """Returns cumulative probabilities for sampling, float64 (E*T*F,) and (E, F)."""
    fresh = np.cumsum(fresh_joint().ravel())
    faces = np.cumsum(answer_faces(), axis=1)
    return fresh / fresh[-1], faces / faces[:, -1:]


def _answer_share(clear: float) -> float:
    """Returns the expected share of answers, given the share of other utterances whose text determines the emotion."""
    shortest, longest = DIALOGUE_LENGTHS
    chances = [0.0]
    while len(chances) < longest:
        chances.append(ANSWER_RATE * clear * (1 - chances[-1]))
    lengths = range(shortest, longest + 1)
    return sum(sum(chances[:length]) for length in lengths) / sum(lengths)
