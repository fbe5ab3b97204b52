"""Parameters of the faces of the demo data set, and their distributions; `demo_drawing` draws them.

A face consists of three vectors: `Identity` (the person), `Expression` and `Shot` (how it was filmed). Only the
expression depends on the kind of face. The name of a kind lists the emotions that it is compatible with, joined by `|`:
`fear` shows fear, `surprise|fear` is half way between two. `hidden` covers brows, eyes and mouth; `none` is no face.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

NO_FACE = "none"
HIDDEN = "hidden"

# brow raise, brow tilt (inner ends up), eye opening, lower lid raised, mouth curve (corners up), mouth opening,
# mouth width, teeth, upper lip raised on one side, nose wrinkled
EXPRESSIONS: dict[str, tuple[float, ...]] = {
    "neutral": (0.0, 0.0, 0.6, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    "joy": (0.2, 0.0, 0.5, 0.6, 1.0, 0.4, 1.3, 1.0, 0.0, 0.0),
    "surprise": (1.0, 0.0, 1.15, 0.0, 0.0, 1.15, 0.6, 0.0, 0.0, 0.0),
    "anger": (-0.8, -1.1, 0.6, 0.2, -0.5, 0.0, 0.9, 0.0, 0.0, 0.2),
    "sadness": (0.1, 1.0, 0.35, 0.0, -1.0, 0.0, 0.85, 0.0, 0.0, 0.0),
    "disgust": (-0.5, -0.3, 0.35, 0.9, -0.4, 0.25, 0.95, 0.8, 1.0, 1.0),
    "fear": (0.8, 0.9, 1.15, 0.0, -0.3, 0.5, 1.35, 1.0, 0.0, 0.0),
}
BLENDS = ("surprise|fear", "anger|disgust", "sadness|fear", "joy|surprise", "neutral|sadness", "neutral|joy")
FACE_KINDS = (*EXPRESSIONS, *BLENDS, HIDDEN, NO_FACE)

SKIN_BGR = np.array([[196, 214, 243], [150, 184, 232], [110, 150, 206], [70, 104, 160], [44, 66, 104]], np.float64)
HAIR_BGR = ((30, 30, 34), (40, 58, 84), (60, 100, 150), (110, 180, 220), (50, 70, 170), (170, 170, 175))
IRIS_BGR = ((60, 40, 20), (40, 70, 100), (130, 100, 60), (80, 110, 70))
CLOTH_BGR = ((150, 90, 60), (70, 110, 80), (90, 70, 150), (90, 90, 90), (60, 130, 170))


@dataclass(frozen=True)
class Identity:
    """The person; the same in all utterances of a speaker in a dialogue."""

    width: float
    height: float
    chin: float
    skin: float
    hair: int
    hair_length: float
    fringe: float
    iris: int
    eye_distance: float
    brow_width: float
    nose_length: float
    cloth: int


@dataclass(frozen=True)
class Expression:
    """The expression: the ten numbers of `EXPRESSIONS`, then gaze (x, y) and cover (0: none)."""

    brow_raise: float
    brow_tilt: float
    eye_open: float
    lower_lid: float
    mouth_curve: float
    mouth_open: float
    mouth_width: float
    teeth: float
    lip_raise: float
    nose_wrinkle: float
    gaze_x: float
    gaze_y: float
    cover: float


@dataclass(frozen=True)
class Shot:
    """Pose, light, blur, a small occlusion (0: none) and JPEG quality (percent)."""

    yaw: float
    roll: float
    shift_x: float
    shift_y: float
    scale: float
    gain: float
    gradient: float
    gradient_angle: float
    blur: float
    occlusion: int
    occlusion_place: float
    quality: int
    background: tuple[int, int, int]


@dataclass(frozen=True)
class Face:
    """All parameters of a face crop."""

    identity: Identity
    expression: Expression
    shot: Shot

    def vector(self) -> tuple[float, ...]:
        """Returns all parameters as a flat tuple."""
        numbers = (*astuple(self.identity), *astuple(self.expression), *astuple(self.shot)[:-1], *self.shot.background)
        return tuple(float(number) for number in numbers)


def sample_identity(rng: np.random.Generator) -> Identity:
    """Samples a person."""
    return Identity(
        width=rng.uniform(0.54, 0.66),
        height=rng.uniform(0.72, 0.82),
        chin=rng.uniform(0.75, 1.0),
        skin=rng.uniform(0, len(SKIN_BGR) - 1),
        hair=int(rng.integers(len(HAIR_BGR))),
        hair_length=rng.uniform(-0.3, 0.9),
        fringe=rng.uniform(0.0, 0.14),
        iris=int(rng.integers(len(IRIS_BGR))),
        eye_distance=rng.uniform(0.25, 0.30),
        brow_width=rng.uniform(0.045, 0.075),
        nose_length=rng.uniform(0.22, 0.32),
        cloth=int(rng.integers(len(CLOTH_BGR))),
    )


def sample_expression(kind: str, rng: np.random.Generator) -> Expression:
    """Samples an expression of a `kind` of `FACE_KINDS` except `none`, with random intensity and noise."""
    names = list(EXPRESSIONS) if kind == HIDDEN else kind.split("|")
    # Under a cover, every emotion has the same mean face.
    weights = np.full(len(names), 1 / len(names))
    if len(names) == 2:
        weights += np.array([1, -1]) * rng.uniform(-0.06, 0.06)
    target = weights @ np.array([EXPRESSIONS[name] for name in names])
    neutral = np.array(EXPRESSIONS["neutral"])
    values = neutral + (target - neutral) * rng.uniform(0.9, 1.15) + rng.normal(0, 0.05, len(neutral))
    gaze = rng.uniform(-1, 1, 2)
    cover = rng.integers(1, 4) if kind == HIDDEN else 0
    return Expression(*(float(value) for value in (*values, *gaze, cover)))


def sample_shot(rng: np.random.Generator) -> Shot:
    """Samples camera, light and pose."""
    return Shot(
        yaw=rng.uniform(-0.4, 0.4),
        roll=rng.normal(0, 5),
        shift_x=rng.normal(0, 0.03),
        shift_y=rng.normal(0, 0.03),
        scale=rng.uniform(0.95, 1.08),
        gain=rng.uniform(0.7, 1.1),
        gradient=rng.uniform(0, 0.3),
        gradient_angle=rng.uniform(0, 2 * np.pi),
        blur=rng.uniform(0, 0.7),
        occlusion=int(rng.choice(4, p=(0.8, 0.08, 0.06, 0.06))),
        occlusion_place=rng.uniform(-1, 1),
        quality=int(rng.integers(70, 96)),
        background=(int(rng.integers(60, 200)), int(rng.integers(60, 200)), int(rng.integers(60, 200))),
    )


def sample_next_shot(shot: Shot, rng: np.random.Generator) -> Shot:
    """Samples the next shot by the same camera, after a small movement of the head."""
    values = dict(shot.__dict__)
    for name, spread in (("yaw", 0.12), ("roll", 2.0), ("shift_x", 0.02), ("shift_y", 0.02), ("scale", 0.015)):
        values[name] += rng.normal(0, spread)
    values["blur"] = rng.uniform(0, 0.7)
    return Shot(**values)
