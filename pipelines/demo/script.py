"""What happens in a video: which scene is shown in each stretch of time, what is said about it, what can be asked.

Everything is a pure function of (seed, index). Training and validation videos avoid the held-out pairs of attributes;
question videos show them half of the time and leave unsaid what is asked, so that the answer must be seen or heard.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.demo.scenes import ALL_SCENES, ATTRIBUTES, SHAPES, SOUNDS, Look, Scene
from pipelines.demo.voice import VOICES

TRAIN, VALIDATION, QUESTIONS = "train", "validation", "questions"
_ROLES = (TRAIN, TRAIN, VALIDATION, QUESTIONS, TRAIN, TRAIN, TRAIN, TRAIN)

# How many of the four attributes a stretch speaks of, and how often. A model that could always read one attribute
# beside the others would learn to guess the rest; a stretch that speaks of one alone can only be understood by looking.
_SPOKEN_COUNTS = {TRAIN: ((4, 5), (2, 1), (1, 3), (0, 1)), QUESTIONS: ((0, 3), (1, 2), (2, 1))}
_SPOKEN_COUNTS[VALIDATION] = _SPOKEN_COUNTS[TRAIN]
_HELD_OUT_SHARE = 0.5  # of the stretches of a question video

CLAUSES = {
    "colour": ("the color is {}", "it is painted {}", "everything in it is {}", "I would call that {}", "it looks {}"),
    "shape": ("the shape is a {}", "here is a {}", "this is a {}", "we are looking at a {}", "I can see a {}"),
    "motion": ("it is {}", "it keeps {}", "now it is {}", "the way it moves is {}", "and look at it {}"),
    "sound": ("the sound is {}", "I can hear {}", "something is {} here", "you hear that {}", "listen to it {}"),
}
PROMPTS = {
    "colour": "the color is {}",
    "shape": "the shape is a {}",
    "motion": "it is {}",
    "sound": "the sound is {}",
}
MASK = "<|MASK|>"
DISTRACTORS = (
    "my sister called me this morning about the garden",
    "I had two cups of coffee before we started today",
    "thank you all for the kind letters you sent last week",
    "the weather was lovely when we walked along the river",
    "somebody left their umbrella in the kitchen again",
    "we should really bake some bread on the weekend",
    "my neighbor bought a very old piano from a school",
    "last summer we drove all the way down to the sea",
    "do not forget to water the plants before you leave",
    "I still have to finish that long book about whales",
    "our train was late so we played cards for an hour",
    "the dog slept through the whole thing as he always does",
    "let me know what you had for breakfast this morning",
    "they opened a new library just around the corner",
    "I never remember where I put my keys in the evening",
    "grandma used to tell us stories about the mountains",
)
SHORT_DISTRACTORS = (
    "as my uncle likes to say",
    "I hope you slept well",
    "thanks again for joining us",
    "we have plenty of time",
    "let me take a closer look",
    "and that is good to know",
)
OPENERS = ("okay", "all right", "so", "well now", "by the way", "and then")
_LEAST_WORDS = 10  # fewer than 8 in 5 seconds make the job play the speech faster, over several stretches


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
class Stretch:
    """Some seconds of one scene.

    `held_out` are the attributes that form a held-out pair, `spoken` those that `text` names, in its order; `delay` is
    the silence before the text.
    """

    start: float
    end: float
    scene: Scene
    look: Look
    held_out: tuple[str, ...]
    spoken: tuple[str, ...]
    text: str
    voice: str
    rate: int
    delay: float


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
        counts, weights = zip(*_SPOKEN_COUNTS[purpose], strict=True)
        spoken = tuple(draw.sample(list(ATTRIBUTES), draw.choices(counts, weights)[0]))
        start = round(number * stretch_seconds, 3)
        stretches.append(
            Stretch(
                start=start,
                end=round(start + stretch_seconds, 3),
                scene=scene,
                look=Look(_background(draw), draw.uniform(-10, 10), draw.random()),
                held_out=pairs.kinds(scene),
                spoken=spoken,
                text=write_text(draw, scene, spoken),
                voice=draw.choice(VOICES),
                rate=draw.randint(165, 205),
                delay=round(draw.uniform(0.1, 0.6), 3),
            )
        )
    return Script(name(seed, index), index, purpose, int(stretches[-1].end) + 3, tuple(stretches))


def write_text(draw: random.Random, scene: Scene, spoken: Iterable[str]) -> str:
    """Sentences that name the `spoken` attributes of a scene, each once and in that order, amid other talk."""
    clauses = [draw.choice(CLAUSES[kind]).format(getattr(scene, kind)) for kind in spoken]
    if len(clauses) < 4:
        while sum(len(clause.split()) for clause in clauses) < _LEAST_WORDS:
            fillers = DISTRACTORS if len(clauses) < 2 else SHORT_DISTRACTORS
            filler = draw.choice([words for words in fillers if words not in clauses])
            clauses.insert(draw.randint(0, len(clauses)), filler)
    if draw.random() < 0.4:
        clauses[0] = f"{draw.choice(OPENERS)}, {clauses[0]}"
    return _punctuate(draw, clauses)


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


def _punctuate(draw: random.Random, clauses: list[str]) -> str:
    """Clauses as sentences; some are joined by a comma."""
    text = clauses[0][0].upper() + clauses[0][1:]
    for clause in clauses[1:]:
        if draw.random() < 0.4:
            text += f", {clause}"
        else:
            text += f". {clause[0].upper()}{clause[1:]}"
    return text + "."
