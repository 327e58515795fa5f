"""One UDP socket of an engine or a recorder, and the session that it carries at the time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from protocol.transport import MediaAddress

SocketAddress = tuple[Any, ...]  # as the socket module has it; its parts differ between IPv4 and IPv6


class Taking(Protocol):
    """What a line carries."""

    def take(self, datagram: bytes, now: float) -> None:
        """A datagram from anybody has come. now: on the event loop's clock."""
        ...


class Line(asyncio.DatagramProtocol):
    """Datagrams go to the session until its key's lifetime ends; without a session they are dropped."""

    def __init__(self) -> None:
        self.session: Taking | None = None
        self.not_after = 0.0  # on the event loop's clock
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """The socket is bound."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The socket is closed."""
        self._closed.set()

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:  # noqa: ARG002
        """From anybody: what authenticates decides, not where it comes from (the peer may be behind NAT)."""
        now = self._loop.time()
        if self.session is not None and now < self.not_after:  # OR-28
            self.session.take(data, now)

    def error_received(self, exc: Exception) -> None:
        """The peer's port is not open, or not yet: as good as a lost packet."""

    @property
    def port(self) -> int:
        """That is bound."""
        return int(self._bound.get_extra_info("sockname")[1])

    def send(self, datagram: bytes, address: SocketAddress) -> None:
        """At once, or not at all."""
        self._bound.sendto(datagram, address)

    async def resolve(self, address: MediaAddress) -> SocketAddress | None:
        """Where packets for `address` go; None while its name is not known."""
        family = self._bound.get_extra_info("socket").family
        try:
            found = await self._loop.getaddrinfo(
                address.host, address.port, family=family, type=socket.SOCK_DGRAM
            )
        except (OSError, ValueError):  # ValueError: what the peer has sent is no host name at all
            return None
        return found[0][4]

    async def close(self) -> None:
        """Returns when the socket is closed."""
        self._bound.close()
        await self._closed.wait()

    @property
    def _bound(self) -> asyncio.DatagramTransport:
        assert self._transport is not None
        return self._transport


async def bind(count: int, host: str, port: int) -> list[Line]:
    """So many lines, or none. port: of the first, the others follow; 0: any free ones. Raises OSError."""
    loop = asyncio.get_running_loop()
    lines: list[Line] = []
    try:
        for index in range(count):
            address = (host, port + index if port else 0)
            _, line = await loop.create_datagram_endpoint(Line, address)
            lines.append(line)
    except OSError:
        for line in lines:
            await line.close()
        raise
    return lines


def addresses(lines: Sequence[Line], host: str) -> tuple[MediaAddress, ...]:
    """What peers are told of them."""
    return tuple(MediaAddress(host, line.port) for line in lines)
