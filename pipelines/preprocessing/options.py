"""The options of the preprocessing job, as typed values with their checks.

Flags of ours are generated from the dataclasses; every other flag must be one of Beam's, and one that is neither is an
error. Nothing here imports Beam, or what downloads or decodes.
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
"""The words of a command line that are for Beam."""

Stage = Literal["download", "extract", "assemble", "all"]


@dataclass(frozen=True)
class PreprocessOptions:
    """Turn videos into verified shards.

    Give one of --videos, --raw or --ids. The same command again continues where it was stopped; with more videos it
    adds a generation of shards. Every flag of Beam is taken too, such as --runner or --direct_num_workers.
    """

    out: str
    """The data folder that is made or continued."""
    videos: str | None = None
    """A folder of videos: NAME.mp4 with NAME.en.vtt and, if there, NAME.info.json."""
    raw: str | None = None
    """A folder in the published raw layout, youtube_dump/ID/...; with --ids, where downloads are kept."""
    ids: str | None = None
    """A CSV with a video_id column, or a file with one id or URL a line."""
    split: str = "train"
    """The name of the split, the first part of the shards' names."""
    stage: Stage = "all"
    """Stop after this step: extract commits segments, assemble only packs what is committed."""
    slice: str | None = None
    """Work on a part of the list, as 3/20: of twenty slices the third; each video belongs to one by its id."""
    limit: int | None = None
    """Maximum number of videos, from the beginning of the list or slice."""
    blocklist: str | None = None
    """A file of ids that must not be used, as for --ids."""
    dry_run: bool = False
    """Process a sample, print the funnel and the cost of all, write nothing."""
    retry_failed: bool = False
    """Retry videos that failed with a retryable error."""
    keep_segments: bool = False
    """Keep the committed segments after the manifest is written, for repair."""
    shard_bytes: int = 128 << 20
    """Size of a shard."""
    segments_per_example: int = 16
    """Segments in one example; the published shards have 16."""
    decode_seconds: float = 600.0
    """Wall time that decoding one video may take."""
    decode_memory_mb: int = 2048
    """Memory that decoding one video may take."""
    max_group_similarity: float | None = None
    """Leave out examples whose pictures are more alike than this; 0.85 in the published corpus."""
    min_group_objects: float | None = None
    """Leave out examples that show fewer objects than this; 1.0 in the published corpus. Needs an --embedder."""
    group_probability: float = 1.0
    """Share of the examples that are looked at for these two rules; 0.1 in the published corpus."""
    prices: Prices = field(default_factory=Prices)
    politeness: Politeness = field(default_factory=Politeness)
    text: TextOptions = field(default_factory=TextOptions)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    command: Annotated[tuple[str, ...], tyro.conf.Fixed, tyro.conf.Suppress] = ()
    """The words of the command line, for the note that says how to go on."""

    def check(self) -> None:
        """Raises `UsageError` for values that make no sense together."""
        given = [name for name in ("videos", "raw", "ids") if getattr(self, name)]
        if self.stage != "assemble" and (not given or ("videos" in given and len(given) > 1)):
            raise UsageError("give exactly one source: --videos DIR, --raw PATH, or --ids FILE (with or without --raw)")
        if self.stage == "download" and not (self.ids and self.raw):
            raise UsageError("--stage download needs --ids FILE and --raw PATH, where the downloads are kept")
        _ = self.part
        if self.prices.save_cost and not self.dry_run:
            raise UsageError(f"--save-cost {self.prices.save_cost!r} needs --dry-run, which makes the estimate")
        self.prices.check()
        self.politeness.check()
        self.text.check()
        if not (self.split.isascii() and self.split.isalnum()):
            raise UsageError(f"--split {self.split!r} must be letters and digits, it starts the shards' names")
        least_of = {"shard_bytes": 1, "segments_per_example": 1, "decode_memory_mb": 256, "limit": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {least}")
        if not 0 <= self.group_probability <= 1:
            raise UsageError(f"--group-probability {self.group_probability} must be from 0 to 1")
        objects = (self.video.filters.min_objects, self.min_group_objects)
        if self.video.embedder in (PERCEPTUAL, NO_EMBEDDER) and objects != (None, None):
            raise UsageError("--min-objects and --min-group-objects need an --embedder that knows objects")
        if self.segments_per_example > MAX_SEGMENTS_PER_EXAMPLE:
            most = MAX_SEGMENTS_PER_EXAMPLE
            raise UsageError(f"--segments-per-example {self.segments_per_example} must be at most {most}")

    def check_paths(self) -> None:
        """Raises `UsageError` for an input on this machine that is not there."""
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
        """The slice as (number from 1, of). Raises `UsageError` if it is not a slice."""
        if self.slice is None:
            return None
        number, _, of = self.slice.partition("/")
        if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
            raise UsageError(f"--slice {self.slice!r} must be NUMBER/OF, such as 3/20")
        return int(number), int(of)

    @property
    def keep_media(self) -> bool:
        """Whether media stay after extraction: always but for downloads that no --raw folder was given for."""
        return self.ids is None or self.raw is not None

    @property
    def job(self) -> JobIdentity:
        """What makes a job the same job when its command is typed again."""
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
        """What decoding one video may use."""
        return Limits(self.decode_seconds, self.decode_memory_mb << 20)


def parse(argv: list[str] | None) -> tuple[PreprocessOptions, BeamFlags]:
    """Our options and Beam's flags. Raises `UsageError` for a flag that is neither, and for impossible combinations."""
    ours, rest = command_line.parse(
        tyro.cli,
        tyro.conf.OmitArgPrefixes[PreprocessOptions],
        "pipelines.preprocess",
        argv,
        foreign=beam_flags.FLAGS,
    )
    beam_flags.check(rest)
    ours.check()
    ours = dataclasses.replace(ours, command=tuple(sys.argv[1:] if argv is None else argv))
    theirs = tuple(rest)
    _check_launch(ours, theirs)
    ours.download.check(workers_elsewhere=beam_flags.runner(theirs) == DATAFLOW)
    if beam_flags.runner(theirs) == DATAFLOW:
        for name in ("out", "videos", "raw", "ids", "blocklist"):
            path = getattr(ours, name)
            if path is not None and not filesystem.is_remote(path):
                raise UsageError(f"{DATAFLOW} needs --{name} in a bucket, gs://..., not {path!r}")
        if local := [source.path for source in ours.text.sources() if not filesystem.is_remote(source.path)]:
            raise UsageError(f"{DATAFLOW} needs --text in a bucket, gs://..., not {local[0]!r}")
    return ours, theirs


def is_launch(theirs: BeamFlags) -> bool:
    """Whether the job is only handed over, as the launcher of a Flex Template requests with --template_location."""
    return beam_flags.value(theirs, "template_location") is not None


def _check_launch(ours: PreprocessOptions, theirs: BeamFlags) -> None:
    """Raises `UsageError` for what is not a job to hand over."""
    if not is_launch(theirs):
        return
    if beam_flags.runner(theirs) != DATAFLOW:
        raise UsageError(f"--template_location needs --runner={DATAFLOW}")
    if ours.dry_run:
        raise UsageError("--dry-run cannot be launched as a template; run the command without --template_location")
