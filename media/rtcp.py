"""RTCP packets in the clear: sender and receiver reports, CNAME, BYE (RFC 3550, 6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from media.rtp import VERSION

_HEADER: Final = struct.Struct("!BBHI")  # each kind that we read or write has an SSRC after its length
_SENDER_INFO: Final = struct.Struct("!QIII")
_BLOCK: Final = struct.Struct("!IIIIII")
_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_CNAME: Final = 1
_LOST_MAX: Final = 0x7F_FFFF


class RtcpMalformed(Exception):  # noqa: N818
    """The octets are no compound RTCP packet."""


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """How one stream is received (6.4.1)."""

    ssrc: int
    fraction_lost: int  # of 256, since the report before
    lost: int  # packets, may be negative; 24 bits
    highest: int  # extended highest sequence number
    jitter: int  # in units of the RTP timestamp
    lsr: int  # middle 32 bits of the last sender report's NTP time, 0 before the first
    dlsr: int  # since then, in 1/65536 s

    def pack(self) -> bytes:
        """24 octets; a loss that 24 bits do not hold is clamped (6.4.1)."""
        lost = max(-_LOST_MAX - 1, min(self.lost, _LOST_MAX)) & 0xFF_FFFF
        loss = self.fraction_lost << 24 | lost
        return _BLOCK.pack(self.ssrc, loss, self.highest, self.jitter, self.lsr, self.dlsr)


@dataclass(frozen=True, slots=True)
class SenderReport:
    """ntp: 64 bits. packets, octets: of payload, sent so far."""

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    octets: int
    blocks: tuple[ReportBlock, ...] = ()

    def pack(self) -> bytes:
        """28 octets, and 24 for each block."""
        info = _SENDER_INFO.pack(self.ntp, self.rtp_timestamp, self.packets, self.octets)
        return _packed(_SR, len(self.blocks), self.ssrc, info + b"".join(b.pack() for b in self.blocks))


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """Of one who has sent no RTP packet."""

    ssrc: int
    blocks: tuple[ReportBlock, ...] = ()

    def pack(self) -> bytes:
        """8 octets, and 24 for each block."""
        return _packed(_RR, len(self.blocks), self.ssrc, b"".join(b.pack() for b in self.blocks))


@dataclass(frozen=True, slots=True)
class Cname:
    """The SDES item that each compound packet must carry (6.5). We never read another's."""

    ssrc: int
    name: str

    def pack(self) -> bytes:
        """One chunk, its items ended by 1 to 4 zero octets, up to a whole word."""
        item = bytes((_CNAME, len(self.name))) + self.name.encode("ascii")
        return _packed(_SDES, 1, self.ssrc, item + bytes(4 - len(item) % 4))


@dataclass(frozen=True, slots=True)
class Bye:
    """The source sends nothing more (6.6)."""

    ssrc: int

    def pack(self) -> bytes:
        """8 octets."""
        return _packed(_BYE, 1, self.ssrc, b"")


Heard = SenderReport | ReceiverReport | Bye


def is_rtcp(datagram: bytes) -> bool:
    """Whether the second octet tells RTCP from RTP on the same port (RFC 5761, 4)."""
    return len(datagram) > 1 and 192 <= datagram[1] <= 223


def compound(*packets: SenderReport | ReceiverReport | Cname | Bye) -> bytes:
    """The packets one after another: a report first, and a CNAME (6.1)."""
    return b"".join(packet.pack() for packet in packets)


def parse(octets: bytes) -> tuple[Heard, ...]:
    """The reports and BYEs of a compound packet; other kinds are passed over.

    Raises RtcpMalformed if it does not begin with a report, or if its lengths do not add up (A.2).
    """
    if len(octets) < 8 or octets[0] & 0x20 or octets[1] not in {_SR, _RR}:
        raise RtcpMalformed("does not begin with a report")
    heard: list[Heard] = []
    while octets:
        if len(octets) < 4 or octets[0] >> 6 != VERSION:
            raise RtcpMalformed("no header")
        length = 4 + 4 * int.from_bytes(octets[2:4], "big")
        if length > len(octets):
            raise RtcpMalformed("longer inside than outside")
        try:
            heard.extend(_read(octets[1], octets[0] & 0x1F, octets[:length]))
        except struct.error:
            raise RtcpMalformed("shorter than its count says") from None
        octets = octets[length:]
    return tuple(heard)


def ntp(now: float) -> int:
    """Seconds as an NTP timestamp of 64 bits; any steady clock will do (4)."""
    return int(now * (1 << 32)) & 0xFFFF_FFFF_FFFF_FFFF


def middle(timestamp: int) -> int:
    """The middle 32 bits of an NTP timestamp, as LSR has them: 1/65536 s."""
    return timestamp >> 16 & 0xFFFF_FFFF


def round_trip_s(block: ReportBlock, now: float) -> float | None:
    """From our sender report to this block of the answer, less the time that the peer kept it (6.4.1).

    now: on the clock of our sender reports. None if the peer has had no report of ours.
    """
    if block.lsr == 0:
        return None
    trip = (middle(ntp(now)) - block.lsr - block.dlsr) & 0xFFFF_FFFF
    return 0.0 if trip >> 31 else trip / 65_536  # just below 0: the clocks' grain


def _packed(kind: int, count: int, ssrc: int, rest: bytes) -> bytes:
    return _HEADER.pack(VERSION << 6 | count, kind, 1 + len(rest) // 4, ssrc) + rest


def _read(kind: int, count: int, octets: bytes) -> list[Heard]:
    match kind:
        case 200:
            (ssrc,) = struct.unpack_from("!I", octets, 4)
            ntp_time, rtp_timestamp, packets, sent = _SENDER_INFO.unpack_from(octets, 8)
            blocks = _blocks(octets, 8 + _SENDER_INFO.size, count)
            return [SenderReport(ssrc, ntp_time, rtp_timestamp, packets, sent, blocks)]
        case 201:
            (ssrc,) = struct.unpack_from("!I", octets, 4)
            return [ReceiverReport(ssrc, _blocks(octets, 8, count))]
        case 203:
            return [Bye(ssrc) for ssrc in struct.unpack_from(f"!{count}I", octets, 4)]
        case _:
            return []


def _blocks(octets: bytes, start: int, count: int) -> tuple[ReportBlock, ...]:
    blocks = []
    for index in range(count):
        ssrc, loss, highest, jitter, lsr, dlsr = _BLOCK.unpack_from(octets, start + index * _BLOCK.size)
        lost = (loss & 0xFF_FFFF) - ((loss & 0x80_0000) << 1)
        blocks.append(ReportBlock(ssrc, loss >> 24, lost, highest, jitter, lsr, dlsr))
    return tuple(blocks)
