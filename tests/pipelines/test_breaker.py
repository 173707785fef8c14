"""The number of consecutive failures after which the downloads of a machine stop, by outcome."""

import pytest

from pipelines.extraction.circuit_breaker import Breaker
from pipelines.extraction.untried import Reason, closing_sentence
from shards.outcomes import Kind, Outcome


@pytest.fixture
def breaker(tmp_path, monkeypatch):
    monkeypatch.setenv("RESERVOIR_CACHE", str(tmp_path))
    return Breaker("run")


@pytest.mark.parametrize(
    ("outcome", "limit"),
    [
        (Outcome.BOT_CHECK, 1),
        (Outcome.RATE_LIMITED, 3),
        (Outcome.CAPTIONS_REFUSED, 3),
        (Outcome.NO_FORMATS_OFFERED, 3),
        (Outcome.FORBIDDEN, 10),
        (Outcome.NETWORK, 10),
        (Outcome.SERVER, 10),
    ],
)
def test_faults_of_platform_network_and_address_stop_the_machine(breaker, outcome, limit):
    for _ in range(limit - 1):
        breaker.note(outcome)
    # A video, or a fact about one, says that the machine is served.
    breaker.note(None)
    for _ in range(limit - 1):
        breaker.note(outcome)
    breaker.note(Outcome.PRIVATE)
    for _ in range(limit - 1):
        breaker.note(outcome)
        assert breaker.reason() is None
    breaker.note(outcome)
    assert breaker.reason() is Reason(outcome.value)
    assert Breaker("run").reason() is Reason(outcome.value)
    assert Breaker("another run").reason() is None
    assert outcome.sentence in closing_sentence({Reason(outcome.value): 2})


def test_faults_of_different_kinds_count_together(breaker):
    for outcome in (Outcome.CAPTIONS_REFUSED, Outcome.NO_FORMATS_OFFERED, Outcome.RATE_LIMITED):
        breaker.note(outcome)
    assert breaker.reason() is Reason.RATE_LIMITED


@pytest.mark.parametrize("outcome", [o for o in Outcome if o.kind is not Kind.FAILED_RETRYABLE])
def test_facts_about_videos_stop_nothing(breaker, outcome):
    for _ in range(20):
        breaker.note(outcome)
    assert breaker.reason() is None
