"""Which flags of yt-dlp a job takes."""

import datetime
import importlib.metadata

import pytest
from yt_dlp.options import create_parser

from ingest.config import DownloadConfig
from ingest.download.yt_dlp_flags import ALLOWED, REFUSED, age_note, first_name, options_of
from shards.storage.errors import UsageError


def every_option():
    parser = create_parser()
    return [option for group in (parser, *parser.option_groups) for option in group.option_list]


def test_every_option_of_yt_dlp_is_classified_once():
    names = [first_name(option) for option in every_option()]
    assert set(names) == ALLOWED | REFUSED.keys()
    assert not ALLOWED & REFUSED.keys()


@pytest.mark.parametrize("option", [o for o in every_option() if first_name(o) not in ALLOWED], ids=first_name)
def test_every_name_of_a_refused_option_is_refused(option):
    values = ["1"] * (option.nargs or 0) if option.takes_value() else []
    for name in [*option._long_opts, *option._short_opts]:
        with pytest.raises(UsageError, match=f"must not contain {name}: "):
            options_of(" ".join([name, *values]))


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--netrc-c cat", "--netrc-cmd: it runs a program"),
        ("--config-loc /tmp", "--config-locations: it reads or writes other files"),
        ("-o/tmp/%(id)s", "-o: the job controls the names"),
        ("-vO title", "-O: it prints"),
        ("--exe rm", "ambiguous option"),
        ("--no-such-thing", "no such option: --no-such-thing"),
        ("--retries", "requires 1 argument"),
        ("--limit-rate fast", "rate"),
        ("https://example.com/x", "flags only, not 'https://example.com/x'"),
        ("-- --exec", "flags only"),
        ("--js-runtimes node:/tmp/node", "without a path"),
        ("--proxy http://me:secret@proxy:1", "password of --proxy"),
        ("--geo-verification-proxy http://me:secret@proxy:1", "password of --geo-verification-proxy"),
        ("'", "No closing quotation"),
    ],
)
def test_what_comes_to_the_same_is_refused_too(flags, complaint):
    with pytest.raises(UsageError, match=complaint) as raised:
        options_of(flags)
    assert "secret" not in str(raised.value)


def test_other_flags_become_options():
    options = DownloadConfig(
        yt_dlp="--limit-rate 1M --proxy http://127.0.0.1:9 --sleep-requests 2 --extractor-args youtube:po_token=web.gvs+x"
    ).options()
    assert options["ratelimit"] == 1024**2
    assert options["proxy"] == "http://127.0.0.1:9"
    assert options["sleep_interval_requests"] == 2
    assert options["extractor_args"]["youtube"]["po_token"] == ["web.gvs+x"]
    assert options_of("--js-runtimes node --download-archive seen.txt")["download_archive"] == "seen.txt"


def test_an_old_yt_dlp_is_named_with_the_way_to_update_it():
    released = datetime.date(*map(int, importlib.metadata.version("yt-dlp").split(".")[:3]))
    assert age_note(released + datetime.timedelta(days=60)) is None
    note = age_note(released + datetime.timedelta(days=61))
    assert "is 61 days old" in note
    assert "uv lock --upgrade-package yt-dlp" in note
