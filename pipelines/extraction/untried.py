"""Videos that a job did not try to download, by reason, and the sentence with which it ends because of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from shards.outcomes import Outcome


class Reason(enum.Enum):
    """Why a worker tries no more downloads."""

    BOT_CHECK = "bot-check"
    RATE_LIMITED = "rate-limited"
    CAPTIONS_REFUSED = "captions-refused"
    NO_FORMATS_OFFERED = "no-formats-offered"
    FORBIDDEN = "forbidden"
    NETWORK = "network"
    SERVER = "server"
    DAILY_LIMIT = "daily-limit"

    @property
    def sentence(self) -> str:
        """What happened, and when to run the job again."""
        return _SENTENCES[self]


_LATER = "Run the same command again some hours later"
_SENTENCES = {
    Reason.BOT_CHECK: f"{Outcome.BOT_CHECK.sentence} {_LATER}",
    Reason.RATE_LIMITED: f"{Outcome.RATE_LIMITED.sentence} {_LATER}",
    Reason.CAPTIONS_REFUSED: f"{Outcome.CAPTIONS_REFUSED.sentence} {_LATER}, or with a PO token",
    Reason.NO_FORMATS_OFFERED: f"{Outcome.NO_FORMATS_OFFERED.sentence} Then run the same command again",
    Reason.FORBIDDEN: f"{Outcome.FORBIDDEN.sentence} {_LATER}",
    Reason.NETWORK: f"{Outcome.NETWORK.sentence} Run the same command again when the network works",
    Reason.SERVER: f"{Outcome.SERVER.sentence} {_LATER}",
    Reason.DAILY_LIMIT: "the workers have used up their downloads of a day; run the same command again in a day",
}


def closing_sentence(counts: Mapping[Reason, int]) -> str | None:
    """How a job ends that did not try so many videos, by reason; None if it tried all."""
    given = {reason: counts[reason] for reason in Reason if counts.get(reason)}
    if not given:
        return None
    several = len(given) > 1
    why = "; ".join(f"{f'{count} because: ' if several else ''}{reason.sentence}" for reason, count in given.items())
    return f"downloading stopped, {sum(given.values())} videos were not tried and what was finished is kept: {why}"
