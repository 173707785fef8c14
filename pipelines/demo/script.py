"""What happens in a video: which scene is shown in each stretch of time, what is said about it, what can be asked.

Everything is a pure function of (seed, index). Training and validation videos avoid the held-out pairs of attributes;
question videos show them half of the time and leave unsaid what is asked, so that the answer must be seen or heard.
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

# How many of the four attributes a stretch tells, each entry as often as any other. Nothing that is told is known from
# the rest, so that it must be seen or heard; where all four were told among other sentences, models learned the
# sentences and looked at nothing.
_SPOKEN_COUNTS = {TRAIN: (3, 3, 2, 2, 2), VALIDATION: (3, 3, 2, 2, 2), QUESTIONS: (2, 1)}
_PROMPTED_SHARE = 2 / 3  # of the stretches with two: one stands alone after its prompt, as questions ask for it

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
"""Who speaks; with more voices, words take longer to be learned by ear."""

SLOTS = 3
"""Utterances of a stretch, one for each audio span of a segment."""
_SLOT_STARTS = (0.03, 0.37, 0.7)
"""Shares of a stretch. The automatic captions let a word last until the next one begins, so a slot begins well before
the border that the middle of the preceding word must not pass."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs that no training video shows: (colour, shape) and (motion, sound); each word is in exactly one pair."""

    colour_shape: tuple[tuple[str, str], ...]
    motion_sound: tuple[tuple[str, str], ...]

    def kinds(self, scene: Scene) -> tuple[str, ...]:
        """The attributes of a scene that make up a held-out pair; none in a scene fit for training."""
        seen = ("colour", "shape") if (scene.colour, scene.shape) in self.colour_shape else ()
        heard = ("motion", "sound") if (scene.motion, scene.sound) in self.motion_sound else ()
        return seen + heard


@dataclass(frozen=True)
class Utterance:
    """What is said without a pause, and the seconds after the stretch's start at which it begins."""

    text: str
    start: float


@dataclass(frozen=True)
class Stretch:
    """A stretch of time with one scene; times in seconds.

    `held_out` names the attributes that form a held-out pair, `spoken` those that the utterances name, in their order.
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
        """All that is said."""
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
    """A generator of its own for each purpose, the same on every machine."""
    return random.Random("/".join(map(str, (seed, *what))))


def held_out(seed: int) -> HeldOut:
    """The held-out pairs of a corpus: a random matching, so that every single word is equally common in training."""
    draw = random_for(seed, "held-out")
    shapes, sounds = draw.sample(SHAPES, len(SHAPES)), draw.sample(SOUNDS, len(SOUNDS))
    pairs = tuple(zip(ATTRIBUTES["colour"], shapes, strict=True))
    return HeldOut(pairs, tuple(zip(ATTRIBUTES["motion"], sounds, strict=True)))


def role(index: int) -> str:
    """What a video is for. It depends on the index alone, so a larger corpus keeps the videos of a smaller one."""
    return _ROLES[index % len(_ROLES)]


def name(seed: int, index: int) -> str:
    """An id of 11 characters as YouTube makes them; it starts with a letter, so no program takes it for an option."""
    draw = random_for(seed, "name", index)
    alphabet = string.ascii_letters + string.digits + "-_"
    return draw.choice(string.ascii_letters) + "".join(draw.choices(alphabet, k=10))


def write_script(seed: int, index: int, shortest: int, longest: int, stretch_seconds: float) -> Script:
    """The script of video `index`, with `shortest` to `longest` stretches of `stretch_seconds` each."""
    draw = random_for(seed, "script", index)
    pairs, purpose = held_out(seed), role(index)
    stretches: list[Stretch] = []
    for number in range(draw.randint(shortest, longest)):
        wanted = purpose == QUESTIONS and draw.random() < _HELD_OUT_SHARE
        scene = _next_scene(draw, stretches[-1].scene if stretches else None, pairs, wanted)
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
    """One utterance for each slot of a stretch; together they name the `spoken` attributes, each once and in order.

    Each has a slot for its clause, or one for its prompt and the next for itself; what is left is filled with sentences
    about something else.
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
    """What can be asked of a video: every attribute of a stretch that its speech does not name."""
    asked = []
    for stretch in script.stretches:
        for kind in ATTRIBUTES:
            if kind in stretch.spoken:
                continue
            asked.append(
                {
                    "id": f"{script.name}-{len(asked):03d}",
                    "kind": kind,
                    "start": stretch.start,
                    "end": stretch.end,
                    "prompt": PROMPTS[kind].format(MASK),
                    "options": list(ATTRIBUTES[kind]),
                    "answer": getattr(stretch.scene, kind),
                    "held_out": kind in stretch.held_out,
                }
            )
    return asked


def sound_seed(seed: int, index: int, number: int) -> int:
    """The seed of the sound of stretch `number`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/sound/{index}/{number}".encode()).digest()[:4], "big")


def _next_scene(draw: random.Random, before: Scene | None, pairs: HeldOut, wanted: bool) -> Scene:
    """A scene that differs from the one before it in every attribute, from or outside the held-out ones."""
    candidates = [
        scene
        for scene in ALL_SCENES
        if bool(pairs.kinds(scene)) == wanted
        and (before is None or all(getattr(scene, kind) != getattr(before, kind) for kind in ATTRIBUTES))
    ]
    return draw.choice(candidates)


def _background(draw: random.Random) -> tuple[int, int, int]:
    """A dim grey, never so dark that it could be taken for black bars, with a slight tint."""
    grey = draw.randint(58, 96)
    return tuple(grey + draw.randint(-8, 8) for _ in range(3))
