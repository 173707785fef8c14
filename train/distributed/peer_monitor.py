"""How the processes of a run learn within seconds that one of them has ended: TCP connections to process 0.

The kernel closes a connection when its process ends, and answers the probes of the other end whatever the process is
busy with. So a process that compiles or saves for minutes never counts as dead, one that was killed is noticed at once,
and one whose machine is gone after 35 seconds. `jax.distributed` alone takes a minute, and ends the others by SIGABRT.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import selectors
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any

_PROBES = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 5}
"""Seconds of silence before the kernel probes a connection, seconds between probes, and probes that may be lost."""
_CONNECT_SECONDS = 20.0
_SEND_SECONDS = 2.0
_LINE_BYTES = 1 << 16
_BACKLOG = 4096
"""All processes of a large run connect at the same moment."""


@dataclass(frozen=True)
class Place:
    """Which process of a run this one is, and where process 0 listens for the others."""

    process: int
    processes: int
    host: str
    port: int
    token: str
    """What a connection must present, so that nothing else on the network counts as a process of the run."""

    def name(self, process: int) -> str:
        """Return a process as messages name it."""
        return f"process {process} of {self.processes}"


class PeerMonitor:
    """The connections of one process, watched through a selector whose keys hold functions to call.

    Every process listens from the start, because which one is process 0 may be known only when they are connected.
    """

    def __init__(self, selector: selectors.BaseSelector):
        self.news: str | None = None
        """What is known of a process that ended before the run did."""
        self._selector = selector
        self._place = Place(0, 1, "", 0, "")
        self._peers: dict[socket.socket, int] = {}
        self._partial: dict[socket.socket, bytes] = {}
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual, backlog=_BACKLOG)
        self.address = f"{self._server.getsockname()[1]} {secrets.token_hex(16)}"
        """Port and token, for the others if this is process 0."""

    def release(self) -> None:
        """Close the listening socket, in a process that has no use for it."""
        self._server.close()

    def connect(self, place: Place) -> None:
        """Accept the other processes in process 0, connect to it in the others.

        Raises `OSError` if it does not answer.
        """
        self._place = place
        if place.process == 0:
            self._selector.register(self._server, selectors.EVENT_READ, self._accept)
            return
        self._server.close()
        connection = socket.create_connection((place.host, place.port), _CONNECT_SECONDS)
        self._watch(connection)
        self._peers[connection] = 0
        _send(connection, {"token": place.token, "process": place.process})

    def close(self, failure: str | None = None) -> None:
        """Tell the others that this process has finished, or why the run has failed, and disconnect."""
        for connection in list(self._partial):
            if connection in self._peers:
                _send(connection, {"failure": failure} if failure else {"finished": True})
            self._drop(connection)
        # Process 0 alone accepts connections, and none after it has closed.
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._server)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            self._watch(self._server.accept()[0])

    def _watch(self, connection: socket.socket) -> None:
        connection.settimeout(_SEND_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES.items():
            # Linux has them all; other systems probe at their own pace.
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._partial[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ, partial(self._receive, connection))

    def _receive(self, connection: socket.socket) -> None:
        if connection not in self._partial:
            # What came with this message has closed it.
            return
        try:
            data = connection.recv(_LINE_BYTES)
        except OSError:
            data = b""
        *lines, rest = (self._partial[connection] + data).split(b"\n")
        self._partial[connection] = rest
        for line in lines:
            self._read(connection, line)
        if connection in self._partial and (not data or len(rest) > _LINE_BYTES):
            process = self._peers.get(connection)
            self._drop(connection)
            if process is not None:
                self._learn(f"{self._place.name(process)} died (it was killed, or its machine or network is gone)")

    def _read(self, connection: socket.socket, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            return
        if connection in self._peers:
            if "failure" in message:
                self._learn(message["failure"])
            self._drop(connection)
        elif secrets.compare_digest(str(message.get("token")), self._place.token):
            self._peers[connection] = message["process"]

    def _learn(self, news: str) -> None:
        """Remember the first failure, and pass it on before this process ends and seems to be the cause."""
        if self.news is None:
            self.news = news
            for connection in self._peers:
                _send(connection, {"failure": news})

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._partial[connection]
        self._peers.pop(connection, None)
        connection.close()


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a line; a peer that is gone is noticed by its connection."""
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")
