"""Properties of a vocabulary that the reader needs: the tokens of headers, and the tokens that occur in speech.

For the published vocabulary both are constants, so that published shards are read without a download; for any other
vocabulary they are computed from the `tokenizer.json` of the data folder.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool

from shards import tokenizer
from shards.dataset.manifest import Manifest
from shards.storage import fetch, filesystem
from shards.storage.errors import UserError
from shards.tokenizer_file import TOKENIZER_NAME
from shards.tokens import FIRST_TEXT_ID, PUBLISHED_HEADERS, PUBLISHED_VOCABULARY_SIZE

_SPOKEN = re.compile(r"[ A-Za-z0-9']*")
_PUBLISHED_SPOKEN = (
    "c-pmAOLD_72=&c+oSvdXZ$@s>rFw$0>S&=sYSQ>4+klYjl9|M@jp4lqm}z>4&#9Dhn`$dg3y&`@AY2J03l4byRQ7VXoRm0Fh1<@s"
    "e3z6?w{4lwpPv;a9_A3>AoyS;KTeHI*QLGY#7*yq`Z0)?SVNLD<mrT-P|_^y5(6Jebu7?f4;YvKvR4rqYNe7CS-(cXQdjA~Mg_=<"
    "WaD9A_X9WF?Plus;fhd4Sk&qPT{NS`a9%TTOuV%IkO;Cygl&!CR9Shj7gBKxI726^LYDfZ#%yxcF{zHWf9S3}G<pcGDCB{;6u}=i"
    "*@B=3lze^PM#IMXV3t4!YZyGafG%*qaOaU8m(qaaF0t1t4sbwriX<O{L<1@6a>uffPb|y_-{+XW`-U`CalRLq(4NVgvQ*cxw}-D>"
    "4MMBwYH8ZN6CHg<ichqq>scybc8KUC(np*zR-R3q<#c!ZAC4}A!K>60Dod<%Z21;nd}{S<d1IYT(sGX`u-p)h4|m-Ey_pkF7ClI6"
    "hn+jS1~2*F3!t83HMyP7M~yIvh`6!D9h+t3HMh$A1FU4c6#"
)


class VocabularyError(UserError):
    """The vocabulary of the data is missing or another one; the message names it."""


@dataclass(frozen=True)
class Vocabulary:
    """Size, header tokens, speech tokens and SHA-256 of a vocabulary."""

    size: int
    headers: dict[str, tuple[int, ...]]
    """Token ids of the headers of the matching sequence."""
    spoken: Bool[np.ndarray, "size"]
    """Whether each token can occur in speech."""
    digest: str


@lru_cache(maxsize=1)
def published() -> Vocabulary:
    """Return the published vocabulary (docs/spec/shards.md 11.1, 12.3)."""
    bits = np.frombuffer(zlib.decompress(base64.b85decode("".join(_PUBLISHED_SPOKEN))), np.uint8)
    spoken = np.unpackbits(bits)[:PUBLISHED_VOCABULARY_SIZE].astype(bool)
    return Vocabulary(PUBLISHED_VOCABULARY_SIZE, dict(PUBLISHED_HEADERS), spoken, fetch.TOKENIZER.sha256)


def from_file(path: str) -> Vocabulary:
    """Return the vocabulary in a tokenizer file. Raises `TokenizerError` if the file is not valid."""
    trained = tokenizer.load_tokenizer(path)
    size = trained.get_vocab_size()
    spoken = [_is_spoken(i, trained.decode([i])) for i in range(size)]
    headers = {word: tuple(trained.encode(word, add_special_tokens=False).ids) for word in PUBLISHED_HEADERS}
    return Vocabulary(size, headers, np.array(spoken), tokenizer.digest(path))


def of_data(folder: str, manifest: Manifest | None) -> Vocabulary:
    """Return the vocabulary that the shards in a folder were written with.

    Without a `tokenizer.json` it is the published one. Raises `VocabularyError` if the manifest names another one.
    """
    path = filesystem.join(folder, TOKENIZER_NAME)
    if filesystem.exists(path):
        digest = hashlib.sha256(filesystem.read_bytes(path)).hexdigest()
        if manifest and digest != manifest.tokenizer:
            raise VocabularyError(f"{path!r} is not the vocabulary in the manifest; restore the file")
        return published() if digest == fetch.TOKENIZER.sha256 else from_file(path)
    if manifest and manifest.tokenizer != fetch.TOKENIZER.sha256:
        raise VocabularyError(
            f"{path!r} is missing and the shards use the vocabulary {manifest.tokenizer[:12]}...; restore the file"
        )
    return published()


def _is_spoken(token: int, text: str) -> bool:
    """Return whether a token has letters, digits and apostrophes only, and is neither special nor blank.

    See docs/spec/shards.md 12.3.
    """
    return token > FIRST_TEXT_ID and _SPOKEN.fullmatch(text) is not None and text.strip(" ") != ""
