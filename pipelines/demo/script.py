"""Write the script of a video: the scene and the utterances of each stretch, and the questions about it.

Everything is a pure function of (seed, index). Training and validation videos avoid the held-out pairs of attributes;
question videos show them in half of the stretches and do not mention the answers, which must be seen or heard.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.demo.scenes import ALL_SCENES, ATTRIBUTES, SHAPES, SOUNDS, Look, Scene
from pipelines.demo.voice import VOICES

TRAIN, VALIDATION, QUESTIONS = "train", "validation", "questions"
_ROLES = (TRAIN, TRAIN, VALIDATION, QUESTIONS, TRAIN, TRAIN, TRAIN, TRAIN)

_HELD_OUT_SHARE = 0.5  # of the stretches of a question video

# The number of the four attributes that a stretch mentions; each entry has the same probability. An attribute cannot be
# inferred from the others, so it must be seen or heard. When all four were mentioned among other sentences, models
# learned the sentences and ignored the images.
_SPOKEN_COUNTS = {TRAIN: (3, 3, 2, 2, 2), VALIDATION: (3, 3, 2, 2, 2), QUESTIONS: (2, 1)}
_PROMPTED_SHARE = 2 / 3  # of the stretches with two: one is said alone after its prompt, as in questions

PROMPTS = {
    "colour": "the color is {}",
    "shape": "the shape is a {}",
    "motion": "the motion is {}",
    "sound": "the sound is {}",
}
MASK = "<|MASK|>"
DISTRACTORS = (
    "my sister called me again",
    "we walked along the river",
    "let us bake some bread",
    "they bought an old piano",
    "please water the plants today",
    "our train was late again",
    "the dog slept all day",
    "I never find my keys",
)
NARRATORS = VOICES[:2]
"""The voices; with more of them, spoken words take longer to learn."""

SLOTS = 3
"""The number of utterances of a stretch, one per audio span of a segment."""
_SLOT_STARTS = (0.03, 0.37, 0.7)
"""Starts of the slots as shares of a stretch. In automatic captions a word lasts until the next one starts, so a slot
starts well before the border that the middle of the preceding word must not pass."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs that no training video shows: (colour, shape) and (motion, sound); each word is in exactly one pair."""

    colour_shape: tuple[tuple[str, str], ...]
    motion_sound: tuple[tuple[str, str], ...]

    def kinds(self, scene: Scene) -> tuple[str, ...]:
        """Return the attributes of a scene that form a held-out pair; empty for a training scene."""
        seen = ("colour", "shape") if (scene.colour, scene.shape) in self.colour_shape else ()
        heard = ("motion", "sound") if (scene.motion, scene.sound) in self.motion_sound else ()
        return seen + heard


@dataclass(frozen=True)
class Utterance:
    """A text spoken without a pause, and its start in seconds after the start of the stretch."""

    text: str
    start: float


@dataclass(frozen=True)
class Stretch:
    """A part of a video with one scene; times in seconds.

    `held_out` are the attributes that form a held-out pair, `spoken` those that the utterances mention, in order.
    """

    start: float
    end: float
    scene: Scene
    look: Look
    held_out: tuple[str, ...]
    spoken: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    voice: str
    rate: int

    @property
    def text(self) -> str:
        """The text of all utterances."""
        return " ".join(utterance.text for utterance in self.utterances)


@dataclass(frozen=True)
class Script:
    """A whole video: `duration` is in whole seconds and exceeds the last stretch by an empty ending."""

    name: str
    index: int
    role: str
    duration: int
    stretches: tuple[Stretch, ...]


def random_for(seed: int, *what: object) -> random.Random:
    """Return a random generator for one purpose, the same on every machine."""
    return random.Random("/".join(map(str, (seed, *what))))


def held_out(seed: int) -> HeldOut:
    """Return the held-out pairs of a corpus: a random matching, so that all words are equally common in training."""
    draw = random_for(seed, "held-out")
    shapes, sounds = draw.sample(SHAPES, len(SHAPES)), draw.sample(SOUNDS, len(SOUNDS))
    pairs = tuple(zip(ATTRIBUTES["colour"], shapes, strict=True))
    return HeldOut(pairs, tuple(zip(ATTRIBUTES["motion"], sounds, strict=True)))


def role(index: int) -> str:
    """Return the role of a video. It depends on the index only, so a larger corpus keeps the videos of a smaller."""
    return _ROLES[index % len(_ROLES)]


def name(seed: int, index: int) -> str:
    """Return an id of 11 characters in YouTube's format; it starts with a letter, so it cannot look like an option."""
    draw = random_for(seed, "name", index)
    alphabet = string.ascii_letters + string.digits + "-_"
    return draw.choice(string.ascii_letters) + "".join(draw.choices(alphabet, k=10))


def write_script(seed: int, index: int, shortest: int, longest: int, stretch_seconds: float) -> Script:
    """Return the script of video `index`, with `shortest` to `longest` stretches of `stretch_seconds` each."""
    draw = random_for(seed, "script", index)
    pairs, purpose = held_out(seed), role(index)
    stretches: list[Stretch] = []
    for number in range(draw.randint(shortest, longest)):
        from_held_out = purpose == QUESTIONS and draw.random() < _HELD_OUT_SHARE
        scene = _next_scene(draw, stretches[-1].scene if stretches else None, pairs, from_held_out)
        spoken = tuple(draw.sample(list(ATTRIBUTES), draw.choice(_SPOKEN_COUNTS[purpose])))
        start = round(number * stretch_seconds, 3)
        stretches.append(
            Stretch(
                start=start,
                end=round(start + stretch_seconds, 3),
                scene=scene,
                look=Look(_background(draw), draw.uniform(-10, 10), draw.random()),
                held_out=pairs.kinds(scene),
                spoken=spoken,
                utterances=write_utterances(draw, scene, spoken, stretch_seconds),
                voice=draw.choice(NARRATORS),
                rate=draw.randint(185, 215),
            )
        )
    return Script(name(seed, index), index, purpose, int(stretches[-1].end) + 3, tuple(stretches))


def write_utterances(
    draw: random.Random, scene: Scene, spoken: Sequence[str], stretch_seconds: float
) -> tuple[Utterance, ...]:
    """Return one utterance per slot of a stretch; together they mention the `spoken` attributes once, in order.

    An attribute has one slot for its clause, or one for its prompt and the next for its value; the remaining slots have
    unrelated sentences.
    """
    texts = [PROMPTS[kind].format(getattr(scene, kind)) for kind in spoken]
    if len(spoken) == SLOTS - 1 and draw.random() < _PROMPTED_SHARE:
        place = draw.randrange(len(spoken))
        kind = spoken[place]
        texts[place : place + 1] = PROMPTS[kind].format("").strip(), getattr(scene, kind)
    for sentence in draw.sample(DISTRACTORS, SLOTS - len(texts)):
        texts.insert(draw.randrange(len(texts) + 1), sentence)
    starts = (round(share * stretch_seconds, 3) for share in _SLOT_STARTS)
    return tuple(Utterance(f"{t[0].upper()}{t[1:]}.", start) for t, start in zip(texts, starts, strict=True))


def questions(script: Script) -> list[dict]:
    """Return the questions about a video: every attribute of a stretch that its utterances do not mention."""
    items = []
    for stretch in script.stretches:
        for kind in ATTRIBUTES:
            if kind in stretch.spoken:
                continue
            items.append(
                {
                    "id": f"{script.name}-{len(items):03d}",
                    "kind": kind,
                    "start": stretch.start,
                    "end": stretch.end,
                    "prompt": PROMPTS[kind].format(MASK),
                    "options": list(ATTRIBUTES[kind]),
                    "answer": getattr(stretch.scene, kind),
                    "held_out": kind in stretch.held_out,
                }
            )
    return items


def sound_seed(seed: int, index: int, number: int) -> int:
    """Return the seed of the sound of stretch `number`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/sound/{index}/{number}".encode()).digest()[:4], "big")


def _next_scene(draw: random.Random, previous: Scene | None, pairs: HeldOut, from_held_out: bool) -> Scene:
    """Draw a scene that differs from the previous one in every attribute, with or without a held-out pair."""
    candidates = [
        scene
        for scene in ALL_SCENES
        if bool(pairs.kinds(scene)) == from_held_out
        and (previous is None or all(getattr(scene, kind) != getattr(previous, kind) for kind in ATTRIBUTES))
    ]
    return draw.choice(candidates)


def _background(draw: random.Random) -> tuple[int, int, int]:
    """Draw a dim grey with a slight tint, not so dark that it could be detected as black bars."""
    grey = draw.randint(58, 96)
    return grey + draw.randint(-8, 8), grey + draw.randint(-8, 8), grey + draw.randint(-8, 8)
