"""A wiretap between two phones: UDP relays that write down all that passes, and may change it.

    alice  --SRTP-->  relay of bob's line  --SRTP-->  bob           and likewise back

Where media goes is not protected by the exchange (section 4), so whoever controls the path can stand in it:
what it cannot do is read, or change unseen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from media.line import SocketAddress
from media.rtcp import is_rtcp
from protocol.transport import MediaAddress

Alter = Callable[[bytes], bytes]


class _Relay(asyncio.DatagramProtocol):
    """All that comes goes on to one address."""

    def __init__(
        self, target: SocketAddress, caught: list[bytes], caught_at: list[float], alter: Alter | None
    ) -> None:
        self._target: Final = target
        self._caught: Final = caught
        self._caught_at: Final = caught_at
        self._alter: Final = alter
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:  # noqa: ARG002
        self._caught.append(data)
        self._caught_at.append(asyncio.get_running_loop().time())
        if self._transport is not None:
            self._transport.sendto(self._alter(data) if self._alter else data, self._target)

    def error_received(self, exc: Exception) -> None:
        """The phone behind is gone: its packets are lost, as on any path."""


class Wiretap:
    """Relays before phones. `caught` has what went towards each phone, as it was sent; `caught_at` when, on
    the event loop's clock."""

    def __init__(self, alter: Alter | None = None) -> None:
        """alter: changes each datagram on its way."""
        self.caught: dict[str, list[bytes]] = {}
        self.caught_at: dict[str, list[float]] = {}
        self._alter = alter
        self._detours: dict[MediaAddress, MediaAddress] = {}
        self._transports: list[asyncio.DatagramTransport] = []

    async def tap(self, phone: str, line: MediaAddress) -> None:
        """Put a relay before one line of a phone, on loopback. Raises OSError."""
        caught, caught_at = self.caught.setdefault(phone, []), self.caught_at.setdefault(phone, [])
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Relay((line.host, line.port), caught, caught_at, self._alter), ("127.0.0.1", 0)
        )
        self._transports.append(transport)
        host, port = transport.get_extra_info("sockname")
        self._detours[line] = MediaAddress(host, port)

    def detour(self, line: MediaAddress) -> MediaAddress:
        """Where a peer is told to send instead; a line without a relay stays as it is."""
        return self._detours.get(line, line)

    def srtp(self, phone: str) -> list[bytes]:
        """The media packets that went towards a phone, without SRTCP."""
        return [datagram for datagram in self.caught.get(phone, []) if not is_rtcp(datagram)]

    def stop(self) -> None:
        """Close the relays."""
        while self._transports:
            self._transports.pop().close()


def flip_a_bit(octets: bytes) -> bytes:
    """The octets with the last bit changed."""
    return octets[:-1] + bytes([octets[-1] ^ 1]) if octets else octets


def flip_a_bit_of_media(datagram: bytes) -> bytes:
    """The datagram with one bit of its tag changed; SRTCP passes."""
    return datagram if is_rtcp(datagram) else flip_a_bit(datagram)
