import json

import demoji
import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import text as text_module
from ingest.text import clean_description, clean_web_text, neutralise
from shards.tokens import SPECIAL_TOKENS


def test_golden_descriptions(golden):
    for case in json.loads((golden / "b_clean.json").read_text())["clean_description"]:
        assert clean_description(case["input"]) == case["result"]


def test_golden_web_text(golden):
    for case in json.loads((golden / "b_clean.json").read_text())["clean_text"]:
        assert clean_web_text(case["input"], False) == case["plain_branch_random_le_0_5"]["result"]
        assert clean_web_text(case["input"], True) == case["spelled_branch_random_gt_0_5"]["result"]


def test_reference_sentences():
    text = "Cost $25.50 and $1,000 at 3:05 pm, 12:00, 7:45; the 21st, 3rd & 150 or 99%"
    assert clean_web_text(text, False) == (
        "Cost $25.50 and $1,000 at 3:05 pm, 12:00, 7:45; the 21st, 3rd and 150 or 99 percent"
    )
    assert clean_web_text(text, True) == (
        "Cost twenty-five dollars and one dollars,zero at three oh five pm, twelve, seven forty-five; the twenty-first,"
        " third and 150 or ninety-nine percent"
    )
    assert clean_web_text("wow!!! ??? ... ,,,,", False) == "wow! ? . ,"


@pytest.mark.parametrize(
    "text", ["9" * 6000, "$" + "9" * 6000, "0" * 6000, "9" * 6000 + "th", "(" * 5000, "www." + "(" * 3000]
)
def test_absurd_text_ends_quickly(text):
    clean_web_text(text, True)
    clean_description(text)


@given(st.lists(st.one_of(st.sampled_from(SPECIAL_TOKENS), st.text(max_size=5), st.just("<|")), max_size=8))
def test_no_special_spelling_survives(parts):
    text = neutralise("".join(parts))
    assert not any(token in text for token in SPECIAL_TOKENS)


_PIECES = st.sampled_from(
    [
        "plain words ",
        "&amp;",
        "&",
        "& ",
        "<p>",
        "\n",
        "\r\n",
        "\r",
        "â€™",
        "caf\xe9 ",
        "ﬁ",
        "’",
        "\x07",
        "\x1b[1m",
        "&#39;",
    ]
)


@given(st.lists(st.one_of(_PIECES, st.text(max_size=4)), max_size=12).map("".join))
def test_sparing_clean_lines_repairs_as_ftfy_does(text):
    assert text_module._repair(text) == ftfy.fix_text(text)


@given(st.text(st.sampled_from("1#*a \n©®™‼️⃣\u200d👨👩👧🏽🇩🇪☺\U000e0067\U000e007f"), max_size=12))
def test_every_emoji_is_found_in_its_run(text):
    expected, names = text, demoji.findall(text)
    for emoji in sorted(names, key=lambda sequence: (-len(sequence), sequence)):
        expected = expected.replace(emoji, f"[{names[emoji].replace(' ', '')}]")
    assert text_module._name_emoji(text) == expected
