"""Folders of videos and what is read of the files beside them: names, encodings, limits."""

import gzip
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import folders
from ingest.captions import read
from ingest.raw import (
    CAPTION_BYTES,
    INFO_BYTES,
    RawError,
    decode_text,
    from_folder,
    from_layout,
    layout_paths,
    list_folder,
    list_videos,
    parse_info,
)
from ingest.transcript import TrackKind, ranked_tracks
from shards.outcomes import Outcome

CASES = Path(__file__).parent.parent / "fixtures" / "cases"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.000\na<00:00:00.500><c> b</c>\n"


def fill(folder, *names):
    """Empty files, an hour old so that a listing of their folder is kept."""
    for name in names:
        (folder / name).write_text("{}" if name.lower().endswith("json") else "")
    os.utime(folder, (time.time() - 3600,) * 2)


def codes(folder, media="a.mp4"):
    return [(track.code, track.form) for track in from_folder(str(folder / media)).captions]


@pytest.mark.parametrize(
    ("name", "code", "form"),
    [
        ("a.en.vtt", "en", "vtt"),
        ("a.EN.VTT", "en", "vtt"),
        ("a.en-orig.json3", "en-orig", "json3"),
        ("a.EN-ORIG.vtt", "en-orig", "vtt"),
        ("a.en_US.srt", "en-US-manual", "srt"),
        ("a.en-manual.vtt", "en-manual", "vtt"),
        ("a.eng.vtt", "eng", "vtt"),
        ("a.zh-Hans.vtt", "zh-Hans", "vtt"),
        ("a.vtt", "und", "vtt"),
        ("a.SRT", "und-manual", "srt"),
    ],
)
def test_names_of_caption_files(tmp_path, name, code, form):
    fill(tmp_path, "a.mp4", name)
    assert codes(tmp_path) == [(code, form)]
    [video] = list_videos(str(tmp_path))
    assert video.beside == (name,)
    assert not video.unread


def test_a_file_without_a_language_has_the_requested_one(tmp_path):
    fill(tmp_path, "a.mp4", "a.vtt", "a.srt", "a.de.vtt")
    raw = from_folder(str(tmp_path / "a.mp4"))
    assert [(kind, track.code) for kind, track in ranked_tracks(raw, "en")] == [
        (TrackKind.ASR_ORIGINAL, "und"),
        (TrackKind.UPLOADED, "und-manual"),
    ]
    assert [track.code for _, track in ranked_tracks(raw, "de")] == ["de", "und", "und-manual"]


def test_forms_that_are_not_read_are_named(tmp_path):
    fill(tmp_path, "a.mp4", "a.en.ass", "a.ttml", "a.en.vtt", "a.txt", "b.en.ass")
    [video] = list_videos(str(tmp_path))
    assert video.beside == ("a.en.vtt",)
    assert video.unread == ("a.en.ass", "a.ttml")


def test_a_name_that_ends_like_a_language_keeps_its_captions(tmp_path):
    fill(tmp_path, "talk.de.mp4", "talk.de.vtt", "talk.de.en.vtt", "talk.mp4", "talk.en.vtt", "talk.fr.vtt")
    expected = {"talk.de": ("talk.de.en.vtt", "talk.de.vtt"), "talk": ("talk.en.vtt", "talk.fr.vtt")}
    assert {video.id: video.beside for video in list_videos(str(tmp_path))} == expected
    for name, files in expected.items():
        assert sorted(folders.companions_of(str(tmp_path / f"{name}.mp4"))) == list(files)


def test_hidden_files_and_upper_case(tmp_path):
    fill(tmp_path, "A.MP4", "A.EN.VTT", "A.INFO.JSON", "._A.MP4", "._A.EN.VTT", ".DS_Store", ".hidden.mp4", "notes.txt")
    [video] = list_videos(str(tmp_path))
    assert (video.id, video.beside) == ("A", ("A.EN.VTT", "A.INFO.JSON"))
    (tmp_path / "A.MP4").unlink()
    with pytest.raises(RawError, match=r"holds no videos .*; 4 hidden files are passed over"):
        list_videos(str(tmp_path))


def test_of_two_files_with_one_name_the_first_has_the_id(tmp_path):
    fill(tmp_path, "a.mkv", "a.mp4", "a.webm", "a.en.vtt", "b.mkv", "b.webm")
    videos = {video.id: video for video in list_videos(str(tmp_path))}
    assert {name: video.duplicate_of for name, video in videos.items()} == {
        **{"a": "", "a.mkv": "a.mp4", "a.webm": "a.mp4"},
        **{"b": "", "b.webm": "b.mkv"},
    }
    assert videos["a"].media.endswith("a.mp4")
    assert videos["a"].beside == ("a.en.vtt",)
    assert [Path(path).name for path in list_folder(str(tmp_path))] == ["a.mp4", "b.mkv"]


def test_a_name_that_is_not_utf8_becomes_a_printable_id(tmp_path):
    fill(tmp_path, "ok.mp4")
    for suffix in (b".mp4", b".en.vtt"):
        Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9" + suffix)).write_bytes(b"")
    bad, good = list_videos(str(tmp_path))
    assert (bad.id, bad.readable_name, good.id, good.readable_name) == ("caf\\xe9", False, "ok", True)
    assert "\\xe9" in bad.media
    assert list_folder(str(tmp_path)) == [str(tmp_path / "ok.mp4")]


@given(st.binary(min_size=1, max_size=20))
def test_every_name_becomes_text_that_can_be_printed(name):
    text = folders.printable(os.fsdecode(name))
    assert text.encode().decode() == text
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)


@pytest.mark.parametrize("change", ["content", "time", "gone", "companion"])
def test_a_version_changes_with_any_file_that_is_read(tmp_path, change):
    fill(tmp_path, "a.mp4", "a.en.vtt", "a.txt", "b.mp4")
    before = {video.id: video for video in list_videos(str(tmp_path))}
    a = before["a"]
    assert folders.current_version(a.media, a.beside) == a.version
    (tmp_path / "a.txt").write_text("other")
    assert folders.current_version(a.media, a.beside) == a.version
    if change == "content":
        (tmp_path / "a.mp4").write_text("other")
    elif change == "time":
        os.utime(tmp_path / "a.mp4", (1, 1))
    elif change == "gone":
        (tmp_path / "a.mp4").unlink()
    else:
        (tmp_path / "a.en.vtt").write_text("other")
    assert folders.current_version(a.media, a.beside) != a.version
    after = {video.id: video.version for video in list_videos(str(tmp_path))}
    assert after.get("a") != a.version
    assert after["b"] == before["b"].version


def test_cost_of_a_video_does_not_grow_with_the_folder(tmp_path):
    seconds = {}
    for count in (100, 16_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            for suffix in (".mp4", ".en.vtt", ".info.json"):
                (folder / f"v{i:06d}{suffix}").touch()
        os.utime(folder, (time.time() - 3600,) * 2)
        start = time.process_time()
        for i in range(100):
            assert len(from_folder(str(folder / f"v{i:06d}.mp4")).captions) == 1
        seconds[count] = (time.process_time() - start) / 100
    assert seconds[16_000] < 0.002, seconds


def test_a_file_that_arrives_later_is_seen(tmp_path):
    (tmp_path / "a.mp4").touch()
    assert codes(tmp_path) == []
    (tmp_path / "a.en.vtt").touch()
    assert codes(tmp_path) == [("en", "vtt")]
    (tmp_path / "a.de.vtt").touch()
    assert codes(tmp_path) == [("de", "vtt"), ("en", "vtt")]


def test_captions_of_a_windows_editor():
    text = decode_text((CASES / "cp1252-captions" / "a.en.vtt").read_bytes())
    assert [word.text for word in read(text, "vtt").words] == ["don’t", "drop", "the", "café…", "cup"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("é’…".encode(), "é’…"),
        ("é’…".encode("utf-8-sig"), "é’…"),
        ("é’…".encode("utf-16"), "é’…"),
        ("\ufeffé’…".encode("utf-16-be"), "é’…"),
        ("é, ’, …".encode("cp1252"), "é, ’, …"),
        (b"caf\xe9 \x81\x8d\x8f\x90\x9d", "café " + "\ufffd" * 5),
        (b"", ""),
    ],
)
def test_encodings(data, text):
    assert decode_text(data) == text


@given(st.binary(max_size=50))
def test_any_bytes_are_text_without_c1_controls_of_windows_1252(data):
    text = decode_text(data)
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            assert not any(0x80 <= ord(c) < 0xA0 for c in text)


def zeros(count):
    """So many bytes of JSON blanks, packed."""
    return gzip.compress(b" " * (1 << 20), mtime=0) * (count >> 20)


def test_what_is_too_large_is_not_read(tmp_path):
    fill(tmp_path, "a.mp4", "b.mp4")
    with (tmp_path / "a.en.vtt").open("wb") as file:
        file.truncate(CAPTION_BYTES + 1)
    with (tmp_path / "b.info.json").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("a", "b"):
        with pytest.raises(RawError, match=r"more than [\d,]+ bytes") as raised:
            from_folder(str(tmp_path / f"{name}.mp4"))
        assert raised.value.outcome is Outcome.TOO_LARGE


def test_an_archive_is_unpacked_within_a_limit(tmp_path):
    import tracemalloc

    place = layout_paths(str(tmp_path), "gOldVidA_01").info
    place.parent.mkdir(parents=True)
    place.write_bytes(zeros(3 << 30))
    assert place.stat().st_size < 4 << 20
    tracemalloc.start()
    with pytest.raises(RawError) as raised:
        from_layout(str(tmp_path), "gOldVidA_01")
    assert tracemalloc.get_traced_memory()[1] < 3 * INFO_BYTES
    tracemalloc.stop()
    assert raised.value.outcome is Outcome.TOO_LARGE


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"{}", mtime=0)[:-5]])
def test_an_archive_that_is_none_is_named(tmp_path, content):
    place = layout_paths(str(tmp_path), "gOldVidA_01").info
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    if content:
        with pytest.raises(RawError, match="is not a gzip file"):
            from_layout(str(tmp_path), "gOldVidA_01")
    else:
        assert from_layout(str(tmp_path), "gOldVidA_01").info == {}


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"duration": ' + b"9" * 5000 + b"}",
        b"[1]",
        b"\xff",
        b"",
    ],
)
def test_metadata_that_are_no_flat_object_are_none(data):
    assert parse_info(data) == {}
