"""The flags of yt-dlp that jobs allow and reject.

A flag is rejected if it runs a program, loads code, accesses other files, contains a password, changes the media or
their names, or ends the job without a download. Both tables together list every option of the pinned version, so that a
test fails for an unclassified option.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import optparse
import shlex
from typing import Any, NoReturn
from urllib.parse import urlsplit

from shards.storage.errors import UsageError

OLD_DAYS = 60
"""Age in days from which a yt-dlp release is considered old."""

_ALLOWED = """
--no-update --ignore-errors --no-abort-on-error --abort-on-error --use-extractors --default-search --ignore-config
--no-config-locations --no-plugin-dirs --js-runtimes --no-js-runtimes --no-remote-components --flat-playlist
--no-flat-playlist --no-live-from-start --no-wait-for-video --mark-watched --no-mark-watched --no-colors --color
--proxy --socket-timeout --source-address --impersonate --force-ipv4 --force-ipv6 --geo-verification-proxy --xff
--geo-bypass --no-geo-bypass --geo-bypass-country --geo-bypass-ip-block --playlist-start --playlist-end
--playlist-items --match-title --reject-title --min-filesize --max-filesize --date --datebefore --dateafter
--min-views --max-views --match-filters --no-match-filters --break-match-filters --no-break-match-filters
--no-playlist --yes-playlist --age-limit --download-archive --no-download-archive --max-downloads
--break-on-existing --no-break-on-existing --break-on-reject --break-per-input --no-break-per-input
--skip-playlist-after-errors --concurrent-fragments --limit-rate --throttled-rate --retries --file-access-retries
--fragment-retries --retry-sleep --skip-unavailable-fragments --abort-on-unavailable-fragments --no-keep-fragments
--buffer-size --resize-buffer --no-resize-buffer --http-chunk-size --playlist-reverse --no-playlist-reverse
--playlist-random --lazy-playlist --no-lazy-playlist --hls-prefer-native --hls-prefer-ffmpeg --hls-use-mpegts
--no-hls-use-mpegts --no-batch-file --no-restrict-filenames --no-windows-filenames --no-overwrites
--force-overwrites --no-force-overwrites --continue --no-continue --part --no-part --mtime --no-mtime
--no-write-description --no-write-info-json --no-write-playlist-metafiles --clean-info-json --no-clean-info-json
--no-write-comments --no-cookies --no-cookies-from-browser --no-cache-dir --no-write-thumbnail --quiet --no-quiet
--no-warnings --no-simulate --no-ignore-no-formats-error --newline --no-progress --progress --progress-delta
--verbose --encoding --legacy-server-connect --no-check-certificates --prefer-insecure --user-agent --referer
--add-headers --bidi-workaround --sleep-requests --sleep-interval --max-sleep-interval --sleep-subtitles --format
--format-sort --format-sort-reset --format-sort-force --no-format-sort-force --video-multistreams
--no-video-multistreams --audio-multistreams --no-audio-multistreams --all-formats --prefer-free-formats
--no-prefer-free-formats --check-formats --check-all-formats --no-check-formats --merge-output-format
--no-allow-unplayable-formats --no-write-subs --no-write-auto-subs --sub-format --sub-langs --no-keep-video
--post-overwrites --no-post-overwrites --no-embed-subs --no-embed-thumbnail --no-embed-metadata --no-embed-chapters
--fixup --no-exec --no-exec-before-download --no-split-chapters --no-remove-chapters --no-force-keyframes-at-cuts
--no-sponsorblock --extractor-retries --allow-dynamic-mpd --ignore-dynamic-mpd --hls-split-discontinuity
--no-hls-split-discontinuity --no-embed-info-json --extractor-args
--youtube-include-dash-manifest --no-youtube-skip-dash-manifest --youtube-skip-dash-manifest
--no-youtube-include-dash-manifest --youtube-include-hls-manifest --no-youtube-skip-hls-manifest
--youtube-skip-hls-manifest --no-youtube-include-hls-manifest --no-sponskrub --no-sponskrub-cut --no-sponskrub-force
--prefer-avconv --no-prefer-ffmpeg --prefer-ffmpeg --no-prefer-avconv --no-call-home --include-ads --no-include-ads
--no-write-annotations --cn-verification-proxy
"""

ALLOWED = frozenset(_ALLOWED.split())
"""Options that jobs allow, each by its first long name."""

_REFUSED = {
    "it runs a program or loads code": """
        --update --update-to --plugin-dirs --remote-components --compat-options --alias --preset-alias --downloader
        --downloader-args --netrc-cmd --postprocessor-args --ffmpeg-location --exec --exec-before-download
        --use-postprocessor --sponskrub --sponskrub-cut --sponskrub-force --sponskrub-location --sponskrub-args
        --call-home
    """,
    "it reads or writes other files": """
        --config-locations --enable-file-urls --batch-file --load-info-json --cookies-from-browser --cache-dir
        --rm-cache-dir --netrc --netrc-location --client-certificate --client-certificate-key --print-to-file
        --write-description --write-info-json --write-playlist-metafiles --write-comments --write-thumbnail
        --write-all-thumbnails --write-link --write-url-link --write-webloc-link --write-desktop-link --write-pages
        --load-pages --write-subs --write-auto-subs --all-subs --write-annotations --force-write-archive
        --keep-fragments --keep-video --split-chapters --xattrs --xattr-set-filesize --convert-subs
        --convert-thumbnails
    """,
    "the job's own --cookies reads them": "--cookies",
    "it contains a password, which the job's graph would show; use --cookies instead of a login": """
        --username --password --twofactor --video-password --ap-mso --ap-username --ap-password
        --client-certificate-password
    """,
    "the job controls the names and folders of downloads": """
        --paths --output --id --output-na-placeholder --autonumber-size --autonumber-start --restrict-filenames
        --windows-filenames --trim-filenames
    """,
    "it changes the media or their metadata": """
        --extract-audio --audio-format --audio-quality --remux-video --recode-video --embed-subs --embed-thumbnail
        --embed-metadata --embed-chapters --embed-info-json --metadata-from-title --parse-metadata
        --replace-in-metadata --concat-playlist --remove-chapters --force-keyframes-at-cuts --sponsorblock-mark
        --sponsorblock-remove --sponsorblock-chapter-title --sponsorblock-api --download-sections --test
        --live-from-start --force-generic-extractor --allow-unplayable-formats --ignore-no-formats-error
    """,
    "it prints or waits instead of downloading": """
        --help --version --list-extractors --extractor-descriptions --list-impersonate-targets --wait-for-video
        --list-thumbnails --simulate --skip-download --print --get-url --get-title --get-id --get-thumbnail
        --get-description --get-duration --get-filename --get-format --dump-json --dump-single-json --print-json
        --console-title --progress-template --dump-pages --print-traffic --list-formats --list-formats-as-table
        --list-formats-old --list-subs --ap-list-mso --dump-user-agent --youtube-print-sig-code -C
    """,
}

REFUSED = {name: reason for reason, names in _REFUSED.items() for name in names.split()}
"""Options that jobs reject, each by its first long name, with the reason."""

_PROXIES = ("proxy", "geo_verification_proxy", "cn_verification_proxy")


def options_of(flags: str) -> dict[str, Any]:
    """Return the options of yt-dlp for `flags`, part of its command line.

    Raises `UsageError` for a flag that is unknown or rejected, also if its name is abbreviated.
    """
    import yt_dlp
    from yt_dlp.utils import YoutubeDLError

    try:
        words = shlex.split(flags)
        values, addresses = _checking_parser().parse_args(words)
        _check_values(vars(values), addresses)
        options = yt_dlp.parse_options(words).ydl_opts
    except (optparse.OptParseError, ValueError, YoutubeDLError) as error:
        reason = str(error).strip().splitlines()[-1].split("error: ", 1)[-1]
        raise UsageError(f"yt-dlp rejects the flags of --yt-dlp: {reason}") from None
    defaults = yt_dlp.parse_options([]).ydl_opts
    return {name: value for name, value in options.items() if value != defaults.get(name)}


def age_note(today: datetime.date) -> str | None:
    """Return a warning if the installed yt-dlp is probably too old for YouTube, else `None`.

    Its version is a date, and YouTube usually changes within two months.
    """
    version = importlib.metadata.version("yt-dlp")
    try:
        year, month, day = map(int, version.split(".")[:3])
        days = (today - datetime.date(year, month, day)).days
    except ValueError:
        return None
    if days <= OLD_DAYS:
        return None
    return (
        f"yt-dlp {version} is {days} days old and YouTube may reject it; '.venv/bin/uv lock --upgrade-package yt-dlp'"
        " and 'make setup' update it alone"
    )


def first_name(option: optparse.Option) -> str:
    """Return the name of an option in the tables."""
    return (option._long_opts or option._short_opts)[0]


def _checking_parser() -> optparse.OptionParser:
    """Return yt-dlp's own parser, modified to raise `UsageError` at a rejected option."""
    from yt_dlp.options import create_parser

    parser = create_parser()
    groups = [parser, *parser.option_groups]
    for option in [option for group in groups for option in group.option_list]:
        if first_name(option) in REFUSED:
            option.action, option.callback, option.callback_args, option.callback_kwargs = "callback", _refuse, (), {}
            if option.takes_value():
                option.type = "string"
    return parser


def _refuse(option: optparse.Option, name: str, value: object, parser: optparse.OptionParser) -> NoReturn:
    raise UsageError(f"--yt-dlp must not contain {name}: {REFUSED[first_name(option)]}")


def _check_values(values: dict[str, Any], addresses: list[str]) -> None:
    """Raise `UsageError` for values with the effect of a rejected option."""
    if addresses:
        raise UsageError(f"--yt-dlp accepts flags only, not {addresses[0]!r}; list the videos with --ids")
    for runtime in values.get("js_runtimes") or ():
        if ":" in runtime:
            raise UsageError("--yt-dlp accepts --js-runtimes by name only, without a path to a program")
    for name in _PROXIES:
        if "@" in urlsplit(values.get(name) or "").netloc:
            flag = name.replace("_", "-")
            raise UsageError(f"--yt-dlp must not contain the password of --{flag}; put its address in --proxy-from")
