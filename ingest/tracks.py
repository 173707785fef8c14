"""Which of a file's tracks are used: no cover pictures, no commentary, the spoken language before others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import av
from av.stream import Disposition

from ingest.containers import MediaError
from ingest.outcomes import Outcome

MAX_PIXELS = 1 << 26
"""Pixels of a picture, 8192 by 8192: twice those of 8K video. Larger ones are rejected before they are allocated."""

_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_BESIDE_THE_PICTURE = (
    Disposition.comment
    | Disposition.hearing_impaired
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.karaoke
)
"""Tracks for some listeners: commentary, audio description, music and effects without speech."""

# ISO 639-1 codes, each followed by the terminological code of ISO 639-2.
_TWO_LETTERS = """
aaaar ababk aeave afafr akaka amamh anarg arara asasm avava ayaym azaze babak bebel bgbul bhbih bibis bmbam bnben bobod
brbre bsbos cacat ceche chcha cocos crcre csces cuchu cvchv cycym dadan dedeu dvdiv dzdzo eeewe elell eneng eoepo esspa
etest eueus fafas ffful fifin fjfij fofao frfra fyfry gagle gdgla glglg gngrn guguj gvglv hahau heheb iwheb hihin hohmo
hrhrv hthat huhun hyhye hzher iaina idind inind ieile igibo iiiii ikipk ioido isisl itita iuiku jajpn jvjav kakat kgkon
kikik kjkua kkkaz klkal kmkhm knkan kokor krkau kskas kukur kvkom kwcor kykir lalat lbltz lglug lilim lnlin lolao ltlit
lulub lvlav mgmlg mhmah mimri mkmkd mlmal mnmon mrmar msmsa mtmlt mymya nanau nbnob ndnde nenep ngndo nlnld nnnno nonor
nrnbl nvnav nynya ococi ojoji omorm orori ososs papan peper pipli plpol pspus ptpor quque rmroh rnrun roron rurus rwkin
sasan scsrd sdsnd sesme sgsag sisin skslk slslv smsmo snsna sosom sqsqi srsrp ssssw stsot susun svswe swswa tatam tetel
tgtgk ththa titir tktuk tltgl tntsn toton trtur tstso tttat twtwi tytah uguig ukukr ururd uzuzb veven vivie vovol wawln
wowol xhxho yiyid jiyid yoyor zazha zhzho zuzul
"""
# The bibliographic codes of ISO 639-2 that differ, each followed by the terminological one.
_BIBLIOGRAPHIC = """
albsqi armhye baqeus burmya chizho czeces dutnld frefra geokat gerdeu greell iceisl macmkd maomri maymsa perfas rumron
sloslk tibbod welcym scrhrv sccsrp
"""
_THREE_LETTERS = {pair[:2]: pair[2:] for pair in _TWO_LETTERS.split()}
_THREE_LETTERS |= {pair[:3]: pair[3:] for pair in _BIBLIOGRAPHIC.split()}

_UNKNOWN = {"", "und", "mul", "zxx", "mis", "qaa"}

_Stream = TypeVar("_Stream", bound=av.stream.Stream)


def language_code(tag: str | None) -> str | None:
    """The three letters (ISO 639-2/T) of a tag such as `en`, `en-US`, `eng` or `ger`; `None` for an unknown language.

    A code outside the tables stands for itself.
    """
    code = (tag or "").replace("_", "-").split("-")[0].strip().lower()
    return None if code in _UNKNOWN else _THREE_LETTERS.get(code, code)


def picture_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that is shown: of those that are no cover or thumbnails the default one, else the first.

    Raises `MediaError` if its pictures have more than `MAX_PIXELS`.
    """
    videos = [s for s in container.streams.video if s.codec_context and not s.disposition & _NO_VIDEO]
    stream = _default(videos)
    if stream is not None and (pixels := stream.width * stream.height) > MAX_PIXELS:
        raise MediaError(
            Outcome.MEDIA_UNREADABLE,
            f"its pictures of {stream.width} by {stream.height} have {pixels} pixels; at most {MAX_PIXELS} are decoded",
        )
    return stream


def sound_stream(container: av.container.InputContainer, language: str | None = None) -> av.AudioStream | None:
    """The audio stream that is heard: one in `language` if tagged so, else the default one, else the first.

    Commentary and tracks for some listeners count only if there are no others.
    """
    tracks = [s for s in container.streams.audio if s.codec_context]
    tracks = [s for s in tracks if not s.disposition & _BESIDE_THE_PICTURE] or tracks
    if (wanted := language_code(language)) is not None:
        tracks = [s for s in tracks if language_code(s.language) == wanted] or tracks
    return _default(tracks)


def _default(streams: Sequence[_Stream]) -> _Stream | None:
    marked = [s for s in streams if s.disposition & Disposition.default]
    return next(iter([*marked, *streams]), None)
