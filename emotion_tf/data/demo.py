"""The built-in demo data set: dialogues from a small grammar with drawn faces, and its known Bayes accuracy."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from emotion_tf.data import demo_drawing, demo_faces, demo_text
from emotion_tf.data.demo_distribution import (
    CERTAIN,
    DIALOGUE_LENGTHS,
    EMOTIONS,
    TEXT_KINDS,
    UNDECIDABLE_LIMIT,
    describe,
    joint,
    posteriors,
    sample_dialogue,
)
from emotion_tf.data.demo_faces import FACE_KINDS, NO_FACE, Face
from emotion_tf.data.demo_text import SPEAKERS, SPLIT_SHARES, SPLITS, TextSource
from emotion_tf.errors import UserError
from emotion_tf.progress import track

COLUMNS = ("split", "dialogue_id", "utterance_id", "speaker", "utterance", "emotion", "faces")
CAST_SIZES = (2, 4)
FACES_PER_UTTERANCE = {1: 0.8, 2: 0.13, 3: 0.07}
FEWEST_UTTERANCES = 200
FACE_SIZES = (32, 512)
# Above this share of the grammar, drawing unused texts becomes slow and may fail in a small split.
GRAMMAR_FILL = 0.5


@dataclass(frozen=True)
class DemoRow:
    """An utterance with all its parameters: `template` and `words` give the text, `faces` the images."""

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
        """Returns the paths of the images, relative to the manifest."""
        stem = f"faces/{self.split}/d{self.dialogue_id:05d}_u{self.utterance_id:02d}"
        return tuple(f"{stem}_{number}.jpg" for number in range(len(self.faces)))


def write_demo(folder: Path, utterances: int = 4000, seed: int = 0, face_size: int = 48) -> dict[str, Any]:
    """Writes `folder/manifest.csv` and the face crops `folder/faces/SPLIT/*.jpg`.

    The bytes of the files depend on (utterances, seed, face_size) only.

    Args:
        folder: created if it does not exist; must not have a manifest or faces.
        utterances: number of rows, about 70/10/20 % train/dev/test, from 200 to `max_utterances()`.
        seed: zero or more.
        face_size: side of the square face crops in pixels.

    Returns:
        A description of the generator for JSON; see `describe`.

    Raises:
        UserError: an invalid argument, or a folder that is in use.
    """
    _check(utterances, seed, face_size)
    folder = Path(folder)
    for existing in (folder / "manifest.csv", folder / "faces"):
        if existing.exists():
            raise UserError(f"Invalid `folder`: {existing} exists already. Give a new or empty folder.")
    rows, symbols = plan_demo(utterances, seed)
    for split in SPLITS:
        (folder / "faces" / split).mkdir(parents=True, exist_ok=True)
    for row in track(rows, len(rows), "drawing", "utterances"):
        for path, face in zip(row.face_paths(), row.faces, strict=True):
            (folder / path).write_bytes(demo_drawing.encode_face(face, face_size))
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([*(getattr(row, name) for name in COLUMNS[:-1]), ";".join(row.face_paths())])
    arguments = {"seed": int(seed), "utterances": int(utterances), "face_size": int(face_size)}
    return {"generator": "demo"} | arguments | describe(symbols)


def plan_demo(utterances: int, seed: int) -> tuple[list[DemoRow], dict[str, np.ndarray]]:
    """Samples a demo data set without its images: the rows in order, and the symbols int (N, 4) of each split."""
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
            rows += _realize(dialogue, dialogue_id, source, rng)
        first_dialogue += len(dialogues)
        symbols[split] = np.concatenate(dialogues)
    return rows, symbols


@cache
def max_utterances() -> int:
    """Returns the largest number of utterances that the grammar supports."""
    shares = joint().sum(axis=(0, 2))
    people = len(SPEAKERS) - CAST_SIZES[1]
    return min(
        int(GRAMMAR_FILL * demo_text.combinations(kind, people) / share)
        for kind, share in zip(TEXT_KINDS, shares, strict=True)
    )


def _check(utterances: int, seed: int, face_size: int) -> None:
    limits = {
        "utterances": (utterances, FEWEST_UTTERANCES, max_utterances()),
        "seed": (seed, 0, 2**32 - 1),
        "face_size": (face_size, *FACE_SIZES),
    }
    for name, (value, low, high) in limits.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
            raise UserError(f"Invalid `{name}`. Expected a whole number from {low} to {high}. Received: {value!r}.")


def _sample_split(size: int, seed: int, number: int) -> list[np.ndarray]:
    """Samples the symbols of a split until the share of undecidable rows is at most UNDECIDABLE_LIMIT."""
    for attempt in range(1, 1000):
        rng = np.random.default_rng([seed, number, 1, attempt])
        dialogues = [sample_dialogue(length, rng) for length in _lengths(size, rng)]
        doubtful = posteriors(np.concatenate(dialogues))["both"].max(axis=1) < CERTAIN
        if doubtful.mean() <= UNDECIDABLE_LIMIT:
            return dialogues
    raise UserError(f"Invalid `seed`: {seed} gives too many undecidable rows. Try another.")


def _lengths(size: int, rng: np.random.Generator) -> list[int]:
    """Samples lengths of dialogues that sum to `size`."""
    shortest, longest = DIALOGUE_LENGTHS
    lengths: list[int] = []
    while size > longest:
        lengths.append(min(int(rng.integers(shortest, longest + 1)), size - shortest))
        size -= lengths[-1]
    return [*lengths, size]


def _realize(dialogue: np.ndarray, dialogue_id: int, source: TextSource, rng: np.random.Generator) -> list[DemoRow]:
    """Samples the people, texts and faces of a dialogue.

    Names recur in other dialogues, but the person with a name is sampled for each dialogue.
    """
    size = int(rng.integers(CAST_SIZES[0], CAST_SIZES[1] + 1))
    cast = [SPEAKERS[i] for i in rng.choice(len(SPEAKERS), size, replace=False)]
    people = {name: demo_faces.sample_identity(rng) for name in cast}
    rows: list[DemoRow] = []
    previous = ""
    for utterance_id, (e, t, f, _) in enumerate(dialogue.tolist()):
        others = [name for name in cast if name != previous]
        speaker = others[int(rng.integers(len(others)))]
        draw = source.draw(TEXT_KINDS[t], cast, previous)
        if draw is None:
            raise UserError(f"Invalid `utterances`: the grammar has no more {TEXT_KINDS[t]!r} texts. Ask for fewer.")
        kinds = (EMOTIONS[e], TEXT_KINDS[t], FACE_KINDS[f])
        text, template, words = draw
        faces = _sample_faces(people[speaker], FACE_KINDS[f], rng)
        rows.append(DemoRow(source.split, dialogue_id, utterance_id, speaker, text, *kinds, template, words, faces))
        previous = speaker
    return rows


def _sample_faces(identity: demo_faces.Identity, kind: str, rng: np.random.Generator) -> tuple[Face, ...]:
    """Samples the faces of an utterance: none, or up to three shots of one face with small head movements."""
    if kind == NO_FACE:
        return ()
    count = int(rng.choice(list(FACES_PER_UTTERANCE), p=list(FACES_PER_UTTERANCE.values())))
    expression = demo_faces.sample_expression(kind, rng)
    shots = [demo_faces.sample_shot(rng)]
    while len(shots) < count:
        shots.append(demo_faces.sample_next_shot(shots[-1], rng))
    return tuple(Face(identity, expression, shot) for shot in shots)
