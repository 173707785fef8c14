"""The options of the preprocessing job, as typed values with their checks.

Flags of ours are generated from the dataclasses; every other flag must be one of Beam's, and one that is neither is an
error instead of being dropped in silence.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, PipelineOptions, StandardOptions

from ingest.download import DownloadConfig
from ingest.similarity import GroupRules
from ingest.video import PERCEPTUAL, VideoConfig
from pipelines import embedders
from pipelines.budget import Politeness
from pipelines.dry_run import Prices
from pipelines.extraction import Limits
from pipelines.text_corpus import TextOptions
from shards import filesystem
from shards.errors import UsageError

DATAFLOW = "DataflowRunner"
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
    wave: int | None = None
    """Work in waves of so many videos, each committed by itself; several jobs may work on one data folder then."""
    limit: int | None = None
    """Take only so many of the videos."""
    blocklist: str | None = None
    """A file of ids that must not be used, as for --ids."""
    dry_run: bool = False
    """Process a sample, print the funnel and the cost of all, write nothing."""
    retry_failed: bool = False
    """Run again what failed for a reason that may pass."""
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
        if self.wave and self.stage != "all":
            raise UsageError(f"--wave {self.wave} commits whole waves; leave --stage {self.stage} out")
        if self.prices.save_cost and not self.dry_run:
            raise UsageError(f"--save-cost {self.prices.save_cost!r} needs --dry-run, which makes the estimate")
        self.prices.check()
        self.politeness.check()
        self.download.options()
        self.text.check()
        if not (self.split.isascii() and self.split.isalnum()):
            raise UsageError(f"--split {self.split!r} must be letters and digits, it starts the shards' names")
        least_of = {"shard_bytes": 1, "segments_per_example": 1, "decode_memory_mb": 256, "limit": 1, "wave": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {least}")
        if not 0 <= self.group_probability <= 1:
            raise UsageError(f"--group-probability {self.group_probability} must be from 0 to 1")
        objects = (self.video.filters.min_objects, self.min_group_objects)
        if self.video.embedder in (PERCEPTUAL, embedders.NONE) and objects != (None, None):
            raise UsageError("--min-objects and --min-group-objects need an --embedder that knows objects")
        if self.segments_per_example > 100:
            raise UsageError(f"--segments-per-example {self.segments_per_example} must be at most 100")

    @property
    def keep_media(self) -> bool:
        """Whether media stay after extraction: always but for downloads that no --raw folder was given for."""
        return self.ids is None or self.raw is not None

    @property
    def group_rules(self) -> GroupRules:
        """The visual filter of whole examples."""
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


def parse(argv: list[str] | None) -> tuple[PreprocessOptions, PipelineOptions]:
    """Our options and Beam's. Raises `UsageError` for a flag that is neither."""
    ours, rest = tyro.cli(
        tyro.conf.OmitArgPrefixes[PreprocessOptions],
        args=argv,
        prog="python -m pipelines.preprocess",
        return_unknown_args=True,
    )
    ours.check()
    ours = dataclasses.replace(ours, command=tuple(sys.argv[1:] if argv is None else argv))
    theirs = beam_options(rest)
    _check_launch(ours, theirs)
    if theirs.view_as(StandardOptions).runner == DATAFLOW:
        for name in ("out", "videos", "raw"):
            path = getattr(ours, name)
            if path is not None and not filesystem.is_remote(path):
                raise UsageError(f"{DATAFLOW} needs --{name} in a bucket, gs://..., not {path!r}")
        if local := [source.path for source in ours.text.sources() if not filesystem.is_remote(source.path)]:
            raise UsageError(f"{DATAFLOW} needs --text in a bucket, gs://..., not {local[0]!r}")
    return ours, theirs


def is_launch(theirs: PipelineOptions) -> bool:
    """Whether the job is only handed over, as the launcher of a Flex Template asks with --template_location."""
    return theirs.view_as(GoogleCloudOptions).template_location is not None


def _check_launch(ours: PreprocessOptions, theirs: PipelineOptions) -> None:
    """Raises `UsageError` for what cannot be done by one graph that nobody waits for."""
    if not is_launch(theirs):
        return
    if theirs.view_as(StandardOptions).runner != DATAFLOW:
        raise UsageError(f"--template_location needs --runner={DATAFLOW}")
    refused = {
        f"--wave {ours.wave}": ours.wave is not None,
        "--stage download": ours.stage == "download",
        "--text": bool(ours.text.text),
        "--dry-run": ours.dry_run,
    }
    if named := [flag for flag, given in refused.items() if given]:
        raise UsageError(f"{named[0]} cannot be launched as a template; run the command without --template_location")


def beam_options(flags: list[str]) -> PipelineOptions:
    """Beam's options from its flags, with as many local processes as cores unless told otherwise."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for group in PipelineOptions.__subclasses__():
        if group.__module__ == pipeline_options.__name__:
            group._add_argparse_args(parser)
    try:
        _, unknown = parser.parse_known_args(flags)
    except (argparse.ArgumentError, SystemExit) as error:
        raise UsageError(f"a flag of Beam has a wrong value: {error}") from None
    if unknown:
        raise UsageError(f"unknown argument {unknown[0]!r}; see --help, and Beam's documentation for its own flags")
    given = {flag.split("=")[0] for flag in flags}
    defaults = [] if "--runner" in given else ["--runner=FnApiRunner"]
    if not defaults and "--runner=FnApiRunner" not in flags:
        return PipelineOptions(flags)
    if "--direct_num_workers" not in given:
        defaults.append(f"--direct_num_workers={len(os.sched_getaffinity(0))}")
    if "--direct_running_mode" not in given:
        defaults.append("--direct_running_mode=multi_processing")
    options = PipelineOptions([*flags, *defaults], save_main_session=False)
    direct = options.view_as(DirectOptions)
    if direct.direct_num_workers == 1:
        # One worker runs in this process: a process of its own would only have to be started.
        direct.direct_running_mode = "in_memory"
    return options
