"""What goes over the cluster's network, as whoever has a machine in it could catch it: UDP, with the kernel's
time of each packet."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import pytest

from tests.cluster.cluster import Cluster

_ETHERTYPE_IP: Final = 0x0800
_ETHERTYPE_ALL: Final = 0x0003  # also what this machine itself sends into it
_SO_ATTACH_FILTER: Final = 26
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_SOL_PACKET: Final = 263
_ADD_MEMBERSHIP: Final = 1
_STATISTICS: Final = 6
_PROMISCUOUS: Final = 1
_RECEIVE_OCTETS: Final = 32 << 20
_WAIT_S: Final = 0.2  # so often the thread looks whether it is to end
_FRAME_OCTETS: Final = 4096
_ANCILLARY_OCTETS: Final = 64
_ETHERNET_OCTETS: Final = 14
_UDP_OCTETS: Final = 8
_ONLY_UDP: Final = (  # the kernel's own filter: brokers talk much, and that is TCP
    (0x28, 0, 0, 12),  # load the ethertype
    (0x15, 0, 3, _ETHERTYPE_IP),
    (0x30, 0, 0, 23),  # load the protocol
    (0x15, 0, 1, socket.IPPROTO_UDP),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Caught:
    """A datagram."""

    at: float  # seconds since 1970 UTC
    source: Place
    target: Place
    payload: bytes


@dataclass(frozen=True, slots=True)
class Bridge:
    """The network that all containers of a cluster are in."""

    interface: str
    gateway: str  # this machine's address in it

    @staticmethod
    def of(cluster: Cluster) -> Bridge:
        """Of a cluster that runs."""
        name = f"{cluster.project}_inside"
        told = cluster.docker(
            "network", "inspect", name, "-f", "{{.Id}} {{(index .IPAM.Config 0).Gateway}}"
        ).split()
        return Bridge(f"br-{told[0][:12]}", told[1])


class Tap(threading.Thread):
    """Takes all UDP of the network until it is told until when; needs root."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(daemon=True)
        self.packets: list[Caught] = []
        self._until: float | None = None
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERTYPE_ALL))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _ONLY_UDP))
        program = struct.pack("HL", len(_ONLY_UDP), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_OCTETS)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.bind((bridge.interface, _ETHERTYPE_ALL))
        # a bridge shows what goes from one of its ports to another only to who asks for all of it
        member = struct.pack("iHH8s", socket.if_nametoindex(bridge.interface), _PROMISCUOUS, 0, bytes(8))
        self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, member)
        self._socket.settimeout(_WAIT_S)

    def run(self) -> None:
        """In its thread."""
        while True:
            try:
                frame, ancillary, _, _ = self._socket.recvmsg(_FRAME_OCTETS, _ANCILLARY_OCTETS)
            except TimeoutError:
                if self._until is not None:
                    return
                continue
            seconds, nanoseconds = struct.unpack("ll", ancillary[0][2])
            at = seconds + nanoseconds / 1e9
            if self._until is not None and at > self._until:
                return
            with suppress(struct.error):
                self.packets.append(_read(frame, at))

    def dropped(self) -> int:
        """How many packets this was too slow for, since it was asked last."""
        return int(struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))[1])

    def finish(self) -> None:
        """Returns when all that has passed by now was taken."""
        self._until = time.time()
        self.join()
        assert self.dropped() == 0
        self._socket.close()


def needs_root() -> None:
    """Says clearly what does not run for others; with CI=true that is a failure."""
    if os.geteuid() != 0 and os.environ.get("CI") == "true":
        pytest.fail("CI looks at the network's packets, and needs root for it", pytrace=False)
    if os.geteuid() != 0:
        pytest.skip("not run, because only root may look at the network's packets")


@contextmanager
def caught(bridge: Bridge) -> Iterator[list[Caught]]:
    """All UDP of the network from now on; complete when the context is left. Needs root."""
    tap = Tap(bridge)
    tap.start()
    try:
        yield tap.packets
    finally:
        tap.finish()


def _read(frame: bytes, at: float) -> Caught:
    packet = frame[_ETHERNET_OCTETS:]
    header = 4 * (packet[0] & 15)
    source_port, target_port, size = struct.unpack("!HHH", packet[header : header + 6])
    return Caught(
        at,
        (socket.inet_ntoa(packet[12:16]), source_port),
        (socket.inet_ntoa(packet[16:20]), target_port),
        packet[header + _UDP_OCTETS : header + size],
    )
