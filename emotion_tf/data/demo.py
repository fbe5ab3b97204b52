"""The built-in demo data set: dialogues from a small grammar with drawn faces, and the best accuracy anyone can reach.

Every utterance has an emotion, a kind of text and a kind of face (see `demo_text` and `demo_faces`). Text and face are
drawn from their kinds alone, so the kinds are all that can be learnt from them, and the joint table
P(emotion, text kind, face kind) gives the exact posterior of the emotion: from the text, from the face, from both.

In a dialogue the emotions are independent, with one exception, the answers: after an utterance whose text tells its
emotion, the next speaker may answer "Yes, me too, Tavo." and then feels the same. The text of an answer is compatible
with all emotions; with the text before it, it tells exactly one.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from emotion_tf.data import demo_faces, demo_text
from emotion_tf.data.demo_faces import EXPRESSIONS, FACE_KINDS, HIDDEN, NO_FACE, Face
from emotion_tf.data.demo_text import ECHO, SPEAKERS, SPLIT_SHARES, SPLITS, TEMPLATES, TextSource
from emotion_tf.errors import UserError

COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
EMOTIONS = tuple(EXPRESSIONS)
TEXT_KINDS = tuple(TEMPLATES)
PRIOR = dict(zip(EMOTIONS, (0.26, 0.17, 0.13, 0.14, 0.12, 0.09, 0.09), strict=True))
DIALOGUE_LENGTHS = (5, 12)
CAST_SIZES = (2, 4)
FACES_PER_UTTERANCE = {1: 0.8, 2: 0.13, 3: 0.07}
# Of the utterances that are not answers: (text, face) with `open` leaving several emotions, and of two that are open
# `decided` if only one emotion is compatible with both. The same for every emotion.
CELLS = {
    ("tells", "tells"): 0.40,
    ("tells", "open"): 0.125,
    ("tells", HIDDEN): 0.07,
    ("tells", NO_FACE): 0.09,
    ("open", "tells"): 0.215,
    ("open", "decided"): 0.08,
    ("open", "undecided"): 0.011,
    ("open", HIDDEN): 0.005,
    ("open", NO_FACE): 0.004,
}
ANSWER_FACES = {"tells": 0.8, "open": 0.08, HIDDEN: 0.05, NO_FACE: 0.07}
ANSWER_RATE = 0.145  # after an utterance whose text tells its emotion
CERTAIN = 0.999
UNDECIDABLE_LIMIT = 0.05
FEWEST_UTTERANCES = 200
FACE_SIZES = (32, 512)
# Above this share of the grammar, drawing texts that were not used yet becomes slow and may fail in a small split.
GRAMMAR_FILL = 0.5


@dataclass(frozen=True)
class DemoRow:
    """One utterance with everything that made it; `template` and `words` give the text, `faces` draw the pictures."""

    split: str
    dialogue_id: int
    utterance_id: int
    speaker: str
    utterance: str
    emotion: str
    text_kind: str
    face_kind: str
    template: str
    words: tuple[str, ...]
    faces: tuple[Face, ...]

    def face_paths(self) -> tuple[str, ...]:
        """Where the pictures go, relative to the manifest."""
        stem = f"faces/{self.split}/d{self.dialogue_id:05d}_u{self.utterance_id:02d}"
        return tuple(f"{stem}_{number}.jpg" for number in range(len(self.faces)))


def write_demo(folder: Path, utterances: int = 4000, seed: int = 0, face_size: int = 48) -> dict:
    """Write `folder/manifest.csv` and the face crops it names, `folder/faces/SPLIT/*.jpg`.

    The files are a function of (utterances, seed, face_size), byte for byte.

    Args:
        folder: created if need be; must not hold a manifest or faces yet.
        utterances: rows in all, about 70/10/20 % train/dev/test, from 200 to `max_utterances()`.
        seed: zero or more.
        face_size: side of the square colour crops, pixels.

    Returns:
        A description of the generator for JSON: see `describe`.

    Raises:
        UserError: a bad argument, or a folder that is in use.
    """
    _check(utterances, seed, face_size)
    folder = Path(folder)
    for used in (folder / "manifest.csv", folder / "faces"):
        if used.exists():
            raise UserError(f"Invalid `folder`: {used} exists already. Give a new or empty folder.")
    rows, symbols = plan_demo(utterances, seed)
    for split in SPLITS:
        (folder / "faces" / split).mkdir(parents=True, exist_ok=True)
    for row in rows:
        for path, face in zip(row.face_paths(), row.faces, strict=True):
            (folder / path).write_bytes(demo_faces.encode_face(face, face_size))
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([*(getattr(row, name) for name in COLUMNS[:-1]), ";".join(row.face_paths())])
    asked = {"seed": int(seed), "utterances": int(utterances), "face_size": int(face_size)}
    return {"generator": "demo"} | asked | describe(symbols)


def describe(symbols: dict[str, np.ndarray]) -> dict:
    """What is known of each split from the generator.

    Args:
        symbols: for each split an array as `sample_dialogue` returns it.

    Returns:
        A dict for JSON. `best_accuracy` is the expected accuracy of the Bayes classifier on the rows of the split, the
        mean of the largest posterior probability: no model can do better but by luck. `bayes_accuracy` is what that
        classifier gets right in this very sample. `undecidable` counts rows whose emotion text and face leave open
        without context. `shares` are parts of the rows.
    """
    info: dict = {"best_accuracy": {}, "bayes_accuracy": {}, "undecidable": {"limit": UNDECIDABLE_LIMIT}, "shares": {}}
    for split, rows in symbols.items():
        beliefs = posteriors(rows)
        known = {view: belief.max(axis=1) for view, belief in beliefs.items()}
        info["best_accuracy"][split] = {view: round(float(best.mean()), 6) for view, best in known.items()}
        info["bayes_accuracy"][split] = {
            view: round(float((belief.argmax(axis=1) == rows[:, 0]).mean()), 6) for view, belief in beliefs.items()
        }
        doubtful = known["both"] < CERTAIN
        info["undecidable"][split] = {"rows": int(doubtful.sum()), "share": round(float(doubtful.mean()), 6)}
        counts = np.bincount(rows[:, 0], minlength=len(EMOTIONS)) / len(rows)
        info["shares"][split] = {
            "emotions": {name: round(float(share), 6) for name, share in zip(EMOTIONS, counts, strict=True)},
            "text_does_not_tell": round(float((known["text"] < CERTAIN).mean()), 6),
            "face_does_not_tell": round(float((known["face"] < CERTAIN).mean()), 6),
            "no_face": round(float((rows[:, 2] == FACE_KINDS.index(NO_FACE)).mean()), 6),
            "answers": round(float((rows[:, 1] == TEXT_KINDS.index(ECHO)).mean()), 6),
        }
    return info


def compatible(kind: str) -> tuple[str, ...]:
    """The emotions that a kind of text or face leaves possible."""
    return EMOTIONS if kind in (ECHO, HIDDEN, NO_FACE) else tuple(kind.split("|"))


@cache
def fresh_joint() -> np.ndarray:
    """P(emotion, text kind, face kind) of an utterance that is not an answer: float64 (E, T, F), sums to 1."""
    joint = np.zeros((len(EMOTIONS), len(TEXT_KINDS), len(FACE_KINDS)))
    for e, emotion in enumerate(EMOTIONS):
        for (text, face), share in CELLS.items():
            pairs = [(t, f) for t in _kinds(TEXT_KINDS, text, emotion) for f in _kinds(FACE_KINDS, face, emotion)]
            if face in ("decided", "undecided"):
                pairs = [(t, f) for t, f in pairs if (len(_shared(t, f)) == 1) == (face == "decided")]
            for t, f in pairs:
                joint[e, TEXT_KINDS.index(t), FACE_KINDS.index(f)] += PRIOR[emotion] * share / len(pairs)
    return joint


@cache
def answer_faces() -> np.ndarray:
    """P(face kind | emotion) of an answer: float64 (E, F), rows sum to 1."""
    table = np.zeros((len(EMOTIONS), len(FACE_KINDS)))
    for e, emotion in enumerate(EMOTIONS):
        for face, share in ANSWER_FACES.items():
            kinds = _kinds(FACE_KINDS, face, emotion)
            table[e, [FACE_KINDS.index(kind) for kind in kinds]] += share / len(kinds)
    return table


@cache
def joint() -> np.ndarray:
    """P(emotion, text kind, face kind) of any utterance, answers among them: float64 (E, T, F), sums to 1."""
    telling = fresh_joint()[:, _telling()].sum(axis=(1, 2))
    # An answer's emotion is that of the utterance before it, so it is spread as that of the telling texts.
    answers = (telling / telling.sum())[:, None] * answer_faces()
    share = _answer_share(float(telling.sum()))
    table = (1 - share) * fresh_joint()
    table[:, TEXT_KINDS.index(ECHO)] = share * answers
    return table


def posteriors(symbols: np.ndarray) -> dict[str, np.ndarray]:
    """The exact posterior of the emotion of every row.

    Args:
        symbols: int (N, 4) as `sample_dialogue` returns it.

    Returns:
        float64 (N, E) under `text`, `face`, `both` (text and face), `both_with_context` and `text_with_context`, where
        the context is the text of the utterance before.
    """
    _, text, face, before = symbols.T
    views = {"text": joint().sum(axis=2)[:, text], "face": joint().sum(axis=1)[:, face], "both": joint()[:, text, face]}
    beliefs = {view: (mass / mass.sum(axis=0)).T for view, mass in views.items()}
    answer = text == TEXT_KINDS.index(ECHO)
    for view in ("both", "text"):
        # What is not an answer does not depend on what came before, so that only answers gain.
        beliefs[f"{view}_with_context"] = np.where(answer[:, None], np.eye(len(EMOTIONS))[before], beliefs[view])
    return beliefs


def sample_dialogue(length: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the symbols of a dialogue: int64 (length, 4) of emotion, text kind, face kind, emotion of the row before.

    The numbers index `EMOTIONS`, `TEXT_KINDS`, `FACE_KINDS` and `EMOTIONS`; the last is 0 in the first row.
    """
    rows = np.zeros((length, 4), np.int64)
    chance = rng.random((length, 2))
    fresh, faces = _cumulated()
    echo = TEXT_KINDS.index(ECHO)
    for i in range(length):
        before = rows[i - 1]
        if i and before[1] in _telling() and chance[i, 0] < ANSWER_RATE:
            face = int(np.searchsorted(faces[before[0]], chance[i, 1], side="right"))
            rows[i, :3] = before[0], echo, face
        else:
            rows[i, :3] = np.unravel_index(np.searchsorted(fresh, chance[i, 1], side="right"), fresh_joint().shape)
        rows[i, 3] = before[0] if i else 0
    return rows


@cache
def max_utterances() -> int:
    """How many utterances the grammar is good for."""
    shares = joint().sum(axis=(0, 2))
    people = len(SPEAKERS) - CAST_SIZES[1]
    return min(
        int(GRAMMAR_FILL * demo_text.combinations(kind, people) / share)
        for kind, share in zip(TEXT_KINDS, shares, strict=True)
    )


def plan_demo(utterances: int, seed: int) -> tuple[list[DemoRow], dict[str, np.ndarray]]:
    """Everything of a demo data set but its pixels: the rows in order, and the symbols of each split, int (N, 4)."""
    rows: list[DemoRow] = []
    symbols: dict[str, np.ndarray] = {}
    dev = round(SPLIT_SHARES[1] * utterances)
    train = round(SPLIT_SHARES[0] * utterances)
    first_dialogue = 0
    for number, (split, size) in enumerate(zip(SPLITS, (train, dev, utterances - train - dev), strict=True)):
        dialogues = _sample_split(size, seed, number)
        rng = np.random.default_rng([seed, number, 2, 1])
        source = TextSource(split, rng)
        for dialogue_id, dialogue in enumerate(dialogues, first_dialogue):
            rows += _stage(dialogue, dialogue_id, source, rng)
        first_dialogue += len(dialogues)
        symbols[split] = np.concatenate(dialogues)
    return rows, symbols


def _check(utterances: int, seed: int, face_size: int) -> None:
    limits = {
        "utterances": (utterances, FEWEST_UTTERANCES, max_utterances()),
        "seed": (seed, 0, 2**32 - 1),
        "face_size": (face_size, *FACE_SIZES),
    }
    for name, (value, low, high) in limits.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"Invalid `{name}`. Expected a whole number from {low} to {high}. Received: {value!r}.")


def _kinds(kinds: tuple[str, ...], group: str, emotion: str) -> list[str]:
    """The kinds of a group of `CELLS` that are compatible with an emotion."""
    if group in (HIDDEN, NO_FACE):
        return [group]
    if group == "tells":
        return [emotion]
    return [kind for kind in kinds if "|" in kind and emotion in compatible(kind)]


def _shared(text: str, face: str) -> set[str]:
    return set(compatible(text)) & set(compatible(face))


@cache
def _telling() -> tuple[int, ...]:
    """The numbers of the text kinds that leave one emotion."""
    return tuple(t for t, kind in enumerate(TEXT_KINDS) if len(compatible(kind)) == 1)


@cache
def _cumulated() -> tuple[np.ndarray, np.ndarray]:
    """Cumulated probabilities to draw from: float64 (E*T*F,) and (E, F), both ending at 1."""
    fresh = np.cumsum(fresh_joint().ravel())
    faces = np.cumsum(answer_faces(), axis=1)
    return fresh / fresh[-1], faces / faces[:, -1:]


def _answer_share(telling: float) -> float:
    """The expected part of answers among all utterances, when a part `telling` of the others has a telling text."""
    shortest, longest = DIALOGUE_LENGTHS
    chances = [0.0]
    while len(chances) < longest:
        chances.append(ANSWER_RATE * telling * (1 - chances[-1]))
    lengths = range(shortest, longest + 1)
    return sum(sum(chances[:length]) for length in lengths) / sum(lengths)


def _sample_split(size: int, seed: int, number: int) -> list[np.ndarray]:
    """The symbols of the dialogues of a split, drawn anew until no more rows are undecidable than promised."""
    for attempt in range(1, 1000):
        rng = np.random.default_rng([seed, number, 1, attempt])
        dialogues = [sample_dialogue(length, rng) for length in _lengths(size, rng)]
        doubtful = posteriors(np.concatenate(dialogues))["both"].max(axis=1) < CERTAIN
        if doubtful.mean() <= UNDECIDABLE_LIMIT:
            return dialogues
    raise UserError(f"Invalid `seed`: {seed} gives too many undecidable rows. Try another.")


def _lengths(size: int, rng: np.random.Generator) -> list[int]:
    """Lengths of dialogues that sum to `size`."""
    shortest, longest = DIALOGUE_LENGTHS
    lengths: list[int] = []
    while size > longest:
        lengths.append(min(int(rng.integers(shortest, longest + 1)), size - shortest))
        size -= lengths[-1]
    return [*lengths, size]


def _stage(dialogue: np.ndarray, dialogue_id: int, source: TextSource, rng: np.random.Generator) -> list[DemoRow]:
    """Give a dialogue its people, words and faces.

    The cast is new in every dialogue: names come again, but the person behind a name is drawn for this dialogue.
    """
    size = int(rng.integers(CAST_SIZES[0], CAST_SIZES[1] + 1))
    cast = [SPEAKERS[i] for i in rng.choice(len(SPEAKERS), size, replace=False)]
    people = {name: demo_faces.draw_identity(rng) for name in cast}
    rows: list[DemoRow] = []
    before = ""
    for utterance_id, (e, t, f, _) in enumerate(dialogue.tolist()):
        others = [name for name in cast if name != before]
        speaker = others[int(rng.integers(len(others)))]
        drawn = source.draw(TEXT_KINDS[t], cast, before)
        if drawn is None:
            raise UserError(f"Invalid `utterances`: the grammar has no more {TEXT_KINDS[t]!r} texts. Ask for fewer.")
        kinds = (EMOTIONS[e], TEXT_KINDS[t], FACE_KINDS[f])
        text, template, words = drawn
        faces = _film(people[speaker], FACE_KINDS[f], rng)
        rows.append(DemoRow(source.split, dialogue_id, utterance_id, speaker, text, *kinds, template, words, faces))
        before = speaker
    return rows


def _film(identity: demo_faces.Identity, kind: str, rng: np.random.Generator) -> tuple[Face, ...]:
    """The crops of an utterance: no, one or a few of the same face, the head moving a little from one to the next."""
    if kind == NO_FACE:
        return ()
    count = int(rng.choice(list(FACES_PER_UTTERANCE), p=list(FACES_PER_UTTERANCE.values())))
    expression = demo_faces.draw_expression(kind, rng)
    shots = [demo_faces.draw_shot(rng)]
    while len(shots) < count:
        shots.append(demo_faces.next_shot(shots[-1], rng))
    return tuple(Face(identity, expression, shot) for shot in shots)
