"""The choices of a job about its videos: how they are downloaded, where their words come from, which rules they keep.

Commands check these before anything is imported that downloads, decodes or reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ingest.download import secret_files
from ingest.language_codes import base_language
from shards import tokenizer as vocabulary
from shards.storage import fetch
from shards.storage.errors import UsageError

FORMAT = "b[short_side<=360][ext=mp4]/bv*[short_side<=360][ext=mp4]+ba[ext=m4a]/b[short_side<=360]"
"""`short_side` is the smaller of width and height (`ingest.download.format_selection`): 360 for 360x640."""

EXTRACTION_VERSION = 2
"""Raised when the same config and files give other segments or scores, so that a folder never mixes both."""

PERCEPTUAL = "perceptual"
"""The embedder that needs no weights."""

NO_EMBEDDER = "none"
"""Instead of an embedder: the visual filters are off."""

PILE_SUBSETS = (
    "Pile-CC",
    "FreeLaw",
    "StackExchange",
    "PubMed Abstracts",
    "OpenWebText2",
    "Wikipedia (en)",
    "HackerNews",
    "NIH ExPorter",
    "USPTO Backgrounds",
    "OpenSubtitles",
    "Books3",
    "Gutenberg (PG-19)",
    "BookCorpus2",
)
"""The subsets of The Pile in the published corpus (docs/spec/ingest.md 18)."""

Source = Literal["asr", "aligned", "forced"]
Recognition = Literal["never", "missing", "all"]


@dataclass(frozen=True)
class FilterConfig:
    """Thresholds of the filters; `None` (or an empty list) switches a rule off."""

    max_seconds: float | None = 1200.0
    """Longest duration of a video, in seconds."""
    excluded_categories: tuple[str, ...] = ()
    """Categories of YouTube whose videos are rejected, by the names in the metadata."""
    min_words_per_30s: int | None = 50
    """Fewest words that the densest half minute must have."""
    min_language_probability: float | None = 0.8
    """Least probability of the language, identified from title, description and words."""
    min_good_words: float | None = 0.6
    """Least share of words that are lower-case and have no blanks, as speech recognition writes them."""
    max_length_variance: float | None = 10.0
    """Largest variance of the lengths of words, in characters."""
    max_similarity: float | None = None
    """Largest similarity of four pictures of the video; 0.9 in the published corpus."""
    min_objects: float | None = None
    """Fewest objects in four pictures of the video; 0.9 in the published corpus. Needs an --embedder."""


@dataclass(frozen=True)
class Listening:
    """The source of words.

    `transcript` is `asr`, `aligned` (uploaded text with the times of the ASR words) or `forced` (uploaded text aligned
    to the sound). `asr` is when speech is recognised, with the model `asr_model`. `strict` and `repair` are as in
    `spoken_words`.
    """

    language: str
    transcript: Source
    asr: Recognition
    asr_model: str
    strict: bool
    repair: bool

    @property
    def hears(self) -> bool:
        """Whether speech recognition or forced alignment may be used."""
        return self.asr != "never" or self.transcript == "forced"


@dataclass(frozen=True)
class VideoConfig:
    """How videos become segments."""

    seed: int = 0
    """Seed of every random choice, together with the id of the video."""
    language: str = "en"
    """Language of captions and speech, such as en or pt-BR."""
    tokenizer: str = vocabulary.PUBLISHED
    """Tokenizer of all texts: published, or a tokenizer.json."""
    timing_model: str = "published"
    """Model that corrects the times of ASR words: published, none, or a file that `timing` wrote."""
    transcript: Source = "asr"
    """Source of words: ASR captions, uploaded text at the times of ASR words, or uploaded text aligned to the sound."""
    asr: Recognition = "never"
    """Which videos get their words by speech recognition here."""
    asr_model: str = "base.en"
    """Whisper model of --asr: a name such as base.en, or the folder of a model."""
    captions: Literal["tolerant", "strict"] = "tolerant"
    """Parser of caption files: tolerant, or strict as the published system's."""
    repair_text: bool = False
    """Repair mojibake in words before they are stored."""
    embedder: str = PERCEPTUAL
    """Image embedder of the visual filters: perceptual, none, or a name of `pipelines.extraction.embedders`."""
    filters: FilterConfig = field(default_factory=FilterConfig)

    @property
    def listening(self) -> Listening:
        """The source of words."""
        strict = self.captions == "strict"
        return Listening(self.language, self.transcript, self.asr, self.asr_model, strict, self.repair_text)

    @property
    def spoken_language(self) -> str:
        """The language without its region."""
        return base_language(self.language)

    def resolved(self) -> dict[str, Any]:
        """Return the config as JSON-able values, with the model files named by the digest of their content."""
        values = {"extraction_version": EXTRACTION_VERSION, **dataclasses.asdict(self)}
        values["tokenizer"] = vocabulary.digest(self.tokenizer)
        if path := timing_file(self.timing_model):
            values["timing_model"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if (weights := Path(self.asr_model) / "model.bin").is_file():
            values["asr_model"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        values["embedder"] = self.embedder_digest
        return values

    @property
    def embedder_digest(self) -> str:
        """The embedder's name, or the digest of its file."""
        path = Path(self.embedder)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else self.embedder

    def digest(self) -> str:
        """Return the SHA-256 of the resolved config; a folder never mixes segments of different digests."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()


def timing_file(timing_model: str) -> Path | None:
    """Return the file of `--timing-model`, downloaded if it is the published one; `None` for `none`."""
    if timing_model == "none":
        return None
    if timing_model == "published":
        return fetch.fetch(fetch.TIMING_MODEL, flag="--timing-model")
    return Path(timing_model)


@dataclass(frozen=True)
class DownloadConfig:
    """How videos are downloaded. Only the names of secrets are part of a job, not their contents."""

    format: str = FORMAT
    """yt-dlp's expression for the format that is downloaded."""
    yt_dlp: str = ""
    """Flags as yt-dlp's command line takes them: rate limit, sleeps, retries, PO tokens, JavaScript runtime."""
    cookies: str | None = None
    """A cookies.txt: a file, a gs:// address, or projects/P/secrets/S/versions/V of Secret Manager."""
    proxy_from: str | None = None
    """Where the proxy's address is, as for --cookies; the file holds one line, scheme://user:password@host:port."""

    def options(self) -> dict[str, Any]:
        """Return the options of yt-dlp for the flags.

        Raises `UsageError` for a flag that is unknown or rejected (`ingest.download.yt_dlp_flags`).
        """
        if not self.yt_dlp.strip():
            return {}
        from ingest.download.yt_dlp_flags import options_of

        return options_of(self.yt_dlp)

    def check(self, workers_elsewhere: bool) -> None:
        """Raise `UsageError` for rejected flags, and for secrets that the workers cannot read."""
        options = self.options()
        if self.proxy_from and options.get("proxy"):
            raise UsageError("give the proxy once: --proxy-from, or --proxy inside --yt-dlp")
        for flag, name in (("--cookies", self.cookies), ("--proxy-from", self.proxy_from)):
            secret_files.check(flag, name, workers_elsewhere)
