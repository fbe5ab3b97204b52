"""Draws the faces of the demo data set with OpenCV.

Lengths are in half canvas widths. The origin is the middle of the canvas, x points right and y down.
"""

from __future__ import annotations

import cv2
import numpy as np

from emotion_tf.data.demo_faces import CLOTH_BGR, HAIR_BGR, IRIS_BGR, SKIN_BGR, Expression, Face, Identity, Shot

SUPERSAMPLE = 4
Colour = tuple[int, int, int]
_ANGLE = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_ACROSS = np.linspace(-1, 1, 17)
_ARCH = (_ACROSS, 1 - _ACROSS**2)
_BROW = np.linspace(0, 1, 8)


def render_face(face: Face, size: int) -> np.ndarray:
    """Draws a face: uint8 (size, size, 3) BGR, drawn at four times the size and downscaled."""
    canvas = _Canvas(size * SUPERSAMPLE, face.shot)
    identity, expression = face.identity, face.expression
    skin = _skin(identity.skin)
    _head(canvas, identity, skin)
    _eyes(canvas, identity, expression, skin)
    _nose(canvas, identity, expression, skin)
    _mouth(canvas, expression, skin)
    _hair(canvas, identity)
    _brows(canvas, identity, expression, skin)
    _occlusion(canvas, identity, face.shot)
    _cover(canvas, identity, expression.cover)
    return _develop(canvas.pose(), face.shot, size)


def encode_face(face: Face, size: int) -> bytes:
    """Draws a face and encodes it as JPEG."""
    _, data = cv2.imencode(".jpg", render_face(face, size), [cv2.IMWRITE_JPEG_QUALITY, face.shot.quality])
    return data.tobytes()


class _Canvas:
    """A square image addressed in half canvas widths. With the yaw, features shift in proportion to their depth."""

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

    def pose(self) -> np.ndarray:
        """Returns the canvas after roll, shift, scale and the narrowing by the yaw."""
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


def _head(canvas: _Canvas, identity: Identity, skin: np.ndarray) -> None:
    hair = HAIR_BGR[identity.hair]
    canvas.fill(_ellipse(0, -0.12, identity.width + 0.1, identity.height - 0.02), hair)
    if identity.hair_length > 0:
        canvas.fill(_box(-identity.width - 0.1, -0.1, identity.width + 0.1, identity.hair_length), hair)
    canvas.fill(_ellipse(0, 1.15, 0.85, 0.35), CLOTH_BGR[identity.cloth])
    canvas.fill(_box(-0.24, 0.5, 0.24, 0.95), _shade(skin, 0.8))
    for side in (-1, 1):
        canvas.fill(_ellipse(side * identity.width, 0.0, 0.08, 0.14), _shade(skin, 0.88))
    outline = _ellipse(0, 0, identity.width, identity.height)
    lower = outline[:, 1] > 0
    outline[lower, 0] *= 1 - (1 - identity.chin) * (outline[lower, 1] / identity.height) ** 2
    canvas.fill(outline, _shade(skin, 1.0))


def _hair(canvas: _Canvas, identity: Identity) -> None:
    top = np.concatenate([_CIRCLE[20:], _CIRCLE[:1]])
    outer = top * (identity.width + 0.03, identity.height - 0.08) + (0, -0.12)
    inner = top * (identity.width, 0.33 - identity.fringe) + (0, -0.3)
    canvas.fill(np.concatenate([outer, inner[::-1]]), HAIR_BGR[identity.hair], depth=0.05)


def _brows(canvas: _Canvas, identity: Identity, expression: Expression, skin: np.ndarray) -> None:
    for side in (-1, 1):
        x = identity.eye_distance - 0.15 + 0.03 * min(0.0, expression.brow_raise) + _BROW * 0.32
        y = -0.31 - 0.11 * expression.brow_raise - 0.05 * np.sin(np.pi * _BROW)
        y = y + expression.brow_tilt * 0.13 * (_BROW - 0.6)
        # darker than the skin, or brows of grey or fair hair would be invisible
        colour = _shade(np.minimum(np.array(HAIR_BGR[identity.hair]), skin * 0.55), 0.75)
        canvas.line(_curve(side * x, y), colour, identity.brow_width, depth=0.15)


def _eyes(canvas: _Canvas, identity: Identity, expression: Expression, skin: np.ndarray) -> None:
    along, arch = _ARCH
    upper = -0.07 - 0.15 * max(0.12, expression.eye_open) * arch
    lower = -0.07 + 0.11 * max(0.05, min(1.0, expression.eye_open + 0.2) - 0.75 * expression.lower_lid) * arch
    balls = _Canvas(len(canvas.pixels), canvas.shot)
    mask = np.zeros(canvas.pixels.shape[:2], np.uint8)
    lids = []
    for side in (-1, 1):
        x = side * identity.eye_distance + 0.155 * along
        lids.append((_curve(x, upper), _curve(x, lower)))
        cv2.fillPoly(mask, [canvas.points(np.concatenate([lids[-1][0], lids[-1][1][::-1]]), 0.15)], 255)
        centre = (side * identity.eye_distance + 0.035 * expression.gaze_x, -0.08 + 0.015 * expression.gaze_y)
        balls.fill(_ellipse(side * identity.eye_distance, -0.07, 0.2, 0.25), (240, 240, 240), 0.15)
        balls.fill(_ellipse(*centre, 0.075, 0.085), IRIS_BGR[identity.iris], 0.15)
        balls.fill(_ellipse(*centre, 0.04, 0.045), (10, 10, 10), 0.15)
    # copies the part of the eyeballs between the lids
    cv2.copyTo(balls.pixels, mask, canvas.pixels)
    for upper_lid, lower_lid in lids:
        canvas.line(upper_lid, _shade(skin, 0.3), 0.035, 0.15)
        canvas.line(lower_lid, _shade(skin, 0.6), 0.02, 0.15)


def _nose(canvas: _Canvas, identity: Identity, expression: Expression, skin: np.ndarray) -> None:
    tip = 0.02 + identity.nose_length - 0.05 * max(0.0, expression.nose_wrinkle)
    canvas.line(np.array([[0.02, 0.0], [0.07, tip], [-0.07, tip + 0.01]]), _shade(skin, 0.7), 0.03, 0.25)
    if expression.nose_wrinkle > 0.35:
        for y in (-0.04, 0.03):
            canvas.line(np.array([[-0.08, y], [0.0, y + 0.03], [0.08, y]]), _shade(skin, 0.55), 0.025, 0.2)
        for side in (-1, 1):
            fold = np.array([[0.1, tip - 0.04], [0.24, tip + 0.1], [0.3, tip + 0.24]]) * (side, 1)
            canvas.line(fold, _shade(skin, 0.6), 0.03, 0.15)


def _mouth(canvas: _Canvas, expression: Expression, skin: np.ndarray) -> None:
    along, arch = _ARCH
    x = 0.24 * expression.mouth_width * along
    middle = 0.46 - 0.14 * expression.mouth_curve * (along**2 - 0.4)
    opening = max(0.0, expression.mouth_open)
    sneer = 0.11 * max(0.0, expression.lip_raise) * np.exp(-(((along - 0.35) / 0.4) ** 2))
    upper = middle - 0.12 * opening * arch - sneer
    lower = middle + 0.2 * opening * arch
    lip = _shade(skin * (0.75, 0.65, 0.85), 0.85)
    top, bottom = _curve(x, upper), _curve(x, lower)
    canvas.fill(np.concatenate([top, bottom[::-1]]), (30, 20, 70), 0.18)
    if expression.teeth > 0.3:
        bite = upper + (lower - upper) * min(0.75, 0.65 * expression.teeth)
        canvas.fill(np.concatenate([top, _curve(x, bite)[::-1]]), (235, 240, 240), 0.18)
    canvas.line(top, lip, 0.045, 0.18)
    canvas.line(bottom, lip, 0.05, 0.18)


def _occlusion(canvas: _Canvas, identity: Identity, shot: Shot) -> None:
    """Covers a small part of the face: a side, the forehead or the chin. The expression remains visible."""
    colour = CLOTH_BGR[(identity.cloth + 1) % len(CLOTH_BGR)]
    side = 1 if shot.occlusion_place > 0 else -1
    reach = 0.08 * abs(shot.occlusion_place)
    if shot.occlusion == 1:
        canvas.fill(_box(side * (0.46 - reach), -1, side * 1.0, 1), colour)
    elif shot.occlusion == 2:
        canvas.fill(_box(-1, -1, 1, -0.62 + reach), colour)
    elif shot.occlusion == 3:
        canvas.fill(_box(-1, 0.82 - reach, 1, 1), colour)


def _cover(canvas: _Canvas, identity: Identity, cover: float) -> None:
    """Hides brows, eyes and mouth: dark glasses and a scarf (1), a sheet of paper (2), or the back of the head (3)."""
    if cover == 1:
        for side in (-1, 1):
            canvas.fill(_ellipse(side * identity.eye_distance, -0.14, 0.26, 0.33), (25, 25, 25), 0.15)
        canvas.fill(_box(-0.75, 0.18, 0.75, 1), CLOTH_BGR[(identity.cloth + 2) % len(CLOTH_BGR)])
    elif cover == 2:
        canvas.fill(_box(-0.8, -0.6, 0.8, 0.9), (225, 230, 232))
    elif cover == 3:
        canvas.fill(_ellipse(0, -0.05, identity.width + 0.06, identity.height - 0.04), HAIR_BGR[identity.hair])


def _develop(picture: np.ndarray, shot: Shot, size: int) -> np.ndarray:
    """Downscales, applies a gain and a linear gradient of light, and blurs."""
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = np.cos(shot.gradient_angle) * ramp[None, :] + np.sin(shot.gradient_angle) * ramp[:, None]
    lit = small * (shot.gain * (1 + shot.gradient * slope))[..., None].astype(np.float32)
    if shot.blur > 0.15:
        lit = cv2.GaussianBlur(lit, (0, 0), shot.blur * size / 48)
    return np.clip(np.round(lit), 0, 255).astype(np.uint8)
