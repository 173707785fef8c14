"""The ground floor: record formats, vocabulary, writing, manifest and ledger.

`records` holds the formats, `reading` what `shards.reader` is made of, `inspection` what people look at.
"""
