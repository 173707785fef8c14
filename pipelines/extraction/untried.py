"""The reasons for which a job did not try to download videos, and the message that reports them."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from shards.outcomes import Outcome


class Reason(enum.Enum):
    """Why a worker stopped downloading."""

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
        """What happened and when to run the job again."""
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
    Reason.DAILY_LIMIT: "the workers reached their daily limit of downloads; run the same command again in a day",
}


def closing_sentence(counts: Mapping[Reason, int]) -> str | None:
    """Return the error message for the numbers of videos that were not tried, by reason; `None` if all were tried."""
    reasons = {reason: counts[reason] for reason in Reason if counts.get(reason)}
    if not reasons:
        return None
    several = len(reasons) > 1
    why = "; ".join(f"{f'{count} because: ' if several else ''}{reason.sentence}" for reason, count in reasons.items())
    return f"downloading stopped, {sum(reasons.values())} videos were not tried and finished videos are kept: {why}"
