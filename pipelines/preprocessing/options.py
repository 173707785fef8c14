"""The options of the preprocessing job, with their checks.

The job's flags are generated from the dataclasses; all other flags must be Beam's. Nothing here imports Beam, or the
code that downloads or decodes.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ingest.config import NO_EMBEDDER, PERCEPTUAL, DownloadConfig, VideoConfig
from pipelines.extraction.download_budget import Politeness
from pipelines.preprocessing.cost import Prices
from pipelines.preprocessing.folder_config import MAX_SEGMENTS_PER_EXAMPLE
from pipelines.preprocessing.text_options import TextOptions
from pipelines.runner import beam_flags
from pipelines.runner.beam_flags import DATAFLOW
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.limits import Limits
from shards import command_line
from shards import tokenizer as vocabulary
from shards.storage import filesystem
from shards.storage.errors import UsageError

if TYPE_CHECKING:
    from ingest.similarity import GroupRules

BeamFlags = tuple[str, ...]
"""The words of a command line that are Beam's flags."""

Stage = Literal["download", "extract", "assemble", "all"]


@dataclass(frozen=True)
class PreprocessOptions:
    """Convert videos into verified shards.

    Give one of --videos, --raw or --ids. Run the same command again to resume a stopped job; with more videos, it adds
    a generation of shards. All flags of Beam are accepted, such as --runner or --direct_num_workers.
    """

    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The data folder to create or to continue."""
    videos: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder of videos: NAME.mp4 with NAME.en.vtt and, optionally, NAME.info.json."""
    raw: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder in the published raw layout, youtube_dump/ID/...; with --ids, the folder for downloads."""
    ids: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """A CSV with a video_id column, or a file with one id or URL per line."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "train"
    """The name of the split, with which the names of the shards start."""
    stage: Stage = "all"
    """Stop after this stage: download, or extract, which commits segments; assemble only packs committed segments."""
    slice: Annotated[str | None, tyro.conf.arg(metavar="NUMBER/COUNT")] = None
    """Process one slice of the list, such as 3/20; videos are assigned to slices by their ids."""
    limit: int | None = None
    """Maximum number of videos, from the start of the list or slice."""
    blocklist: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """A file of ids to skip, in a format of --ids."""
    dry_run: bool = False
    """Process a sample, print its filter funnel and the estimated cost of all videos, and write no data."""
    retry_failed: bool = False
    """Retry videos that failed with a retryable error."""
    keep_segments: bool = False
    """Keep the segments in the per-video store after the manifest is written, for repairs and refiltering."""
    shard_bytes: int = 128 << 20
    """Target size of a shard, in bytes."""
    segments_per_example: int = 16
    """Segments per example; the published shards have 16."""
    decode_seconds: float = 600.0
    """Maximum wall time for decoding one video, in seconds."""
    decode_memory_mb: int = 2048
    """Maximum memory for decoding one video, in MiB."""
    max_group_similarity: float | None = None
    """Drop examples whose images are more similar than this; 0.85 in the published corpus."""
    min_group_objects: float | None = None
    """Drop examples with fewer objects than this; 1.0 in the published corpus. Needs an --embedder."""
    group_probability: float = 1.0
    """Share of the examples to which these two rules are applied; 0.1 in the published corpus."""
    prices: Prices = field(default_factory=Prices)
    politeness: Politeness = field(default_factory=Politeness)
    text: TextOptions = field(default_factory=TextOptions)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    command: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    """The words of the command line, for the command that retries failures."""

    def check(self) -> None:
        """Raise `UsageError` for invalid values and combinations."""
        sources = [name for name in ("videos", "raw", "ids") if getattr(self, name)]
        if self.stage != "assemble" and (not sources or ("videos" in sources and len(sources) > 1)):
            raise UsageError(
                "give exactly one source: --videos FOLDER, --raw FOLDER, or --ids FILE (with or without --raw)"
            )
        if self.stage == "download" and not (self.ids and self.raw):
            raise UsageError("--stage download needs --ids FILE and --raw FOLDER, the folder for downloads")
        _ = self.part
        if self.prices.save_cost and not self.dry_run:
            raise UsageError(f"--save-cost {self.prices.save_cost!r} needs --dry-run, which computes the estimate")
        self.prices.check()
        self.politeness.check()
        self.text.check()
        if not (self.split.isascii() and self.split.isalnum()):
            raise UsageError(f"--split {self.split!r} must be letters and digits, because shard names start with it")
        minimums = {"shard_bytes": 1, "segments_per_example": 1, "decode_memory_mb": 256, "limit": 1}
        for name, minimum in minimums.items():
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {minimum}")
        if not 0 <= self.group_probability <= 1:
            raise UsageError(f"--group-probability {self.group_probability} must be from 0 to 1")
        objects = (self.video.filters.min_objects, self.min_group_objects)
        if self.video.embedder in (PERCEPTUAL, NO_EMBEDDER) and objects != (None, None):
            raise UsageError("--min-objects and --min-group-objects need an --embedder that detects objects")
        if self.segments_per_example > MAX_SEGMENTS_PER_EXAMPLE:
            maximum = MAX_SEGMENTS_PER_EXAMPLE
            raise UsageError(f"--segments-per-example {self.segments_per_example} must be at most {maximum}")

    def check_paths(self) -> None:
        """Raise `UsageError` for an input on this machine that does not exist."""
        if self.stage != "assemble":
            command_line.require_folder("--videos", self.videos)
            command_line.require_folder("--raw", None if self.ids else self.raw)
            command_line.require_file("--ids", self.ids)
        command_line.require_file("--blocklist", self.blocklist)
        self.text.check_paths()
        files = {
            "--tokenizer": (self.video.tokenizer, vocabulary.PUBLISHED),
            "--timing-model": (self.video.timing_model, "published", "none"),
        }
        for flag, (path, *names) in files.items():
            if path not in names:
                command_line.require_file(flag, path)

    @property
    def part(self) -> tuple[int, int] | None:
        """The slice as (number from 1, count). Raises `UsageError` if it is invalid."""
        if self.slice is None:
            return None
        number, _, count = self.slice.partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UsageError(f"--slice {self.slice!r} must be NUMBER/COUNT, such as 3/20")
        return int(number), int(count)

    @property
    def keep_media(self) -> bool:
        """Whether media are kept after extraction: always except for downloads without a --raw folder."""
        return self.ids is None or self.raw is not None

    @property
    def job(self) -> JobIdentity:
        """The identity of the job, equal for repeated runs of the same command."""
        parts = (self.out, self.videos, self.raw, self.ids, self.limit, self.slice, self.stage)
        return JobIdentity(self.split, tuple(str(part) for part in parts))

    @property
    def group_rules(self) -> GroupRules:
        """The visual filter of whole examples."""
        from ingest.similarity import GroupRules

        return GroupRules(
            self.video.embedder,
            self.video.seed,
            self.max_group_similarity,
            self.min_group_objects,
            self.group_probability,
        )

    @property
    def limits(self) -> Limits:
        """The limits for decoding one video."""
        return Limits(self.decode_seconds, self.decode_memory_mb << 20)


def parse(argv: list[str] | None) -> tuple[PreprocessOptions, BeamFlags]:
    """Return the job's options and Beam's flags. Raises `UsageError` for unknown flags and invalid combinations."""
    options, flags = command_line.parse(
        tyro.cli,
        tyro.conf.OmitArgPrefixes[PreprocessOptions],
        "pipelines.preprocess",
        argv,
        foreign=beam_flags.FLAGS,
    )
    beam_flags.check(flags)
    options.check()
    options = dataclasses.replace(options, command=tuple(sys.argv[1:] if argv is None else argv))
    flags = tuple(flags)
    _check_launch(options, flags)
    options.download.check(workers_elsewhere=beam_flags.runner(flags) == DATAFLOW)
    if beam_flags.runner(flags) == DATAFLOW:
        for name in ("out", "videos", "raw", "ids", "blocklist"):
            path = getattr(options, name)
            if path is not None and not filesystem.is_remote(path):
                raise UsageError(f"{DATAFLOW} needs --{name} in a bucket, gs://..., not {path!r}")
        if local := [source.path for source in options.text.sources() if not filesystem.is_remote(source.path)]:
            raise UsageError(f"{DATAFLOW} needs --text in a bucket, gs://..., not {local[0]!r}")
    return options, flags


def is_launch(flags: BeamFlags) -> bool:
    """Return whether the job is only staged with --template_location, as the launcher of a Flex Template requests."""
    return beam_flags.value(flags, "template_location") is not None


def _check_launch(options: PreprocessOptions, flags: BeamFlags) -> None:
    """Raise `UsageError` for options that cannot be staged as a template."""
    if not is_launch(flags):
        return
    if beam_flags.runner(flags) != DATAFLOW:
        raise UsageError(f"--template_location needs --runner={DATAFLOW}")
    if options.dry_run:
        raise UsageError("--dry-run cannot be launched as a template; run the command without --template_location")
