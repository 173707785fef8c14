import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards import tokenizer
from shards.__main__ import main
from shards.inspection.invariants import check_data, check_example
from shards.reading import vocabulary
from shards.reading.config import ReaderConfig, StreamOptions
from shards.reading.pretraining import PretrainingParser
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage.errors import RecordError, UsageError
from shards.storage.randomness import generator
from shards.tokens import AUDIOSPAN, LTOVPOOL, MASK, MASKAUDIO, PADDING
from tests.reader_data import make_example, write_data

PUBLISHED = vocabulary.published()


@pytest.fixture(scope="module")
def records(golden):
    with (golden / "train00000of00001.tfrecord").open("rb") as file:
        return [payload for _, payload in tfrecord.scan(file, "golden")]


@pytest.fixture(scope="module")
def base(golden):
    held = json.loads((golden / "j_reader.json").read_text())["config_used"]
    return replace(ReaderConfig.from_published(held), image_dtype="float32", audio_dtype="float32")


def parse(config, payload, seed=0, epoch=0):
    parser = PretrainingParser(config, PUBLISHED)
    arrays = {name: np.full(shape, 99, dtype) for name, (shape, dtype) in parser.spec().items()}
    parser(payload, lambda purpose: generator(seed, purpose, epoch), arrays)
    return arrays


@pytest.mark.parametrize("parity_mode", [False, True])
def test_all_invariants_hold_on_golden_records(records, base, parity_mode):
    config = base.with_parity() if parity_mode else base
    blank = replace(config, blank_images=True)
    examples = [parse_example(payload) for payload in records]
    audio = neighbours = beside = 0
    parses = 42 * len(records)
    for i in range(parses):
        payload, example = records[i % len(records)], examples[i % len(records)]
        arrays = parse(config if i < len(records) else blank, payload, 1, i)
        assert check_example(arrays, config, PUBLISHED, example) == []
        audio += (arrays["audio_text_matching"] == AUDIOSPAN).any()
        rows, ids = arrays["audio2text/audio_ptr"], arrays["audio2text"]
        targets = set(rows[ids == MASK].tolist())
        heard = set(rows[ids == AUDIOSPAN].tolist())
        around = {row + step for row in targets for step in (-1, 1)} & set(range(48)) - targets
        numbers = np.repeat([0] * 16 if parity_mode else [placed.run for placed in example.segments], 3)
        around = {r for r in around if any(r + s in targets and numbers[r] == numbers[r + s] for s in (-1, 1))}
        beside += len(around)
        neighbours += len(around - heard)
    assert abs(audio / parses - 0.5) < 0.12
    assert abs(neighbours / beside - 0.8) < 0.03


def test_the_checks_accept_the_reference_batch(golden, records, base):
    held = np.load(golden / "j_batch2.npz")
    config = base.with_parity()
    examples = {e.segments[0].text.video_id: e for e in map(parse_example, records)}
    for b, video in enumerate(held["youtube_id"]):
        example = examples[str(video)]
        arrays = {}
        for name, (shape, dtype) in PretrainingParser(config, PUBLISHED).spec().items():
            arrays[name] = held[name][b].astype(dtype) if name in held.files else np.zeros(shape, dtype)
        for clip, placed in zip(arrays["audio_clips"].reshape(16, 180, 65), example.segments, strict=True):
            clip[:, 64] = placed.segment.speed
        assert check_example(arrays, config, PUBLISHED, example) == []


def first(arrays, name, token):
    return tuple(np.argwhere(arrays[name] == token)[0])


def _drop_mask(a):
    a["text2audio"][first(a, "text2audio", MASK)] = 1000


def _orphan_mask(a):
    at = first(a, "text2audio", MASKAUDIO)
    a["text2audio"][at], a["text2audio/text_ptr"][at] = 1000, -1


def _break_run(a):
    # Not the last sound of a sequence, which may be cut.
    a["audio2text"][first(a, "audio2text", AUDIOSPAN)] = 1000


def _misplace_text(a):
    a["audio2text"][a["audio2text/audio_ptr"] == a["audio2text/audio_ptr"][first(a, "audio2text", AUDIOSPAN)]] = 1000


def _padding_inside(a):
    a["random_text"][0, 5] = PADDING


def _lose_pool(a):
    a["audio_text_matching"][first(a, "audio_text_matching", LTOVPOOL)] = 1000


def _other_words(a):
    at = first(a, "text2audio", MASK)
    a["text2audio"][at[0], at[1] - 1 if at[1] else at[1] + 2] = 31_000


def _swap_rows(a):
    a["text2audio/audio_ptr"][0] = a["text2audio/audio_ptr"][0, ::-1]


def _hole_in_span(a):
    a["text_spans"][0, :3] = (5000, 0, 5000)


def _foreign_span(a):
    a["text_spans"][12, :2] = 31_000


def _unspoken_span(a):
    a["text_spans"][24, 0] = 149


def _wrong_speed(a):
    a["audio_clips"][7, 64] = 2


def _loud(a):
    a["audio_clips"][7, 5] = 300


def _bright(a):
    a["images"][0, 0] = 1.5


def _renumber(a):
    a["video_src_index"][3] += 1


def _big_id(a):
    a["random_text"][0, 3] = 40_000


def _point_back(a):
    a["random_text/text_ptr"][first(a, "random_text", MASK)] = 60


def _wrong_type(a):
    a["text_spans"] = a["text_spans"].astype(np.int64)


@pytest.mark.parametrize(
    "damage",
    [
        *(_drop_mask, _orphan_mask, _break_run, _misplace_text, _padding_inside, _lose_pool, _other_words, _swap_rows),
        *(_hole_in_span, _foreign_span, _unspoken_span, _wrong_speed, _loud, _bright, _renumber, _big_id, _point_back),
        _wrong_type,
    ],
)
def test_the_checks_see_every_damage(records, base, damage):
    arrays = parse(base, records[0])
    example = parse_example(records[0])
    assert check_example(arrays, base, PUBLISHED, example) == []
    damage(arrays)
    assert check_example(arrays, base, PUBLISHED, example) != []


@st.composite
def made_examples(draw):
    segments = draw(st.sampled_from([2, 6, 16]))
    cuts = draw(st.sets(st.integers(1, segments - 1), max_size=segments - 1))
    borders = [0, *sorted(cuts), segments]
    runs = [b - a for a, b in itertools.pairwise(borders)]
    lengths = st.sampled_from([0, 0, 1, 3, 15, 40, 220])
    tokens = draw(st.lists(lengths, min_size=segments, max_size=segments))
    speeds = draw(st.lists(st.integers(1, 3), min_size=segments, max_size=segments))
    size = draw(st.sampled_from([(18, 32), (40, 30), (64, 64)]))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    return make_example(
        rng, "made", runs, tokens, speeds, size, draw(st.integers(0, 2)), draw(st.sampled_from([0, 9, 400]))
    )


@settings(max_examples=40, deadline=None)
@given(example=made_examples(), seed=st.integers(0, 9999), parity_mode=st.booleans())
def test_all_invariants_hold_on_any_example(example, seed, parity_mode):
    segments, texts = len(example.segments), min(len(example.random_text), 1)
    config = ReaderConfig(
        segments=segments,
        groups=2,
        grid=(2, 3),
        random_text_sequences=texts,
        random_text_spans=38,
        matching_audio_rate=0.5,
        parity=parity_mode,
    )
    payload = example.serialize()
    # What was serialised is what the checks compare with.
    assert check_example(parse(config, payload, seed), config, PUBLISHED, parse_example(payload)) == []


def test_words_and_headers_stay_with_their_video(base):
    rng = np.random.default_rng(0)
    example = make_example(rng, "two", [8, 8], [20] * 16, [1] * 16, header=5)
    config = replace(base, random_text_sequences=0, matching_audio_rate=1.0, text_length=400)
    payload = example.serialize()
    first_words = sum(placed.segment.tokens.size for placed in example.segments[:8])
    for seed in range(10):
        arrays = parse(config, payload, seed)
        ids, pointers = arrays["text2audio"][0], arrays["text2audio/text_ptr"][0]
        spoken = int(((ids != PADDING) & (pointers < 0)).sum())
        masked = sum(int((arrays["text_spans"][p] != PADDING).sum()) for p in pointers[ids == MASK])
        if (arrays["text_spans"][:24, -1] == PADDING).all():
            assert spoken + masked == first_words
        matching = arrays["audio_text_matching"][0].tolist()
        for placed in (example.segments[0], example.segments[8]):
            title = placed.text.title
            assert any(matching[i : i + 5] == title for i in range(600))
        published = parse(config.with_parity(), payload, seed)["audio_text_matching"][0].tolist()
        assert not any(published[i : i + 5] == example.segments[8].text.title for i in range(600))


def test_validation_does_not_zoom(records, base):
    still = replace(base, random_scale=True, stream=StreamOptions(training=False))
    np.testing.assert_array_equal(parse(still, records[0], 1)["images"], parse(still, records[0], 2)["images"])
    moving = replace(base, random_scale=True)
    assert (parse(moving, records[0], 1)["images"] != parse(moving, records[0], 2)["images"]).any()


def test_wide_and_narrow_types_hold_the_same_numbers(records, base):
    exact = parse(base, records[0])
    narrow = parse(replace(base, image_dtype="bfloat16", audio_dtype="bfloat16"), records[0])
    for name in ("images", "audio_clips"):
        np.testing.assert_array_equal(narrow[name], exact[name].astype(narrow[name].dtype))
    eight = parse(replace(base, image_dtype="uint8"), records[0])["images"]
    assert np.abs(eight / 255 - exact["images"]).max() <= 0.5 / 255 + 1e-6


def test_records_with_impossible_contents_are_refused(base):
    rng = np.random.default_rng(0)
    config = replace(base, segments=2, random_text_sequences=0, grid=(2, 3))
    example = make_example(rng, "bad", [2], [4, 4], [1, 1])
    example.segments[0].segment.tokens[1] = MASK
    with pytest.raises(RecordError, match="token 3"):
        parse(config, example.serialize())
    with pytest.raises(RecordError, match="speed"):
        parse(config, make_example(rng, "bad", [2], [4, 4], [1, 4]).serialize())
    with pytest.raises(UsageError, match="set segments to 3"):
        parse(config, make_example(rng, "bad", [3], [4] * 3, [1] * 3).serialize())
    with pytest.raises(RecordError):
        parse(config, b"no record")


def test_verify_with_the_reader_finds_unreadable_records(tmp_path, golden):
    assert list(check_data(str(golden / "train00000of00001.tfrecord"))) == []
    data = write_data(tmp_path / "data", [2], segments=16, texts=1)
    assert list(check_data(data)) == []
    rng = np.random.default_rng(1)
    wrong = make_example(rng, "w", [16], [3] * 16, [1] * 15 + [7]).serialize()
    (tmp_path / "wrong.tfrecord").write_bytes(tfrecord.frame(wrong))
    findings = list(check_data(str(tmp_path / "wrong.tfrecord")))
    assert len(findings) == 1
    assert "speed" in findings[0].problem
    assert main(["verify", "--reader", str(golden / "train00000of00001.tfrecord")]) == 0
    assert main(["verify", "--reader", str(tmp_path / "wrong.tfrecord")]) == 1


def test_a_trained_vocabulary_spells_its_own_headers(tmp_path, base):
    trained = tokenizer.train_tokenizer(["the title: of a description: and its tags: ok"] * 3, 300)
    path = tmp_path / "tokenizer.json"
    path.write_text(trained.to_str())
    held = vocabulary.of_data(str(tmp_path), None)
    assert held.size == trained.get_vocab_size()
    assert held.digest == tokenizer.digest(path)
    assert trained.decode(list(held.headers["title:"])).strip() == "title:"
    spoken = [trained.decode([int(i)]) for i in np.flatnonzero(held.spoken)]
    assert all(re.fullmatch(r"[ A-Za-z0-9']+", text) for text in spoken)
    config = replace(base, segments=2, random_text_sequences=0, grid=(2, 3))
    parser = PretrainingParser(config, held)
    arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in parser.spec().items()}
    rng = np.random.default_rng(0)
    silent = make_example(rng, "silent", [2], [0, 0], [1, 1], header=0).serialize()
    parser(silent, lambda purpose: generator(0, purpose), arrays)
    matching = arrays["audio_text_matching"][0].tolist()
    assert matching[1 : 1 + len(held.headers["title:"])] == list(held.headers["title:"])
    foreign = make_example(rng, "foreign", [2], [5, 5], [1, 1], header=0)
    foreign.segments[0].segment.tokens[:] = 5000
    with pytest.raises(RecordError, match="token 5000"):
        parser(foreign.serialize(), lambda purpose: generator(0, purpose), arrays)


def test_the_valid_tokens_are_the_published_ones(golden, published_tokenizer):
    expected = np.load(golden / "j_token_is_valid.npz")["token_is_valid"]
    np.testing.assert_array_equal(PUBLISHED.spoken, expected)
    assert PUBLISHED.spoken.sum() == 32_362
    derived = vocabulary.from_file(str(published_tokenizer))
    np.testing.assert_array_equal(derived.spoken, expected)
    assert derived.headers == PUBLISHED.headers
    assert derived.digest == PUBLISHED.digest
