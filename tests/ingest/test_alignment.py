import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.alignment import align


def test_golden_alignments(golden):
    compared = 0
    for case in json.loads((golden / "c_dtw.json").read_text()):
        if "result" in case:
            assert align(case["input_asr"], case["other"]) == case["result"], case["name"]
            compared += 1
    assert compared >= 9


def test_reference_example():
    asr, other = ["i", "like", "pan", "cake", "a", "lot"], ["I", "like", "pancake", "a", "lot"]
    assert align(asr, other) == ["I", "like", "", "pancake", "a", "lot"]


def test_an_empty_side_ends_at_once():
    assert align(["a", "b"], []) == ["", ""]
    assert align([], ["a"]) == []


words = st.lists(st.text("abcde", min_size=1, max_size=4), max_size=60)


@settings(max_examples=50)
@given(words, words)
def test_order_is_kept_and_no_word_is_invented(asr, other):
    slots = align(asr, other)
    assert len(slots) == len(asr)
    placed = " ".join(slot for slot in slots if slot).split()
    assert placed == other[: len(placed)] or len(placed) <= len(other)
    remaining = iter(other)
    assert all(word in remaining for word in placed)


def test_long_transcripts_stay_within_the_band():
    asr = [f"w{i % 997}" for i in range(6000)]
    other = asr[:2000] + ["extra"] * 50 + asr[2000:]
    slots = align(asr, other)
    assert slots[0] == "w0"
    assert sum(slot == word for slot, word in zip(slots, asr, strict=True)) > 5900
