"""The connections between the processes of a run: what they tell, and what they do not take for news."""

import json
import selectors
import socket

import pytest

from train.distributed.peer_monitor import PeerMonitor, Place


class Process:
    """One of three processes, all in this one."""

    def __init__(self, number, first=None):
        self.selector = selectors.DefaultSelector()
        self.monitor = PeerMonitor(self.selector)
        port, token = (first or self).monitor.address.split()
        self.port, self.token = int(port), token
        self.monitor.connect(Place(number, 3, "localhost", self.port, token))

    def turn(self):
        for key, _ in self.selector.select(0.05):
            key.data()

    def news(self):
        """What it knows when it has read all that came."""
        for _ in range(3):
            self.turn()
        return self.monitor.news


@pytest.fixture
def three():
    first = Process(0)
    processes = [first, Process(1, first), Process(2, first)]
    assert all(each.news() is None for each in processes)
    yield processes
    for each in processes:
        each.monitor.close()
        each.selector.close()


def die(process):
    """Close its connections without a word, as the kernel does."""
    for connection in list(process.monitor._partial):
        process.monitor._drop(connection)


def test_all_learn_which_process_died_before_process_0_ends(three):
    first, second, third = three
    die(second)
    said = "process 1 of 3 died (it was killed, or its machine or network is gone)"
    assert first.news() == said
    die(first)
    assert third.news() == said


def test_the_death_of_process_0_is_noticed_by_all(three):
    die(three[0])
    for each in three[1:]:
        assert each.news() == "process 0 of 3 died (it was killed, or its machine or network is gone)"


def test_a_failure_reaches_all_and_the_first_one_counts(three):
    first, second, third = three
    third.monitor.close("process 2 of 3 failed: a shard is damaged")
    assert first.news() == second.news() == "process 2 of 3 failed: a shard is damaged"
    die(second)
    assert first.news() == "process 2 of 3 failed: a shard is damaged"


def test_processes_that_finish_are_no_news(three):
    first, second, third = three
    second.monitor.close()
    first.monitor.close()
    assert first.news() is None
    assert third.news() is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1\n\n",
        b"[]\n",
        b'{"failure": "x"}\n',
        json.dumps({"token": "0" * 32, "process": 1}).encode(),
    ],
)
def test_strangers_are_not_processes_of_the_run(three, line):
    with socket.create_connection(("localhost", three[0].port)) as stranger:
        stranger.sendall(line + b"\n")
        assert three[0].news() is None
    assert three[0].news() is None
    die(three[1])
    assert three[0].news().startswith("process 1 of 3 died")


def test_a_process_that_cannot_reach_process_0_says_so():
    with socket.socket() as closed:
        closed.bind(("localhost", 0))
        place = Place(1, 2, "localhost", closed.getsockname()[1], "token")
        with pytest.raises(OSError, match="refused"):
            PeerMonitor(selectors.DefaultSelector()).connect(place)
