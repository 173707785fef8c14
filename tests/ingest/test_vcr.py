"""VCR questions: golden records, names, colours, texts, the mirrored picture, and lines that cannot be used."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ingest.questions.detokenise import detokenise, repair
from ingest.questions.question import QuestionError, QuestionOutcome
from ingest.questions.vcr import VcrPreparation, VcrQuestion, colour, prepare, read_question
from shards.records import tfrecord
from shards.records.vcr import parse_record
from shards.tokenizer import load_tokenizer

RELEASED = VcrPreparation.published()


@pytest.fixture(scope="module")
def tokenizer(published_tokenizer):
    return load_tokenizer(published_tokenizer)


@pytest.fixture(scope="module")
def folder(golden):
    return str(golden / "finetune" / "vcr1")


def lines(folder, split="train"):
    return [json.loads(line) for line in (Path(folder) / f"{split}.jsonl").read_text().splitlines()]


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)


@pytest.mark.parametrize(("split", "labelled"), [("train", True), ("test", False)])
def test_texts_and_labels_equal_the_golden_records(golden, folder, tokenizer, split, labelled):
    expected = json.loads((golden / "l_finetune.json").read_text())[f"vcr/{split}"]["non_bytes_values"]
    ours = [
        record
        for line in lines(folder, split)
        for record in prepare(read_question(folder, line), tokenizer, labelled, RELEASED)
    ]
    assert [record.id for record in ours] == [values["id"] for values in expected]
    for record, values in zip(ours, expected, strict=True):
        for prefix, choice in (("qa", record.answer), ("qar", record.rationale)):
            assert choice.query.tolist() == values[f"{prefix}_query"]
            assert [choice.label] == values[f"{prefix}_label"]
            assert [option.tolist() for option in choice.options] == [values[f"{prefix}_choice_{i}"] for i in range(4)]
        if not labelled:
            assert record.image == record.mirrored


def test_pictures_equal_the_golden_records(golden, parity, folder, tokenizer):
    with (golden / "finetune" / "records" / "vcr" / "train000of001.tfrecord").open("rb") as file:
        expected = [parse_record(payload) for _, payload in tfrecord.scan(file, "golden")]
    for line, theirs in zip(lines(folder), expected, strict=True):
        (ours,) = prepare(read_question(folder, line), tokenizer, config=RELEASED)
        for mine, other in ((ours.image, theirs.image), (ours.mirrored, theirs.mirrored)):
            error = np.abs(pixels(mine) - pixels(other)).max()
            parity.record("finetune/records/vcr", "pictures with boxes", error, "grey levels")
            assert error <= 1


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        ("Person 1", (241, 243, 154)),
        ("Person 2", (248, 229, 240)),
        ("the car", (205, 208, 200)),
        ("the person", (64, 73, 180)),
    ],
)
def test_colours_are_those_of_the_names(name, rgb):
    assert colour(name) == rgb


def question(line=None, names=("person", "person", "person"), size=(200, 100)):
    image = Image.effect_noise(size, 60).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    boxes = tuple((10.0 + 20 * i, 10.0, 60.0 + 20 * i, 80.0) for i in range(len(names)))
    given = {
        "annot_id": "train-7",
        "img_fn": "a.jpg",
        "metadata_fn": "a.json",
        "question": ["Where", "are", [0, 1, 2], "?"],
        "answer_choices": [["Here", "."], ["There", "."], ["Up", "."], ["In", "the", "bright", "room", "."]],
        "answer_label": 1,
        "rationale_choices": [["Because", word, "."] for word in ("so", "not", "yes", "no")],
        "rationale_label": 2,
    }
    return VcrQuestion(given | (line or {}), buffer.getvalue(), tuple(names), boxes, float(size[0]))


def test_all_people_are_named_unless_told_otherwise(tokenizer):
    def asked(config):
        return tokenizer.decode(prepare(question(), tokenizer, config=config)[0].answer.query.tolist()).strip()

    assert asked(None) == "where are person 1 and person 2 and person 3?"
    assert asked(RELEASED) == "where are person 1 and person 2?"


def test_the_mirrored_picture_is_the_picture_mirrored(tokenizer):
    (record,) = prepare(question(), tokenizer)
    mirrored = np.asarray(ImageOps.mirror(Image.open(io.BytesIO(record.image)))).astype(int)
    assert np.abs(pixels(record.mirrored) - mirrored).mean() < 6
    (released,) = prepare(question(), tokenizer, config=VcrPreparation(mirror_pixels=False, sides_as_words=True))
    assert np.abs(pixels(released.mirrored) - mirrored).mean() > 20


@pytest.mark.parametrize(
    ("text", "as_words", "as_letters"), [("bright", True, False), ("Left", False, True), ("right", False, False)]
)
def test_which_texts_keep_the_picture_as_it_is(tokenizer, text, as_words, as_letters):
    line = {"question": [text, "?"], "answer_choices": [[word, "."] for word in ("No", "Yes", "So", "Not")]}
    for config, flips in ((VcrPreparation(), as_words), (VcrPreparation(sides_as_words=False), as_letters)):
        (record,) = prepare(question(line), tokenizer, config=config)
        assert (record.image != record.mirrored) == flips


def test_boxes_of_what_nobody_mentions_can_be_left_out(tokenizer):
    scene = question({"question": ["Why", "?"]}, names=("car", "dog"))
    (drawn,) = prepare(scene, tokenizer)
    (bare,) = prepare(scene, tokenizer, config=VcrPreparation(draw_unmentioned=False))
    plain = np.asarray(Image.open(io.BytesIO(scene.image)).convert("RGB")).astype(int)
    assert np.abs(pixels(bare.image) - plain).max() < np.abs(pixels(drawn.image) - plain).max()


@pytest.mark.parametrize(
    ("line", "outcome", "sentence"),
    [
        ({"answer_label": 4}, QuestionOutcome.LABEL_OUT_OF_RANGE, "answer_label is 4 and there are 4 options"),
        ({"rationale_label": None}, QuestionOutcome.LABEL_MISSING, "only a test split has no labels"),
        ({"question": [[5]]}, QuestionOutcome.BAD_LINE, "mentions object 5 and there are 3"),
        ({"question": [[-1]]}, QuestionOutcome.BAD_LINE, "mentions object -1"),
        ({"question": [{"a": 1}]}, QuestionOutcome.BAD_LINE, "neither a word nor objects"),
        ({"answer_choices": [["a"]] * 3}, QuestionOutcome.BAD_LINE, "answer_choices has 3 options instead of 4"),
        ({"annot_id": 7}, QuestionOutcome.BAD_LINE, "the field 'annot_id' is '7' or missing"),
    ],
)
def test_a_line_that_cannot_be_used_says_why(tokenizer, line, outcome, sentence):
    with pytest.raises(QuestionError, match=sentence) as raised:
        prepare(question(line), tokenizer)
    assert raised.value.outcome is outcome


def test_missing_and_damaged_files_are_named(folder, tokenizer, tmp_path):
    line = lines(folder)[0]
    for change, outcome in (
        ({"img_fn": "no.jpg"}, QuestionOutcome.IMAGE_MISSING),
        ({"metadata_fn": "no.json"}, QuestionOutcome.METADATA_MISSING),
        ({"metadata_fn": line["img_fn"]}, QuestionOutcome.METADATA_UNREADABLE),
    ):
        with pytest.raises(QuestionError) as raised:
            read_question(folder, line | change)
        assert raised.value.outcome is outcome
    (tmp_path / "vcr1images").mkdir()
    (tmp_path / "vcr1images" / "m.json").write_text('{"names": ["a"], "boxes": [], "width": 5}')
    (tmp_path / "vcr1images" / "i.jpg").write_bytes(b"not a picture")
    with pytest.raises(QuestionError, match="1 names and 0 boxes"):
        read_question(str(tmp_path), {"img_fn": "i.jpg", "metadata_fn": "m.json"})
    broken = VcrQuestion(question().line, b"not a picture", ("a", "b", "c"), question().boxes, 9.0)
    with pytest.raises(QuestionError, match="cannot be decoded as an image") as raised:
        prepare(broken, tokenizer)
    assert raised.value.outcome is QuestionOutcome.IMAGE_UNREADABLE


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        ("Why is Person 1 looking at Person 2 ?", "Why is Person 1 looking at Person 2?"),
        ("He did n't go , he ' s tired .", "He didn't go, he's tired."),
        (" he' s writing-; ok ", "he's writing ok"),
    ],
)
def test_repairs_of_the_specification(text, repaired):
    assert repair(text) == repaired


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Person 1", "'s", "eyes", ",", "(", "blue", ")", "."], "Person 1's eyes, (blue)."),
        (["He", "said", '"', "no", '"', "."], 'He said "no".'),
        (["It", "costs", "$", "5", "!"], "It costs $5!"),
        (["the", "boys", "'", "room"], "the boys' room"),
        (["a", "@-@", "b", "&amp;", "c"], "a-b & c"),
    ],
)
def test_tokens_become_english(tokens, text):
    assert detokenise(tokens) == text


@given(st.lists(st.sampled_from(["a", "'s", '"', "'", ",", ".", "(", ")", "n't", "$", "the dog", ""])))
def test_detokenising_keeps_every_letter(tokens):
    kept = "".join("".join(tokens).split())
    assert "".join(detokenise(tokens).split()) == kept
