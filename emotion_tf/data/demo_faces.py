"""Parametric faces for the demo data set, drawn with OpenCV.

A face is three vectors: who it is (`Identity`), what it shows (`Expression`) and how it was filmed (`Shot`). Only the
expression depends on the kind of the face. A kind is named by the emotions it is compatible with, joined by `|`:
`fear` shows fear, `surprise|fear` lies half way between two. `hidden` covers brows, eyes and mouth; `none` is no face.

Lengths are in half canvas widths with the origin in the middle of the canvas, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import cv2
import numpy as np

NO_FACE = "none"
HIDDEN = "hidden"
SUPERSAMPLE = 4

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

Colour = tuple[int, int, int]

_ANGLE = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_ACROSS = np.linspace(-1, 1, 17)
_ARCH = (_ACROSS, 1 - _ACROSS**2)
_BROW = np.linspace(0, 1, 8)


@dataclass(frozen=True)
class Identity:
    """Who the face belongs to; the same in all utterances of one speaker in one dialogue."""

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
    """What the face shows: the ten numbers described at `EXPRESSIONS`, then the gaze (x, y) and the cover (0: none)."""

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
    """How the face was filmed: pose, light, sharpness, a small occlusion (0: none) and JPEG quality (percent)."""

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
    """Everything that is needed to draw one face crop."""

    identity: Identity
    expression: Expression
    shot: Shot

    def vector(self) -> tuple[float, ...]:
        """All parameters as one flat tuple of numbers."""
        numbers = (*astuple(self.identity), *astuple(self.expression), *astuple(self.shot)[:-1], *self.shot.background)
        return tuple(float(number) for number in numbers)


def draw_identity(rng: np.random.Generator) -> Identity:
    """A new person."""
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


def draw_expression(kind: str, rng: np.random.Generator) -> Expression:
    """An expression of `kind` (a key of `FACE_KINDS`, not `none`) with its own strength and jitter."""
    names = list(EXPRESSIONS) if kind == HIDDEN else kind.split("|")
    # Whatever is under the cover is the same mean face for every emotion.
    weights = np.full(len(names), 1 / len(names))
    if len(names) == 2:
        weights += np.array([1, -1]) * rng.uniform(-0.06, 0.06)
    target = weights @ np.array([EXPRESSIONS[name] for name in names])
    neutral = np.array(EXPRESSIONS["neutral"])
    shown = neutral + (target - neutral) * rng.uniform(0.9, 1.15) + rng.normal(0, 0.05, len(neutral))
    gaze = rng.uniform(-1, 1, 2)
    cover = rng.integers(1, 4) if kind == HIDDEN else 0
    return Expression(*(float(value) for value in (*shown, *gaze, cover)))


def draw_shot(rng: np.random.Generator) -> Shot:
    """A camera, a light and a pose."""
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


def next_shot(shot: Shot, rng: np.random.Generator) -> Shot:
    """The same camera and light a moment later: the head has moved a little."""
    values = dict(shot.__dict__)
    for name, spread in (("yaw", 0.12), ("roll", 2.0), ("shift_x", 0.02), ("shift_y", 0.02), ("scale", 0.015)):
        values[name] += rng.normal(0, spread)
    values["blur"] = rng.uniform(0, 0.7)
    return Shot(**values)


def render_face(face: Face, size: int) -> np.ndarray:
    """The picture of a face: uint8 (size, size, 3) in OpenCV's BGR order, drawn four times as large and shrunk."""
    canvas = _Canvas(size * SUPERSAMPLE, face.shot)
    who, shown = face.identity, face.expression
    skin = _skin(who.skin)
    _head(canvas, who, skin)
    _eyes(canvas, who, shown, skin)
    _nose(canvas, who, shown, skin)
    _mouth(canvas, shown, skin)
    _hair(canvas, who)
    _brows(canvas, who, shown, skin)
    _occlusion(canvas, who, face.shot)
    _cover(canvas, who, shown.cover)
    return _develop(canvas.posed(), face.shot, size)


def encode_face(face: Face, size: int) -> bytes:
    """A face as the bytes of a JPEG file."""
    _, data = cv2.imencode(".jpg", render_face(face, size), [cv2.IMWRITE_JPEG_QUALITY, face.shot.quality])
    return data.tobytes()


class _Canvas:
    """A square picture addressed in half canvas widths. Features lie before the head and move further with the yaw."""

    def __init__(self, side: int, shot: Shot) -> None:
        self.half, self.shot, self.sine = side / 2, shot, float(np.sin(shot.yaw))
        self.pixels = np.empty((side, side, 3), np.uint8)
        cv2.rectangle(self.pixels, (0, 0), (side, side), shot.background, cv2.FILLED)

    def points(self, xy: np.ndarray, depth: float = 0.0) -> np.ndarray:
        moved = xy + np.array([1 + self.sine * depth, 1.0])
        return np.rint(moved * self.half).astype(np.int32)[:, None]

    def fill(self, xy: np.ndarray, colour: Colour, depth: float = 0.0) -> None:
        cv2.fillPoly(self.pixels, [self.points(xy, depth)], colour)

    def line(self, xy: np.ndarray, colour: Colour, width: float, depth: float = 0.0) -> None:
        thickness = max(1, round(width * self.half))
        cv2.polylines(self.pixels, [self.points(xy, depth)], False, colour, thickness, cv2.LINE_AA)

    def posed(self) -> np.ndarray:
        """The canvas after roll, shift, scale and the narrowing of a turned head."""
        shot, centre = self.shot, self.half
        turn = cv2.getRotationMatrix2D((centre, centre), shot.roll, shot.scale)
        turn[:, 0] *= np.cos(shot.yaw)
        turn[:, 2] = centre - turn[:, :2] @ (centre, centre) + np.array([shot.shift_x, shot.shift_y]) * centre
        return cv2.warpAffine(self.pixels, turn, self.pixels.shape[:2], borderMode=cv2.BORDER_REPLICATE)


def _curve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    curve = np.empty((len(x), 2))
    curve[:, 0], curve[:, 1] = x, y
    return curve


def _ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return _CIRCLE * (rx, ry) + (x, y)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _skin(tone: float) -> np.ndarray:
    lower = min(int(tone), len(SKIN_BGR) - 2)
    return SKIN_BGR[lower] + (tone - lower) * (SKIN_BGR[lower + 1] - SKIN_BGR[lower])


def _shade(colour: np.ndarray, factor: float) -> Colour:
    blue, green, red = (min(255, int(value * factor)) for value in colour.tolist())
    return blue, green, red


def _head(canvas: _Canvas, who: Identity, skin: np.ndarray) -> None:
    hair = HAIR_BGR[who.hair]
    canvas.fill(_ellipse(0, -0.12, who.width + 0.1, who.height - 0.02), hair)
    if who.hair_length > 0:
        canvas.fill(_box(-who.width - 0.1, -0.1, who.width + 0.1, who.hair_length), hair)
    canvas.fill(_ellipse(0, 1.15, 0.85, 0.35), CLOTH_BGR[who.cloth])
    canvas.fill(_box(-0.24, 0.5, 0.24, 0.95), _shade(skin, 0.8))
    for side in (-1, 1):
        canvas.fill(_ellipse(side * who.width, 0.0, 0.08, 0.14), _shade(skin, 0.88))
    outline = _ellipse(0, 0, who.width, who.height)
    lower = outline[:, 1] > 0
    outline[lower, 0] *= 1 - (1 - who.chin) * (outline[lower, 1] / who.height) ** 2
    canvas.fill(outline, _shade(skin, 1.0))


def _hair(canvas: _Canvas, who: Identity) -> None:
    top = np.concatenate([_CIRCLE[20:], _CIRCLE[:1]])
    outer = top * (who.width + 0.03, who.height - 0.08) + (0, -0.12)
    inner = top * (who.width, 0.33 - who.fringe) + (0, -0.3)
    canvas.fill(np.concatenate([outer, inner[::-1]]), HAIR_BGR[who.hair], depth=0.05)


def _brows(canvas: _Canvas, who: Identity, shown: Expression, skin: np.ndarray) -> None:
    for side in (-1, 1):
        x = who.eye_distance - 0.15 + 0.03 * min(0.0, shown.brow_raise) + _BROW * 0.32
        y = -0.31 - 0.11 * shown.brow_raise - 0.05 * np.sin(np.pi * _BROW)
        y = y + shown.brow_tilt * 0.13 * (_BROW - 0.6)
        # Grey or fair hair would hide the brows on a skin of the same lightness.
        colour = _shade(np.minimum(np.array(HAIR_BGR[who.hair]), skin * 0.55), 0.75)
        canvas.line(_curve(side * x, y), colour, who.brow_width, depth=0.15)


def _eyes(canvas: _Canvas, who: Identity, shown: Expression, skin: np.ndarray) -> None:
    along, arch = _ARCH
    upper = -0.07 - 0.15 * max(0.12, shown.eye_open) * arch
    lower = -0.07 + 0.11 * max(0.05, min(1.0, shown.eye_open + 0.2) - 0.75 * shown.lower_lid) * arch
    balls = _Canvas(len(canvas.pixels), canvas.shot)
    mask = np.zeros(canvas.pixels.shape[:2], np.uint8)
    lids = []
    for side in (-1, 1):
        x = side * who.eye_distance + 0.155 * along
        lids.append((_curve(x, upper), _curve(x, lower)))
        cv2.fillPoly(mask, [canvas.points(np.concatenate([lids[-1][0], lids[-1][1][::-1]]), 0.15)], 255)
        centre = (side * who.eye_distance + 0.035 * shown.gaze_x, -0.08 + 0.015 * shown.gaze_y)
        balls.fill(_ellipse(side * who.eye_distance, -0.07, 0.2, 0.25), (240, 240, 240), 0.15)
        balls.fill(_ellipse(*centre, 0.075, 0.085), IRIS_BGR[who.iris], 0.15)
        balls.fill(_ellipse(*centre, 0.04, 0.045), (10, 10, 10), 0.15)
    # What the lids leave open of the eyeballs.
    cv2.copyTo(balls.pixels, mask, canvas.pixels)
    for upper_lid, lower_lid in lids:
        canvas.line(upper_lid, _shade(skin, 0.3), 0.035, 0.15)
        canvas.line(lower_lid, _shade(skin, 0.6), 0.02, 0.15)


def _nose(canvas: _Canvas, who: Identity, shown: Expression, skin: np.ndarray) -> None:
    tip = 0.02 + who.nose_length - 0.05 * max(0.0, shown.nose_wrinkle)
    canvas.line(np.array([[0.02, 0.0], [0.07, tip], [-0.07, tip + 0.01]]), _shade(skin, 0.7), 0.03, 0.25)
    if shown.nose_wrinkle > 0.35:
        for y in (-0.04, 0.03):
            canvas.line(np.array([[-0.08, y], [0.0, y + 0.03], [0.08, y]]), _shade(skin, 0.55), 0.025, 0.2)
        for side in (-1, 1):
            fold = np.array([[0.1, tip - 0.04], [0.24, tip + 0.1], [0.3, tip + 0.24]]) * (side, 1)
            canvas.line(fold, _shade(skin, 0.6), 0.03, 0.15)


def _mouth(canvas: _Canvas, shown: Expression, skin: np.ndarray) -> None:
    along, arch = _ARCH
    x = 0.24 * shown.mouth_width * along
    middle = 0.46 - 0.14 * shown.mouth_curve * (along**2 - 0.4)
    opening = max(0.0, shown.mouth_open)
    sneer = 0.11 * max(0.0, shown.lip_raise) * np.exp(-(((along - 0.35) / 0.4) ** 2))
    upper = middle - 0.12 * opening * arch - sneer
    lower = middle + 0.2 * opening * arch
    lip = _shade(skin * (0.75, 0.65, 0.85), 0.85)
    top, bottom = _curve(x, upper), _curve(x, lower)
    canvas.fill(np.concatenate([top, bottom[::-1]]), (30, 20, 70), 0.18)
    if shown.teeth > 0.3:
        bite = upper + (lower - upper) * min(0.75, 0.65 * shown.teeth)
        canvas.fill(np.concatenate([top, _curve(x, bite)[::-1]]), (235, 240, 240), 0.18)
    canvas.line(top, lip, 0.045, 0.18)
    canvas.line(bottom, lip, 0.05, 0.18)


def _occlusion(canvas: _Canvas, who: Identity, shot: Shot) -> None:
    """Something before a part of the face that leaves enough to read: a bar at one side, the forehead or the chin."""
    colour = CLOTH_BGR[(who.cloth + 1) % len(CLOTH_BGR)]
    side = 1 if shot.occlusion_place > 0 else -1
    reach = 0.08 * abs(shot.occlusion_place)
    if shot.occlusion == 1:
        canvas.fill(_box(side * (0.46 - reach), -1, side * 1.0, 1), colour)
    elif shot.occlusion == 2:
        canvas.fill(_box(-1, -1, 1, -0.62 + reach), colour)
    elif shot.occlusion == 3:
        canvas.fill(_box(-1, 0.82 - reach, 1, 1), colour)


def _cover(canvas: _Canvas, who: Identity, cover: float) -> None:
    """Hide brows, eyes and mouth: dark glasses and a scarf (1), a sheet of paper (2), or the back of the head (3)."""
    if cover == 1:
        for side in (-1, 1):
            canvas.fill(_ellipse(side * who.eye_distance, -0.14, 0.26, 0.33), (25, 25, 25), 0.15)
        canvas.fill(_box(-0.75, 0.18, 0.75, 1), CLOTH_BGR[(who.cloth + 2) % len(CLOTH_BGR)])
    elif cover == 2:
        canvas.fill(_box(-0.8, -0.6, 0.8, 0.9), (225, 230, 232))
    elif cover == 3:
        canvas.fill(_ellipse(0, -0.05, who.width + 0.06, who.height - 0.04), HAIR_BGR[who.hair])


def _develop(picture: np.ndarray, shot: Shot, size: int) -> np.ndarray:
    """Shrink, light with a gain and a linear gradient, and blur."""
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = np.cos(shot.gradient_angle) * ramp[None, :] + np.sin(shot.gradient_angle) * ramp[:, None]
    lit = small * (shot.gain * (1 + shot.gradient * slope))[..., None].astype(np.float32)
    if shot.blur > 0.15:
        lit = cv2.GaussianBlur(lit, (0, 0), shot.blur * size / 48)
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)
