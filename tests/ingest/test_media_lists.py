"""Files that name other files: only the container that was given is ever opened, whatever its name and content."""

import contextlib
import os
import socket
import struct

import pytest
from PIL import Image

from ingest import media
from ingest.media.containers import MediaError
from shards.outcomes import Outcome
from tests.numbered_media import ffmpeg

SUFFIXES = ("mp4", "mkv", "m3u8", "ts")


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A film that only its owner should see."""
    path = tmp_path_factory.mktemp("secret") / "secret.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc=d=2:s=64x48:r=10", "-f", "lavfi", "-i", "sine=d=2", "-shortest", path)
    for number in range(1, 6):
        Image.new("RGB", (64, 48)).save(path.parent / f"{number}.png")
    return path


def lists(secret, port):
    """Content by kind: each names the secret, or an address."""
    address = f"http://127.0.0.1:{port}/secret.ts"
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">'
        '<Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "playlist": f"{head}{secret}\n#EXT-X-ENDLIST\n",
        "playlist-address": f"{head}{address}\n#EXT-X-ENDLIST\n",
        "playlist-file": f"{head}file://{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat-subfile": f"ffconcat version 1.0\nfile 'subfile,,start,0,end,0,,:{secret}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": mpd.format(secret),
        "dash-address": mpd.format(address),
        "text": str(secret),
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", sorted(lists("", 0)))
def test_lists_are_unreadable(tmp_path, secret, kind, suffix):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        path = tmp_path / f"v.{suffix}"
        path.write_text(lists(secret, server.getsockname()[1])[kind])
        with pytest.raises(MediaError) as raised:
            media.probe(str(path))
        assert raised.value.outcome is Outcome.MEDIA_UNREADABLE
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("name", ["concat:a|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "%d.mp4", "data:x.mp4", "-i.mp4"])
def test_a_name_is_only_a_name(tmp_path, secret, name):
    path = tmp_path / name
    path.write_bytes(secret.read_bytes())
    assert media.probe(str(path)).has_picture


def test_a_name_relative_to_the_folder(tmp_path, secret, monkeypatch):
    (tmp_path / "pipe:0").write_bytes(secret.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert media.probe("pipe:0").has_picture


def test_pictures_by_number_are_no_film(tmp_path, secret):
    path = secret.parent / "%d.png"
    with pytest.raises(MediaError) as raised:
        media.probe(str(path))
    assert raised.value.outcome is Outcome.MEDIA_MISSING
    os.link(secret.parent / "1.png", tmp_path / "%d.png")
    with pytest.raises(MediaError) as raised:
        media.probe(str(tmp_path / "%d.png"))
    assert raised.value.outcome is Outcome.MEDIA_UNREADABLE


def test_a_data_reference_of_quicktime_is_not_followed(tmp_path, secret):
    """A film whose samples are stated to be in another file gives no frame of that file."""
    plain = tmp_path / "plain.mov"
    ffmpeg("-i", secret, "-map", "0:v", "-c:v", "mjpeg", plain)
    data = plain.read_bytes()
    at = data.index(b"dref") + 12
    path = tmp_path / "v.mov"
    alias = alias_of(plain)
    size = int.from_bytes(data[at : at + 4], "big")
    grown = bytes(data[:at]) + alias + data[at + size :]
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        where = data.rindex(kind, 0, at) - 4
        length = int.from_bytes(data[where : where + 4], "big") + len(alias) - size
        grown = grown[:where] + length.to_bytes(4, "big") + grown[where + 4 :]
    # Without samples of its own: what is decoded would be of the other file.
    samples = grown.index(b"mdat") + 4
    length = int.from_bytes(grown[samples - 8 : samples - 4], "big") - 8
    path.write_bytes(grown[:samples] + bytes(length) + grown[samples + length :])
    with contextlib.suppress(MediaError):
        assert [frame is None for frame in media.frames(str(path), [0.5])] == [True]


def alias_of(path) -> bytes:
    """An entry of a data reference that names a file by its absolute path."""
    name = str(path).encode()
    fixed = bytes(10) + bytes([1]) + b"x".ljust(27, b"\0") + bytes(12) + bytes([1]) + b"x".ljust(63, b"\0") + bytes(16)
    fixed += struct.pack(">hh", 1, 1) + bytes(16)
    text = struct.pack(">hh", 18, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hh", -1, 0)
    body = bytes(4) + fixed + text
    return struct.pack(">I4s", 8 + len(body), b"alis") + body
