"""Draw the frames of the corpus: one large, moving, coloured shape per stretch.

A frame is a pure function of the scene, the look of its stretch and the time. Every frame also shows faint copies of
the shape in the last half second, like a long exposure, because training uses a single frame of each stretch, from
which the motion must be recognisable.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageDraw

Rgb = tuple[int, int, int]

COLOURS = {
    "red": (222, 40, 44),
    "yellow": (240, 212, 40),
    "green": (36, 172, 72),
    "blue": (44, 92, 232),
    "purple": (156, 60, 190),
    "white": (244, 244, 244),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
MOTIONS = ("sliding", "bouncing", "spinning", "growing", "shrinking", "shaking")
SOUNDS = ("humming", "hissing", "beeping", "clicking", "chirping", "ringing")
ATTRIBUTES = {"colour": tuple(COLOURS), "shape": SHAPES, "motion": MOTIONS, "sound": SOUNDS}

RADIUS = 0.33  # of the picture's height
_GHOST_DELAYS = (0.48, 0.36, 0.24, 0.12)  # seconds, oldest first
_SIZE_CYCLE = 1.7  # seconds
_CIRCLE_CORNERS = 48
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """The attributes of one stretch; each field is a word of `ATTRIBUTES`."""

    colour: str
    shape: str
    motion: str
    sound: str


ALL_SCENES = tuple(Scene(*words) for words in itertools.product(*ATTRIBUTES.values()))


@dataclass(frozen=True)
class Look:
    """The variation between stretches with the same scene: background (RGB), tilt in degrees, phase in [0, 1)."""

    background: Rgb
    tilt: float
    phase: float


@dataclass(frozen=True)
class Pose:
    """The position of the shape: centre offset and radius as shares of the image height, angle in degrees."""

    x: float
    y: float
    radius: float
    angle: float


def pose(motion: str, seconds: float, phase: float) -> Pose:
    """Return the pose of a moving shape `seconds` after the start of its stretch; `phase` shifts the cycle."""
    if motion == "sliding":
        return Pose(0.36 * _triangle_wave(seconds / 2.5 + phase), 0.0, RADIUS, 0.0)
    if motion == "bouncing":
        return Pose(0.0, 0.15 - 0.3 * abs(math.sin(math.pi * (seconds / 1.25 + phase))), RADIUS, 0.0)
    if motion == "spinning":
        return Pose(0.0, 0.0, RADIUS, 360 * (seconds / 2.5 + phase))
    if motion == "growing":
        return Pose(0.0, 0.0, RADIUS * (0.6 + 0.8 * ((seconds / _SIZE_CYCLE + phase) % 1)), 0.0)
    if motion == "shrinking":
        return Pose(0.0, 0.0, RADIUS * (1.4 - 0.8 * ((seconds / _SIZE_CYCLE + phase) % 1)), 0.0)
    if motion == "shaking":
        swing = math.sin(2 * math.pi * (3.3 * seconds + phase))
        return Pose(0.05 * swing, 0.04 * math.cos(2 * math.pi * 4.1 * seconds), RADIUS, 14 * swing)
    raise ValueError(f"{motion!r} is not a motion; choose one of {', '.join(MOTIONS)}")


@functools.cache
def corners(shape: str) -> np.ndarray:
    """Return the corners of a shape of radius 1 around the origin, `float64 [n, 2]`, y downwards; a ring is cut open.

    The array is cached: do not write to it.
    """
    if shape == "circle":
        return _regular(_CIRCLE_CORNERS)
    if shape == "square":
        return _regular(4, turn=0.125)
    if shape == "triangle":
        return _regular(3)
    if shape == "star":
        return _regular(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    if shape == "cross":
        w = 0.34
        quarter = np.array([(-w, -1), (w, -1), (w, -w)])
        turns = [np.array([[0, -1], [1, 0]])] * 3
        return np.concatenate(list(itertools.accumulate([quarter, *turns], lambda points, turn: points @ turn.T)))
    if shape == "ring":
        outer = _regular(_CIRCLE_CORNERS + 1, closed=True)
        return np.concatenate([outer, 0.5 * outer[::-1]])
    raise ValueError(f"{shape!r} is not a shape; choose one of {', '.join(SHAPES)}")


def draw(scene: Scene, look: Look, seconds: float, width: int, height: int) -> np.ndarray:
    """Return the frame `seconds` after the start of the stretch, `uint8 [height, width, 3]` RGB."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width * _SUPERSAMPLING, height * _SUPERSAMPLING), look.background)
    canvas = ImageDraw.Draw(image)
    colour = COLOURS[scene.colour]
    past = [pose(scene.motion, seconds - delay, look.phase) for delay in _GHOST_DELAYS if seconds >= delay]
    jumped = scene.motion in ("growing", "shrinking")
    now = pose(scene.motion, seconds, look.phase)
    if jumped:
        # The size jumps at the end of each cycle; copies from before the jump would show the opposite motion.
        past = [p for p in past if (p.radius <= now.radius) == (scene.motion == "growing")]
    for age, ghost in enumerate(past, start=1):
        _fill(canvas, image.size, scene.shape, ghost, look.tilt, _mix(look.background, colour, 0.12 + 0.08 * age))
    _fill(canvas, image.size, scene.shape, now, look.tilt, colour)
    if scene.motion == "growing":
        # Copies of a growing shape are inside it, so they are drawn as shadows on top, darker for older ones.
        for age, ghost in enumerate(reversed(past), start=1):
            _fill(canvas, image.size, scene.shape, ghost, look.tilt, _mix(colour, (0, 0, 0), 0.06 * age))
    for ghost in past:
        _outline(canvas, image.size, scene.shape, ghost, look.tilt, _mix(colour, (0, 0, 0), 0.45))
    for age, spot in enumerate([*past, now], start=5 - len(past)):
        _mark(canvas, image.size, scene.shape, spot, look.tilt, _mix(colour, (0, 0, 0), 0.14 * age))
    return np.asarray(image.reduce(_SUPERSAMPLING))


def empty(look: Look, width: int, height: int) -> np.ndarray:
    """Return a frame of the background, `uint8 [height, width, 3]` RGB."""
    return np.full((height, width, 3), look.background, np.uint8)


def _triangle_wave(cycles: float) -> float:
    return 4 * abs(cycles % 1 - 0.5) - 1


def _regular(n: int, turn: float = 0.0, closed: bool = False) -> np.ndarray:
    angles = 2 * np.pi * (np.arange(n) / (n - 1 if closed else n) + turn)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _place(points: np.ndarray, size: tuple[int, int], at: Pose, tilt: float) -> list[tuple[float, float]]:
    """Return points of the unit shape in pixels of an image of `size` (width, height)."""
    width, height = size
    angle = math.radians(at.angle + tilt)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    centre = np.array([width / 2 + at.x * height, height / 2 + at.y * height])
    return [(x, y) for x, y in (at.radius * height * points @ turn + centre).tolist()]


def _fill(canvas: ImageDraw.ImageDraw, size: tuple[int, int], shape: str, at: Pose, tilt: float, colour: Rgb) -> None:
    canvas.polygon(_place(corners(shape), size, at, tilt), fill=colour)


def _outline(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], shape: str, at: Pose, tilt: float, colour: Rgb
) -> None:
    edge = corners("circle" if shape == "ring" else shape)
    points = _place(edge, size, at, tilt)
    canvas.line([*points, points[0]], fill=colour, width=_SUPERSAMPLING)


def _mark(canvas: ImageDraw.ImageDraw, size: tuple[int, int], shape: str, at: Pose, tilt: float, colour: Rgb) -> None:
    """Draw a dark spot above the centre, which makes the spinning of a circle visible."""
    centre = np.array([0, -0.75 if shape == "ring" else -0.5])
    canvas.polygon(_place(centre + 0.11 * corners("circle"), size, at, tilt), fill=colour)


def _mix(start: Rgb, end: Rgb, share: float) -> Rgb:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
    return red, green, blue
