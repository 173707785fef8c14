"""The preprocessing job as a Beam graph: `ExtractVideos` commits videos, `AssembleShards` makes shards of them."""
