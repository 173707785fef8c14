"""A data set on storage: manifest, ledger, per-video store and shards, and how to write, merge and repair them."""
