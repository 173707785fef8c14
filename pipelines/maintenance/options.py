"""The options of the maintenance commands; nothing here imports the code that does their work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipelines.preprocessing.text_options import TextOptions


@dataclass(frozen=True)
class RefilterOptions:
    """Apply other filter thresholds to the scores of a data folder.

    Prints what would change; with --out, also creates the new data folder. All flags of Beam are accepted.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """The data folder."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE [NAME=VALUE ...]")]
    """Thresholds to change, by their flags' names with underscores; None disables a rule."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A new data folder to create from the stored segments."""
    embedder: Annotated[str | None, tyro.conf.arg(metavar="EMBEDDER")] = None
    """The image embedder that the folder was created with; required unless it is perceptual or none."""
    shard_bytes: int = 128 << 20
    """Target size of a shard, in bytes."""
    keep_segments: bool = False
    """Keep the segments in the per-video store of the new folder."""
    text: tyro.conf.OmitArgPrefixes[TextOptions] = field(default_factory=TextOptions)


@dataclass(frozen=True)
class StatsOptions:
    """Compute the statistics of shards with a Beam job, and print them.

    All flags of Beam are accepted, such as --runner.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A data folder, a shard or a pattern."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The split to read; by default all."""
    json: bool = False
    """Print the statistics as JSON."""
    scratch: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """A folder that this machine and all workers can access; by default a temporary folder of this machine."""


@dataclass(frozen=True)
class TimingOptions:
    """Train a model of the errors in a speech recogniser's word times."""

    pairs: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """A file of recordings, one JSON object per line: the words with recognised times, and with true times."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE")]
    """The file to write the model to."""
    tokenizer: Annotated[str, tyro.conf.arg(metavar="FILE")] = "published"
    """The tokenizer that counts the tokens of words: published, or a tokenizer.json."""
    steps: int = 3000
    """Number of training steps."""
    seed: int = 0
    """Seed of the initial weights and of the batches."""
