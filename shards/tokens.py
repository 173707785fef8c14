"""The ids of the special tokens, and the ids of the published vocabulary's headers.

Standard library only: the network, the reader and the Beam workers all import this module.
"""

from __future__ import annotations

PADDING = 0
START = 1
END = 2
MASK = 3
MASKAUDIO = 4
AUDIOSPAN = 5
LTOVPOOL = 6
RESETCTX = 9

SPECIAL_TOKENS = (
    "<|PAD|>",
    "<|START|>",
    "<|END|>",
    "<|MASK|>",
    "<|MASKAUDIO|>",
    "<|AUDIOSPAN|>",
    "<|LTOVPOOL|>",
    "<|unused0|>",
    "<|UNK|>",
    "<|RESETCTX|>",
)
FIRST_TEXT_ID = len(SPECIAL_TOKENS)
"""Smaller ids are special tokens; text never contains them."""

PUBLISHED_VOCABULARY_SIZE = 32_768
PUBLISHED_HEADERS = {"title:": (3388, 35), "description:": (2026, 35), "tags:": (10884, 35)}
"""Token ids of the headers of the matching sequence in the published vocabulary (docs/spec/shards.md 11.1)."""
