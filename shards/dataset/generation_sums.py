"""Read the statistics of one generation or one shard of a data set."""

from __future__ import annotations

import json

from shards.dataset import manifest
from shards.dataset.manifest import Generation, ManifestError, Shard, generation_stats_path, stats_path
from shards.dataset.sums import Sums
from shards.storage import filesystem
from shards.storage.errors import StorageError


def read_generation(folder: str, generation: Generation) -> Sums:
    """Return the sums of one generation from its statistics file, or else from its sidecars. Raises `ManifestError`."""
    path = generation_stats_path(folder, generation)
    content = filesystem.read_existing(path)
    if content is not None:
        try:
            return Sums.from_json(content)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise ManifestError(f"the statistics {path!r} are damaged; --recompute reads the shards instead") from None
    sums = Sums()
    for shard in generation.shards:
        sums.add(read_sidecar(manifest.generation_folder(folder, generation), shard))
    return sums


def read_sidecar(folder: str, shard: Shard) -> Sums:
    """Return the sums of one shard. Raises `ManifestError` naming a sidecar that is missing or damaged."""
    path = stats_path(filesystem.join(folder, shard.name))
    try:
        return Sums.of_shard(shard.name, shard.bytes, json.loads(filesystem.read_bytes(path)))
    except StorageError:
        raise ManifestError(f"the sidecar {path!r} is missing; --recompute reads the shards instead") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"the sidecar {path!r} is damaged ({type(error).__name__})"
        raise ManifestError(f"{problem}; --recompute reads the shards instead") from None
