"""The options of the commands on finished data folders and recordings; imports nothing that does their work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from pipelines.preprocessing.text_options import TextOptions


@dataclass(frozen=True)
class RefilterOptions:
    """Play other thresholds over the scores of a data folder."""

    data: tyro.conf.Positional[str]
    """The data folder."""
    changes: Annotated[tuple[str, ...], tyro.conf.arg(name="set")]
    """Thresholds as NAME=VALUE, by the names of the flags with underscores; None switches a rule off."""
    out: str | None = None
    """A new data folder to make from the kept segments."""
    embedder: str | None = None
    """The image embedder that the folder was created with, needed unless it is perceptual or none."""
    shard_bytes: int = 128 << 20
    """Size of a shard."""
    keep_segments: bool = False
    """Keep the segments in the new folder too."""
    text: tyro.conf.OmitArgPrefixes[TextOptions] = field(default_factory=TextOptions)


@dataclass(frozen=True)
class StatsOptions:
    """Print the statistics of shards that a Beam job reads.

    Every flag of Beam is taken too, such as --runner.
    """

    data: tyro.conf.Positional[str]
    """A data folder, a shard or a pattern."""
    split: str | None = None
    """Only this split."""
    json: bool = False
    """Print JSON instead of tables."""
    scratch: str | None = None
    """A folder that this machine and all workers see; by default a temporary one."""


@dataclass(frozen=True)
class TimingOptions:
    """Learn by how much a recogniser's words are early or late."""

    pairs: tyro.conf.Positional[str]
    """A file of recordings, one JSON object a line: the words as recognised, and the same words at their true times."""
    out: str
    """The file that the model is written to."""
    tokenizer: str = "published"
    """The vocabulary whose pieces are counted."""
    steps: int = 3000
    """Steps of learning."""
    seed: int = 0
    """Seed of the first weights and of the order."""
