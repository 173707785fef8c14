"""The files of a data set: manifest, ledger, per-video store, shards and sidecars; writing, merging and repair."""
