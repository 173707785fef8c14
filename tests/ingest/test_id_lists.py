"""Lists of videos as people have them: encodings, line ends, delimiters, headers, quotes, addresses."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.id_lists import column_note, read_entries, resolved
from ingest.ids import refusal, video_id
from ingest.raw import RawError
from shards.outcomes import Outcome

A, B, C = "gOldVidA_01", "gOldVidB_02", "gOld-idC_03"


def ids_of(path):
    return [video_id(entry) for entry in read_entries(str(path))]


@pytest.fixture
def listed(tmp_path):
    """The ids of a list with some content."""

    def read(content):
        path = tmp_path / "list"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ids_of(path)

    return read


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "  <{}>  ",
        '"{}"',
        "youtube {}",
        "https://www.youtube.com/watch?v={}",
        "HTTP://WWW.YOUTUBE.COM/watch?v={}",
        "HTTPS://YOUTUBE.COM/WATCH?V={}",
        "https://www.youtube.com/watch?app=desktop&amp;v={}&amp;t=3",
        "https://www.youtube.com/watch?v={}#t=30",
        "https://www.youtube.com/watch?v={}?t=30",
        "https://www.youtube.com/watch?list=PLabcdefghijk&v={}&index=2",
        "https://www.youtube.com/watch#!v={}",
        "https://www.youtube.com:443/watch?v={}",
        "https://www.youtube.com/watch/{}",
        "https://www.youtube.com/shorts/{}?feature=share",
        "https://www.youtube.com/embed/{}?rel=0",
        "https://www.youtube.com/live/{}/",
        "https://www.youtube.com/v/{}&hl=en",
        "https://www.youtube.com/e/{}",
        "https://m.youtube.com/watch?v={}",
        "https://music.youtube.com/watch?v={}&list=RDAMVM",
        "https://gaming.youtube.com/watch?v={}",
        "https://www.youtube-nocookie.com/embed/{}",
        "//www.youtube.com/embed/{}",
        "youtu.be/{}?si=x",
        "(https://youtu.be/{}).",
        "https://youtu.be/watch?v={}",
        "https://www.youtube.com/attribution_link?a=x&u=%2Fwatch%3Fv%3D{}%26feature%3Dshare",
        "https://consent.youtube.com/m?continue=https%3A%2F%2Fwww.youtube.com%2Fwatch%3Fv%3D{}&gl=DE",
        "https://consent.youtube.com/ml?continue=https://www.youtube.com/watch?v={}&gl=DE",
        "https://www.youtube.com/redirect?q=https%3A%2F%2Fyoutu.be%2F{}",
        "https://www.google.com/url?q=https://www.youtube.com/watch?v={}&sa=D",
        "https://www.youtube.com/oembed?url=https%3A%2F%2Fwww.youtube.com%2Fwatch%3Fv%3D{}",
    ],
)
def test_every_form_of_an_address_names_its_video(form):
    for name in (A, B, C, "-_-_-_-_-_-"):
        assert video_id(form.format(name)) == name


@pytest.mark.parametrize(
    ("entry", "outcome"),
    [
        ("https://www.youtube.com/playlist?list=PLabcdefghijk", Outcome.PLAYLIST),
        ("https://www.youtube.com/watch?list=PLabcdefghijk", Outcome.PLAYLIST),
        ("https://www.youtube.com/embed/videoseries?list=PLabcdefghijk", Outcome.PLAYLIST),
        ("https://www.youtube.com/embed/live_stream?channel=UCabcdefghijk", Outcome.PLAYLIST),
        ("https://www.youtube.com/channel/UCabcdefghijk", Outcome.PLAYLIST),
        ("https://www.youtube.com/@somebody/videos", Outcome.PLAYLIST),
        ("https://www.youtube.com/c/somebody", Outcome.PLAYLIST),
        ("PLabcdefghijklmnopqrstuvwxyz0123456", Outcome.PLAYLIST),
        ("@somebody", Outcome.PLAYLIST),
        ("https://www.youtube.com/", Outcome.BAD_ID),
        ("https://example.com/watch?v=gOldVidA_01", Outcome.BAD_ID),
        ("https://youtube.com.example.com/watch?v=gOldVidA_01", Outcome.BAD_ID),
        ("https://www.youtube.com/watch?v=gOldVidA_012", Outcome.BAD_ID),
        ("live_stream", Outcome.BAD_ID),
        ("http://[bad", Outcome.BAD_ID),
    ],
)
def test_what_names_no_video_says_what_it_is(entry, outcome):
    assert video_id(entry) is None
    assert refusal(entry)[0] is outcome
    assert repr(entry) in refusal(entry)[1]


@given(st.text(max_size=60))
def test_any_text_names_a_video_or_has_an_outcome(entry):
    name, outcome, detail = resolved(entry)
    assert (outcome is None) == (detail == "")
    assert outcome is None or name.isprintable() or all(not c.isspace() or c == " " or ord(c) > 127 for c in name)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings_and_line_ends(listed, end, encoding):
    assert listed(end.join(["# a list", A, "", B, A]).encode(encoding)) == [A, B, A]
    assert listed(end.join(["title,video_id", f"a,{A}", f'"b, c",{B}']).encode(encoding)) == [A, B]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize(
    "header", ["video_id", "Video ID", "id", "url", "youtube_id", "youtube_url", "YouTube-URL", "link", "description"]
)
def test_a_table_is_read_by_the_column_that_names_videos(listed, tmp_path, delimiter, header):
    rows = [["title", header, "views"], ["a", A, "1"], ["information", f"https://youtu.be/{B}", "22222222222"]]
    assert listed("\n".join(delimiter.join(row) for row in rows)) == [A, B]
    note = column_note(str(tmp_path / "list"))
    assert (note is None) == (header == "video_id" and delimiter == ",")
    assert note is None or repr(header) in note


def test_of_several_columns_the_one_with_videos_is_read(listed):
    assert listed(f"id,url\n1,https://youtu.be/{A}\n2,https://youtu.be/{B}\n") == [A, B]
    assert listed(f"url,id\nhttps://example.com,{A}\nhttps://example.com,{B}\n") == [A, B]


def test_tables_without_a_header(listed):
    assert listed(f"{A},the title of a\n{B},the title of b\n") == [A, B]
    assert listed(f"1\t{A}\n2\t{B}\n") == [A, B]
    assert listed(f"{A}, {B}\n") == [A, B]
    assert listed(f"{A};{B};{C}\n") == [A, B, C]


def test_a_list_of_addresses_with_marks_of_html_is_no_table(listed):
    address = "https://www.youtube.com/watch?feature=share&amp;v={}&amp;t=1"
    assert listed("\n".join(address.format(name) for name in (A, B))) == [A, B]


def test_remarks_are_no_part_of_an_entry(listed):
    assert listed(f"# {C}\n{A} # the first\nhttps://youtu.be/{B}#t=3\n") == [A, B]


@pytest.mark.parametrize("opened", ['"never closed', 'a "quoted" title', '5" screen', '"half" a title', '""', '"'])
def test_a_quote_that_is_never_closed_costs_no_row(listed, opened):
    rows = [f"{opened},{A}", f"b,{B}", f'"fine, title",{C}', *(f"t{i},x{i:010d}" for i in range(2000))]
    found = listed("title,video_id\n" + "\n".join(rows))
    assert found[:3] == [A, B, C]
    assert len(found) == 2003


def test_a_field_may_have_several_lines(listed):
    assert listed(f'title,video_id\n"a\n\nb ""c""\n, d",{A}\ne,{B}\n') == [A, B]


def test_a_field_longer_than_the_parser_takes_costs_no_row(listed):
    long = "x" * (csv.field_size_limit() + 1)
    assert listed(f'title,video_id\n"{long}",{A}\nb,{B}\n') == [A, B]


def test_a_row_without_the_column_is_named(tmp_path):
    path = tmp_path / "list"
    path.write_text(f"title,views,video_id\na,1,{A}\nbroken row\nb,2,\n")
    assert list(read_entries(str(path))) == [A, "broken row"]


def test_a_long_entry_gets_a_short_name_of_its_own():
    names = {resolved("x" * 5000 + end)[0] for end in "ab"}
    assert len(names) == 2
    assert all(len(name) < 250 for name in names)


def test_a_table_without_ids_is_refused(listed):
    with pytest.raises(RawError, match="has no column 'video_id'; it has title, name"):
        listed("title,name\na,b\n")


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20),
            st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([",", "\t", ";"]),
)
def test_what_the_csv_module_writes_is_read(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("lists") / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([("title", "video_id"), *((title, f"{name}") for title, name in rows)])
    commented = sum(title.lstrip("\ufeff \t").startswith("#") for title, _ in rows)
    assert len(list(read_entries(str(path)))) == len(rows) - commented
