"""The ground floor: record formats, vocabulary, writing, manifest, ledger, statistics and reading of shards."""
