"""Lines of questions as people have them: what is used as it is written, and what is refused by name."""

import json
import math
import time

import pytest
import question_tasks

from ingest.questions.question import QuestionOutcome
from pipelines.questions.sandbox import attempt
from shards.records.choices import parse_record
from shards.records.vcr import parse_record as parse_vcr
from shards.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def vocabulary(published_tokenizer):
    return load_tokenizer(published_tokenizer)


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory):
    return question_tasks.make_folder(golden, tmp_path_factory.mktemp("lines"))


@pytest.fixture(scope="module")
def tasks(folder, published_tokenizer):
    return question_tasks.tasks(folder, str(published_tokenizer))


def prepared(tasks, task, change):
    prepare, line = tasks[task]
    return attempt(prepare, json.dumps(line | change).encode(), "train-0")


DEEP = 0
for _ in range(400):
    DEEP = [DEEP]
NAN = math.nan


@pytest.mark.parametrize(
    ("task", "change", "outcome", "sentence"),
    [
        ("choices", {"answers": None}, "bad-line", "'answers'"),
        ("choices", {"answers": ["a", 4]}, "bad-line", "at least 2 texts"),
        ("choices", {"answers": ["a", " a "]}, "bad-line", "the option 'a' twice"),
        ("choices", {"answers": ["a", " "]}, "bad-line", "an empty option, number 1"),
        ("choices", {"answers": ["a", "b", "c"]}, "bad-line", "3 answers and the data set has 2"),
        ("choices", {"answers": DEEP}, "bad-line", "at least 2 texts"),
        ("choices", {"question": None}, "bad-line", "'question'"),
        ("choices", {"question": 7}, "bad-line", "'question' is '7'"),
        ("choices", {"question": " "}, "bad-line", "'question' is empty"),
        ("choices", {"subtitle": 7}, "bad-line", "'subtitle' is '7'"),
        ("choices", {"id": [1]}, "bad-line", "'id'"),
        ("choices", {"id": ""}, "bad-line", "'id' is empty"),
        ("choices", {"id": "\ud83d"}, "bad-line", "a surrogate"),
        ("choices", {"id": "x" * 97}, "bad-line", "97 bytes"),
        ("choices", {"label": 10**30}, "label-out-of-range", "2 options"),
        ("choices", {"label": True}, "label-out-of-range", "2 options"),
        ("choices", {"image": "\ud83d.jpg"}, "bad-line", "a surrogate"),
        ("choices", {"image": "a\0.jpg"}, "bad-line", "a NUL"),
        ("choices", {"image": "x" * 300}, "image-missing", "there is no image"),
        ("choices", {"image": "x/" * 3000}, "image-missing", "there is no image"),
        ("choices", {"image": "data:image/png;base64,AAAA"}, "image-missing", "not a path"),
        ("choices", {"image": "https://example.org/a.jpg"}, "image-missing", "there is no image"),
        ("choices", {"image": "../private.jpg"}, "bad-line", "which is not in the folder"),
        ("choices", {"image": "a/../../private.jpg"}, "bad-line", "which is not in the folder"),
        ("choices", {"image": "/etc/passwd"}, "bad-line", "'/etc/passwd', which is not in the folder"),
        ("choices", {"image": "."}, "bad-line", "which is not in the folder"),
        ("choices", {"image": 7}, "bad-line", "'image' is '7'"),
        ("choices", {"video": "clip.mp4"}, "bad-line", "one of image and video"),
        ("choices", {"image": None, "video": "../clip.mp4"}, "bad-line", "which is not in the folder"),
        ("choices", {"image": None, "video": "clip.mp4", "start": NAN}, "bad-line", "start is 'nan'"),
        ("choices", {"image": None, "video": "clip.mp4", "end": 10**400}, "prepared", ""),
        ("choices", {"image": None, "video": "clip.mp4", "start": 10**400}, "times-outside", ""),
        ("choices", {"image": None, "video": "clip.mp4", "start": 9, "end": 3}, "times-outside", "9 to 3"),
        ("vcr", {"question": 7}, "bad-line", "'question'"),
        ("vcr", {"question": ""}, "bad-line", "'question' is empty"),
        ("vcr", {"question": [[True]]}, "bad-line", "object True"),
        ("vcr", {"question": [[10**30]]}, "bad-line", "mentions object"),
        ("vcr", {"question": DEEP}, "bad-line", "mentions object"),
        ("vcr", {"answer_choices": [None, ["a"], ["b"], ["c"]]}, "bad-line", "neither tokens nor a string"),
        ("vcr", {"answer_choices": [["a"], ["b"], ["c"], []]}, "bad-line", "empty option, number 3"),
        ("vcr", {"answer_choices": ["a", ["a"], "b", "c"]}, "bad-line", "'a' twice"),
        ("vcr", {"img_fn": "../../private.jpg"}, "bad-line", "'img_fn' is '../../private.jpg'"),
        ("vcr", {"metadata_fn": "../../private.json"}, "bad-line", "'metadata_fn' is"),
        ("vcr", {"metadata_fn": "/private.json"}, "bad-line", "'metadata_fn' is"),
        ("vcr", {"img_fn": "x" * 300}, "image-missing", "there is no image"),
        ("vcr", {"metadata_fn": "x" * 300}, "metadata-missing", "there is no metadata"),
        ("vcr", {"annot_id": "\udc80"}, "bad-line", "a surrogate"),
        ("tvqa", {"ts": "30.5-20"}, "bad-line", "the first the smaller one"),
        ("tvqa", {"ts": "12.1-nan"}, "bad-line", "both times must be numbers"),
        ("tvqa", {"ts": "nan-3"}, "bad-line", "both times must be numbers"),
        ("tvqa", {"ts": "9" * 50_000}, "bad-line", "not START-END"),
        ("tvqa", {"ts": None}, "bad-line", "not START-END"),
        ("tvqa", {"ts": "-9--5"}, "times-outside", "the clip ends"),
        ("tvqa", {"vid_name": "../s01e01_seg01_clip_00"}, "bad-line", "which is a path"),
        ("tvqa", {"vid_name": ".."}, "bad-line", "which is a path"),
        ("tvqa", {"vid_name": "x" * 300}, "frames-missing", "there are no frames"),
        ("tvqa", {"vid_name": "a\0b"}, "bad-line", "a NUL"),
        ("tvqa", {"show_name": "../bbt"}, "prepared", ""),
        ("tvqa", {"show_name": ".."}, "unknown-show", "is not one of the series"),
        ("tvqa", {"q": ""}, "bad-line", "'q' is empty"),
        ("tvqa", {"a1": " "}, "bad-line", "empty option, number 1"),
        ("tvqa", {"a1": "same", "a4": "same "}, "bad-line", "'same' twice, as numbers 1 and 4"),
        ("tvqa", {"qid": 10**200}, "bad-line", "bytes"),
    ],
)
def test_a_line_that_cannot_be_used_has_a_name(tasks, task, change, outcome, sentence):
    ended = prepared(tasks, task, change)
    assert (ended.outcome.value, sentence in ended.detail) == (outcome, True), ended.detail
    ended.detail.encode()
    assert len(ended.detail) < 500
    assert bool(ended.records) == (ended.outcome is QuestionOutcome.PREPARED)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"7", b"null", b"{", b"[" * 100_000, b'{"a": ' * 5000, b"\xff\xfe", b"1" * 5000]
)
def test_what_is_not_an_object_is_a_bad_line(tasks, text):
    for prepare, _ in tasks.values():
        assert attempt(prepare, text, "train-0").outcome is QuestionOutcome.BAD_LINE


def texts(vocabulary, record):
    return [vocabulary.decode(option.tolist()).strip() for option in record.options]


def test_half_an_emoji_in_a_text_is_replaced(tasks, vocabulary):
    ended = prepared(tasks, "choices", {"question": "cut \ud83d", "answers": ["a\udc00", "b"], "subtitle": "c \ud83d"})
    assert ended.outcome is QuestionOutcome.PREPARED
    record = parse_record(ended.records[0][1], 2, sound=False)
    assert vocabulary.decode(record.query.tolist()).strip() == "cut \ufffd"[: len("cut ")].strip()
    for task, change in (("vcr", {"question": ["why", "\ud83d"]}), ("tvqa", {"q": "why \ud83d?"})):
        assert prepared(tasks, task, change).outcome is QuestionOutcome.PREPARED


def test_null_is_as_good_as_missing(tasks):
    names = ("video", "start", "end", "subtitle", "id")
    ended = prepared(tasks, "choices", dict.fromkeys(names))
    assert ended.records[0][0] == "train-0"
    assert prepared(tasks, "choices", {"id": 7}).records[0][0] == "7"


def test_paths_inside_the_folder_may_be_spelt_in_any_way(tasks, folder):
    (folder / "own" / "linked").symlink_to(folder)
    for path in ("./a.jpg", "x/../a.jpg", str(folder / "own" / "a.jpg"), "linked/private.jpg"):
        assert prepared(tasks, "choices", {"image": path}).outcome is QuestionOutcome.PREPARED, path


def test_texts_of_vcr_that_are_not_tokens_are_used_as_written(tasks, vocabulary):
    change = {
        "question": "Why is he here: now?",
        "answer_choices": ["yes he is", ["It", "'s", "late", "."], "no", "He left."],
        "rationale_choices": ["a b", "b", "c", "d"],
    }
    record = parse_vcr(prepared(tasks, "vcr", change).records[0][1])
    assert vocabulary.decode(record.answer.query.tolist()).strip() == "why is he here  now?"
    assert texts(vocabulary, record.answer) == ["yes he is", "it's late.", "no", "he left."]
    assert texts(vocabulary, record.rationale)[0] == "a b"


@pytest.mark.parametrize(
    "name", ["the big bang theory", "The_Big_Bang_Theory", "TheBigBangTheory", " Big Bang Theory ", "bbt"]
)
def test_series_are_known_by_their_letters(tasks, name):
    assert prepared(tasks, "tvqa", {"show_name": name}).outcome is QuestionOutcome.PREPARED


@pytest.mark.parametrize(
    "name",
    ["Grey's Anatomy", "grey\u2019s anatomy", "Greys_Anatomy", "How I met your mother", "house md", "House M.D."],
)
def test_other_series_are_known_too(tasks, name):
    assert prepared(tasks, "tvqa", {"show_name": name}).outcome is QuestionOutcome.FRAMES_MISSING


def test_marks_of_how_a_subtitle_looks_are_not_words(tasks, folder, vocabulary):
    srt = folder / "tvqa" / "tvqa_subtitles" / "s01e01_seg01_clip_00.srt"
    kept = srt.read_text()
    try:
        marked = r'{\an8}<i>So</i> <font color="#ffffff">it</font> is.'
        srt.write_text("".join(f"{i}\n00:00:{i:02d},000 --> 00:00:{i:02d},900\n{marked}\n\n" for i in range(1, 60)))
        record = parse_record(prepared(tasks, "tvqa", {}).records[0][1], 5)
    finally:
        srt.write_text(kept)
    words = {word for s in record.segments for word in vocabulary.decode(s.subtitle.tolist()).split()}
    assert words == {"so", "it", "is."}


@pytest.mark.parametrize(
    ("boxes", "outcome"),
    [
        ([[-1e300, -1e300, 1e300, 1e300]], "prepared"),
        ([[math.inf, math.inf, -math.inf, -math.inf]], "prepared"),
        ([[50, 40, 10, 5]], "prepared"),
        ([[1e9, 1e9, 2e9, 2e9]], "prepared"),
        ([[2**40, 0, -(2**40), 10**18]], "prepared"),
        ([[NAN, 0, 5, 5]], "metadata-unreadable"),
        ([[10**400, 0, 5, 5]], "metadata-unreadable"),
        ([[0, 0, 5]], "metadata-unreadable"),
        ([7], "metadata-unreadable"),
        (None, "metadata-unreadable"),
    ],
)
def test_boxes_of_any_size_are_drawn_at_once(tasks, folder, boxes, outcome):
    place = folder / "vcr1" / "vcr1images"
    (place / "boxes.json").write_text(json.dumps({"names": ["person"], "boxes": boxes, "width": 120}))
    change = {"metadata_fn": "boxes.json", "question": ["Who", "?"], "rationale_choices": ["a", "b", "c", "d"]}
    begun = time.process_time()
    ended = prepared(tasks, "vcr", change | {"answer_choices": ["a", "b", "c", "d"]})
    assert ended.outcome.value == outcome, ended.detail
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "metadata",
    [
        *('{"names": "ab", "boxes": [[0,0,1,1],[0,0,1,1]], "width": 9}', "[" * 100_000, "7", "[]", ""),
        *('{"names": [], "boxes": [], "width": NaN}', '{"names": [], "boxes": [], "width": Infinity}'),
        '{"names": [], "boxes": [], "width": 0}',
        json.dumps({"names": ["a"] * 5000, "boxes": [[0, 0, 1, 1]] * 5000, "width": 9}),
    ],
)
def test_metadata_that_cannot_be_used_are_named(tasks, folder, metadata):
    (folder / "vcr1" / "vcr1images" / "odd.json").write_text(metadata)
    assert prepared(tasks, "vcr", {"metadata_fn": "odd.json"}).outcome is QuestionOutcome.METADATA_UNREADABLE
