"""Generate five kinds of footage, four of which show little change, to measure the visual filters.

A still image, slides, a talking head and a screen recording hardly change; lively footage does. Every frame is a
function of the kind, the number of the video and the number of the shot.
"""

from __future__ import annotations

import random
import zlib
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.demo.scenes import ALL_SCENES, Look, draw

Kind = Literal["static", "slides", "talking head", "screen recording", "lively"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DULL = frozenset(KINDS) - {"lively"}
WIDTH, HEIGHT = 320, 180

_WORDS = ("return", "value", "model", "light", "sound", "data", "for", "the", "import", "class", "learning", "shape")


def frame(kind: Kind, video: int, shot: int) -> np.ndarray:
    """Return a frame of shot number `shot` of video number `video` of a kind, `uint8 [180, 320, 3]` RGB.

    Shots are some seconds apart. Kinds that a camera would record have noise.
    """
    same, now = _random(kind, video), _random(kind, video, shot)
    if kind == "static":
        return _grain(_landscape(same), now)
    if kind == "slides":
        return np.asarray(_slide(same, now))
    if kind == "talking head":
        return _grain(_head(same, now), now)
    if kind == "screen recording":
        return np.asarray(_screen(same, now))
    return _grain(_lively(same, now), now)


def _random(*names: str | int) -> random.Random:
    return random.Random(zlib.crc32(repr(names).encode()))


def _colour(source: random.Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return source.randint(low, high), source.randint(low, high), source.randint(low, high)


def _grain(image: Image.Image, now: random.Random) -> np.ndarray:
    noise = np.random.default_rng(now.getrandbits(32)).normal(0, 3, (HEIGHT, WIDTH, 3))
    return np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)


def _landscape(source: random.Random) -> Image.Image:
    """Return clouds of colour at several scales with a horizon and a few objects."""
    rng = np.random.default_rng(source.getrandbits(32))
    total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cells, weight in ((2, 1.0), (5, 0.6), (14, 0.35), (40, 0.2)):
        small = Image.fromarray(rng.integers(0, 256, (cells, cells * 2, 3), np.uint8))
        total += weight * np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
    image = Image.fromarray(np.clip(total / 2.15 * 1.6 - 76, 0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    horizon = source.randint(60, 140)
    canvas.rectangle((0, horizon, WIDTH, HEIGHT), fill=_colour(source))
    for _ in range(source.randint(2, 7)):
        x, y, size = source.randint(0, WIDTH), source.randint(40, HEIGHT), source.randint(12, 70)
        shape = canvas.ellipse if source.random() < 0.5 else canvas.rectangle
        shape((x - size, y - size, x + size, y + size // 2), fill=_colour(source), outline=_colour(source))
    return image.filter(ImageFilter.GaussianBlur(1))


def _slide(same: random.Random, now: random.Random) -> Image.Image:
    paper = _colour(same, 200, 255) if same.random() < 0.7 else _colour(same, 0, 60)
    ink = _colour(same, 0, 60) if sum(paper) > 400 else _colour(same, 200, 255)
    band = _colour(same)
    image = Image.new("RGB", (WIDTH, HEIGHT), paper)
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 0, WIDTH, 26), fill=band)
    canvas.text((12, 8), " ".join(now.choices(_WORDS, k=4)), fill=paper)
    for line in range(now.randint(3, 7)):
        canvas.text((20, 40 + 18 * line), "- " + " ".join(now.choices(_WORDS, k=now.randint(3, 7))), fill=ink)
    if now.random() < 0.3:
        x, y = now.randint(180, 220), now.randint(90, 110)
        canvas.rectangle((x, y, x + 80, y + 55), fill=_colour(now), outline=ink)
    return image


def _head(same: random.Random, now: random.Random) -> Image.Image:
    image = _landscape(same).filter(ImageFilter.GaussianBlur(4))
    canvas = ImageDraw.Draw(image)
    skin = same.choice([(236, 196, 168), (198, 142, 104), (126, 84, 60)])
    shirt, hair = _colour(same), _colour(same, 0, 120)
    x, y = same.randint(120, 200) + now.randint(-14, 14), 90 + now.randint(-8, 8)
    canvas.ellipse((x - 75, y + 40, x + 75, y + 170), fill=shirt)
    canvas.ellipse((x - 38, y - 58, x + 38, y + 20), fill=hair)
    canvas.ellipse((x - 33, y - 45, x + 33, y + 45), fill=skin)
    for side in (-13, 13):
        canvas.ellipse((x + side - 5, y - 12, x + side + 5, y - 12 + now.choice((3, 7))), fill=(30, 30, 30))
    canvas.ellipse((x - 12, y + 20, x + 12, y + 22 + now.randint(2, 12)), fill=(120, 40, 40))
    if now.random() < 0.4:
        hand = now.randint(-70, 70)
        canvas.ellipse((x + hand - 15, y + 60, x + hand + 15, y + 95), fill=skin)
    return image.filter(ImageFilter.GaussianBlur(0.7))


def _screen(same: random.Random, now: random.Random) -> Image.Image:
    dark = same.random() < 0.6
    paper = _colour(same, 20, 50) if dark else _colour(same, 225, 255)
    inks = [_colour(same, 120, 255) if dark else _colour(same, 0, 130) for _ in range(4)]
    image = Image.new("RGB", (WIDTH, HEIGHT), paper)
    canvas = ImageDraw.Draw(image)
    side = same.randint(50, 80)
    canvas.rectangle((0, 0, side, HEIGHT), fill=tuple(max(c - 14, 0) for c in paper))
    canvas.rectangle((0, 0, WIDTH, 10), fill=_colour(same, 60, 160))
    for row in range(14):
        canvas.text((4, 14 + 12 * row), same.choice(_WORDS), fill=inks[0])
        words = " ".join(now.choices(_WORDS, k=now.randint(0, 7)))
        canvas.text((side + 6 + 10 * now.randint(0, 3), 14 + 12 * row), words, fill=now.choice(inks))
    if now.random() < 0.25:
        x, y = now.randint(90, 180), now.randint(30, 90)
        canvas.rectangle((x, y, x + 110, y + 70), fill=tuple(255 - c for c in paper), outline=inks[1])
    return image


def _lively(same: random.Random, now: random.Random) -> Image.Image:
    """Return another shot in the light of the video: another place, a close-up, or the same place from elsewhere."""
    light = Image.new("RGB", (WIDTH, HEIGHT), _colour(same))
    return Image.blend(_shot(same, now), light, same.uniform(0.2, 0.7))


def _shot(same: random.Random, now: random.Random) -> Image.Image:
    choice = now.random()
    if choice < 0.5:
        return _landscape(now)
    if choice < 0.75:
        look = Look(_colour(now), now.uniform(-40, 40), now.random())
        return Image.fromarray(draw(now.choice(ALL_SCENES), look, now.uniform(0, 5), WIDTH, HEIGHT))
    x, y = now.randint(0, WIDTH // 2), now.randint(0, HEIGHT // 2)
    return _landscape(same).crop((x, y, x + WIDTH // 2, y + HEIGHT // 2)).resize((WIDTH, HEIGHT))
