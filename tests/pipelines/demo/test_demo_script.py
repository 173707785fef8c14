import itertools
import re
from collections import Counter

import pytest

from ingest.segmentation import ENOUGH_WORDS
from pipelines.demo.scenes import ATTRIBUTES
from pipelines.demo.script import (
    DISTRACTORS,
    MASK,
    PROMPTS,
    QUESTIONS,
    SLOTS,
    TRAIN,
    VALIDATION,
    held_out,
    name,
    questions,
    role,
    write_script,
)

WORDS = {word: kind for kind, options in ATTRIBUTES.items() for word in options}


@pytest.fixture(scope="module")
def scripts():
    return [write_script(7, index, 12, 17, 5.0) for index in range(64)]


def test_roles_come_in_fixed_shares_from_the_first_videos_on():
    assert {role(index) for index in range(4)} == {TRAIN, VALIDATION, QUESTIONS}
    assert Counter(role(index) for index in range(40)) == {TRAIN: 30, VALIDATION: 5, QUESTIONS: 5}


def test_held_out_pairs_occur_in_questions_only(scripts):
    pairs = held_out(7)
    assert len(set(pairs.colour_shape)) == len(set(pairs.motion_sound)) == 6
    shown = {script.name: [pairs.kinds(stretch.scene) for stretch in script.stretches] for script in scripts}
    assert not any(any(shown[script.name]) for script in scripts if script.role != QUESTIONS)
    asked = [bool(kinds) for script in scripts if script.role == QUESTIONS for kinds in shown[script.name]]
    assert 0.35 < sum(asked) / len(asked) < 0.65
    for script in scripts:
        assert shown[script.name] == [stretch.held_out for stretch in script.stretches]


def test_every_attribute_changes_in_every_stretch(scripts):
    for script in scripts:
        for before, after in itertools.pairwise(script.stretches):
            assert before.end == after.start
            assert all(getattr(before.scene, kind) != getattr(after.scene, kind) for kind in ATTRIBUTES)
    trained = [stretch.scene for script in scripts if script.role == TRAIN for stretch in script.stretches]
    for kind, options in ATTRIBUTES.items():
        counts = Counter(getattr(scene, kind) for scene in trained)
        assert set(counts) == set(options)
        assert min(counts.values()) > 0.5 * max(counts.values())


def test_speech_names_each_spoken_attribute_once(scripts):
    for stretch in (stretch for script in scripts for stretch in script.stretches):
        said = re.findall(r"[a-z']+", stretch.text.lower())
        assert [word for word in said if word in WORDS] == [getattr(stretch.scene, kind) for kind in stretch.spoken]
        # Fewer words, and the job would play the speech faster, over several stretches.
        assert len(said) >= ENOUGH_WORDS


def test_training_speech_names_two_or_three_attributes(scripts):
    spoken = [stretch.spoken for script in scripts if script.role == TRAIN for stretch in script.stretches]
    shares = Counter(map(len, spoken))
    assert set(shares) == {2, 3}
    assert 0.3 < shares[3] / len(spoken) < 0.5
    assert len({kinds for kinds in spoken if len(kinds) == 3}) == 24


def test_a_third_of_the_stretches_answer_a_prompt(scripts):
    stretches = [stretch for script in scripts if script.role == TRAIN for stretch in script.stretches]
    alone = []
    for stretch in stretches:
        texts = [utterance.text.rstrip(".").lower() for utterance in stretch.utterances]
        for place, text in enumerate(texts):
            if text in WORDS:
                alone.append(WORDS[text])
                assert texts[place - 1] == PROMPTS[WORDS[text]].format("").strip()
    assert set(alone) == set(ATTRIBUTES)
    assert 0.3 < len(alone) / len(stretches) < 0.5


def test_each_utterance_has_a_third_of_the_stretch(scripts):
    for stretch in (stretch for script in scripts for stretch in script.stretches):
        thirds = [int(SLOTS * (utterance.start + 0.25) / 5) for utterance in stretch.utterances]
        assert thirds == list(range(SLOTS))


def test_what_surrounds_the_attributes_names_none():
    said = " ".join((*DISTRACTORS, *PROMPTS.values()))
    assert not WORDS.keys() & set(re.findall(r"[a-z]+", said.lower()))


def test_questions_ask_what_is_not_said_and_hold_the_answer(scripts):
    asked = 0
    for script in (script for script in scripts if script.role == QUESTIONS):
        stretches = {stretch.start: stretch for stretch in script.stretches}
        items = questions(script)
        asked += len(items)
        assert len({item["id"] for item in items}) == len(items)
        for item in items:
            stretch = stretches[item["start"]]
            assert item["answer"] == getattr(stretch.scene, item["kind"])
            assert item["answer"] in item["options"]
            assert item["answer"] not in stretch.text.lower().split()
            assert item["prompt"].count(MASK) == 1
            assert item["held_out"] == (item["kind"] in held_out(7).kinds(stretch.scene))
    assert asked > 200


def test_names_are_ids_of_eleven_characters_and_differ():
    names = {name(seed, index) for seed in range(3) for index in range(500)}
    assert len(names) == 1500
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{10}", one) for one in names)


def test_a_script_depends_on_its_seed_and_index_alone(scripts):
    assert write_script(7, 5, 12, 17, 5.0) == scripts[5]
    assert write_script(8, 5, 12, 17, 5.0) != scripts[5]
