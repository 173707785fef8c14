"""The records of VCR, TVQA and own questions: golden parity, both directions, and what must hold of any row."""

import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.inspection.verify import check_record
from shards.records import choices, example, tfrecord, tvqa, vcr
from shards.records.choices import ClipConfig, ClipParser, ClipRecord, ClipSegment
from shards.records.question_config import ANSWER_SEPARATOR, RATIONALE_SEPARATOR, QuestionConfig
from shards.records.question_rows import option_row, read_ids
from shards.storage.errors import RecordError, UsageError
from shards.tokenizer import load_tokenizer
from shards.tokens import AUDIOSPAN, MASK

GRID = (12, 20)


def payloads(golden, task):
    with (golden / "finetune" / "records" / task / "train000of001.tfrecord").open("rb") as file:
        return [payload for _, payload in tfrecord.scan(file, task)]


@pytest.mark.parametrize(("task", "module"), [("vcr", vcr), ("tvqa", tvqa)])
def test_parsed_records_equal_the_golden_ones(golden, parity, task, module):
    overrides = json.loads((golden / "l_finetune.json").read_text())[f"{task}/train"]["config_overrides"]
    config = {"vcr": vcr.VcrConfig, "tvqa": tvqa.TvqaConfig}[task].from_published(overrides | {"output_grid": GRID})
    held, file = np.load(golden / f"l_{task}_train_parsed.npz"), f"l_{task}_train_parsed.npz"
    compared = set()
    for i, payload in enumerate(payloads(golden, task)):
        ours = module.parse(payload, config)
        for name in (name.partition("/")[2] for name in held.files if name.startswith(f"{i}/")):
            expected, mine = held[f"{i}/{name}"], ours[name]
            if name in ("image", "images"):
                mine = mine.reshape(-1, 768)[::37]
            assert mine.shape == expected.shape, name
            if expected.dtype.kind == "i":
                np.testing.assert_array_equal(mine, expected, err_msg=name)
            else:
                scale = 1.0 if "image" in name else max(float(expected.max()), 1.0)
                error = np.abs(mine - expected.astype(np.float64)).max() / scale
                parity.record(file, name, error, "of the largest")
                assert error < (1 / 255 if "image" in name else 5e-4), name
            compared.add(name)
    assert compared >= ({"image", "answers", "labels"} if task == "vcr" else {"images", "audio_clips", "audio_seqs"})


@pytest.mark.parametrize("task", ["vcr", "tvqa"])
def test_written_records_are_the_published_ones(golden, task):
    for payload in payloads(golden, task):
        module = {"vcr": vcr, "tvqa": tvqa}[task]
        record = module.parse_record(payload)
        written = record.serialize() if task == "vcr" else tvqa.serialize(record)
        ours, theirs = example.parse(written), example.parse(payload)
        assert ours.keys() == theirs.keys()
        for name, values in theirs.items():
            assert list(ours[name]) == list(values), name
        assert check_record(payload, 32_768) == []


def test_separators_are_what_the_vocabulary_spells(published_tokenizer):
    encode = load_tokenizer(published_tokenizer).encode
    assert tuple(encode("answer: ", add_special_tokens=False).ids) == ANSWER_SEPARATOR
    assert tuple(encode("rationale: ", add_special_tokens=False).ids) == RATIONALE_SEPARATOR


def test_training_shows_both_pictures_and_evaluation_one(golden):
    payload = payloads(golden, "vcr")[0]
    record = vcr.parse_record(payload)
    assert record.image != record.mirrored
    seen = set()
    for seed in range(12):
        config = vcr.VcrConfig(training=True, grid=(2, 2), random_scale=False)
        parser = vcr.VcrParser(config)
        out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parser.spec().items()}
        parser(payload, lambda purpose, seed=seed: np.random.default_rng([seed, len(purpose)]), out)
        seen.add(out["image"].tobytes())
    plain = vcr.parse(payload, vcr.VcrConfig(grid=(2, 2)))["image"].tobytes()
    assert len(seen) == 2
    assert plain in seen


def test_ids_travel_as_bytes(golden):
    parser = ClipParser(tvqa.TvqaConfig(grid=(2, 2)))
    out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parser.spec().items()}
    parser(payloads(golden, "tvqa")[1], np.random.default_rng, out)
    assert read_ids(np.stack([out["id"], np.zeros_like(out["id"])])) == ["000104~s02e03_seg02_clip_05", ""]


def test_sound_moves_later_by_at_most_four_columns(golden):
    payload = payloads(golden, "tvqa")[1]
    still = tvqa.parse(payload, tvqa.TvqaConfig(grid=(2, 2)))["audio_clips"]
    rows = still[:3].reshape(-1, 65)
    shifts = set()
    for seed in range(30):
        parser = ClipParser(tvqa.TvqaConfig(training=True, grid=(2, 2)))
        out = {name: np.zeros(shape, dtype) for name, (shape, dtype) in parser.spec().items()}
        parser(payload, lambda purpose, seed=seed: np.random.default_rng([seed, len(purpose)]), out)
        assert (out["audio_clips"][..., 64] == 1).all()
        assert not out["audio_clips"][3:, ..., :64].any()
        moved = out["audio_clips"][:3].reshape(-1, 65)
        found = [s for s in range(5) if np.array_equal(moved[s:, :64], rows[: len(rows) - s, :64])]
        assert found, seed
        shifts.add(found[0])
    assert shifts == {0, 1, 2, 3, 4}


def test_masked_padding_has_no_sound_and_marks_segments(golden):
    payload = payloads(golden, "tvqa")[1]
    masked = tvqa.parse(payload, tvqa.TvqaConfig(grid=(2, 2), mask_padding=True))
    assert masked["is_segment"].tolist() == [True] * 3 + [False] * 4
    assert (masked["audio_seqs"][..., 0] == AUDIOSPAN).sum(axis=1).tolist() == [54] * 5
    assert masked["audio_seqs"][..., 1].max() == 3


texts = st.lists(st.integers(10, 400), max_size=40).map(lambda ids: np.array(ids, np.int64))


@settings(deadline=None)
@given(texts, texts, st.integers(8, 60), st.sampled_from(["question", "end"]))
def test_a_row_ends_with_its_mask_and_keeps_the_option_if_it_can(query, choice, length, cut):
    config = QuestionConfig(text_length=length, cut=cut)
    row, was_cut = option_row(query, ANSWER_SEPARATOR, choice, config)
    whole = np.concatenate([query, ANSWER_SEPARATOR, choice])
    assert row.size <= length
    assert row[-1] == MASK
    assert (row == MASK).sum() == 1
    assert was_cut == (whole.size > length - 1)
    if not was_cut or cut == "end":
        np.testing.assert_array_equal(row[:-1], whole[: length - 1])
    elif len(ANSWER_SEPARATOR) + choice.size <= length - 1:
        np.testing.assert_array_equal(row[:-1], whole[whole.size - (length - 1) :])


def clip_record(options=3, segments=2, sound=False):
    def jpeg(size, mode):
        buffer = io.BytesIO()
        Image.new(mode, size, 90).save(buffer, "JPEG")
        return buffer.getvalue()

    part = ClipSegment(jpeg((64, 48), "RGB"), jpeg((65, 180), "L") if sound else None, np.array([20, 21]))
    ids = tuple(np.array([30 + i]) for i in range(options))
    return ClipRecord("q-1", np.array([11, 12]), ids, 1, (part,) * segments, 2.0)


@pytest.mark.parametrize("sound", [False, True])
def test_own_questions_tell_their_sizes(sound):
    payload = clip_record(options=3, segments=2, sound=sound).serialize(slots=4)
    config = choices.fit(ClipConfig(grid=(2, 2)), payload)
    assert (config.options, config.segments, config.sound) == (3, 4, sound)
    arrays = choices.parse(payload, config)
    assert arrays["num_frames"] == 2
    assert ("audio_clips" in arrays) == sound
    assert not arrays["images"][2:].any()
    segments = arrays["textonly_seqs"][0, :, 1]
    # question, separator, option and MASK; then two subtitles of two tokens
    assert segments[:12].tolist() == [0] * 7 + [1, 1, 2, 2, 0]
    assert check_record(payload, None) == []


def changed(payload, **features):
    held = dict(example.parse(payload))
    for name, values in features.items():
        held[name] = values
    return example.serialize({name: values for name, values in held.items() if values is not None})


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"qa_label": np.array([9])}, "qa_label is 9 and there are 4 options"),
        ({"qa_label": None}, "the feature 'qa_label' is missing"),
        ({"qar_choice_2": np.array([12, 0])}, "the text 'qar_choice_2' contains padding or a mask token"),
        ({"qa_query": np.array([MASK])}, "the text 'qa_query' contains padding or a mask token"),
        ({"image": [b"no picture"]}, "is not a JPEG image"),
        ({"id": [b"\xff"]}, "the feature 'id' is not UTF-8"),
        ({"image_fliplr": [b"a", b"b"]}, "must have exactly one string"),
    ],
)
def test_a_damaged_vcr_record_is_named(golden, features, sentence):
    payload = changed(payloads(golden, "vcr")[0], **features)
    with pytest.raises(RecordError, match=sentence):
        vcr.parse(payload, vcr.VcrConfig())
    assert len(check_record(payload, None)) == 1


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"num_frames": np.array([0])}, "num_frames is 0; it must be 1 to 7"),
        ({"magic_number": np.array([0.0], np.float32)}, "the magic number is 0.0"),
        ({"qa_choice_4": None}, "the question has 4 options instead of 5"),
        ({"c01/spec_encoded": [b"x"]}, "is not a JPEG image"),
        ({"c02/sub": [b"x"]}, "the feature 'c02/sub' has values of another type"),
    ],
)
def test_a_damaged_tvqa_record_is_named(golden, features, sentence):
    with pytest.raises(RecordError, match=sentence):
        tvqa.parse(changed(payloads(golden, "tvqa")[0], **features), tvqa.TvqaConfig())


def test_a_record_of_another_task_is_named(golden):
    with pytest.raises(RecordError, match="this is a record of another kind"):
        vcr.parse(payloads(golden, "tvqa")[0], vcr.VcrConfig())


def test_impossible_configurations_are_refused():
    with pytest.raises(UsageError, match="unknown keys: 'lang_len'"):
        vcr.VcrConfig.from_published({"lang_len": 3})
    with pytest.raises(UsageError, match="segments is 8; it must be 1 to 7"):
        dataclasses.replace(ClipConfig(), segments=8)
    with pytest.raises(UsageError, match="text_length is 4"):
        QuestionConfig(text_length=4)
    with pytest.raises(ValueError, match="has 97 bytes; it must have 1 to 96"):
        dataclasses.replace(clip_record(), id="q" * 97).serialize(2)
