"""RTP packets in the clear (RFC 3550, 5.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

VERSION: Final = 2
HEADER_OCTETS: Final = 12
_HEADER: Final = struct.Struct("!BBHII")
_EXTENSION: Final = struct.Struct("!HH")


class RtpMalformed(Exception):  # noqa: N818
    """The octets are no RTP packet."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet. sequence: 16 bits. timestamp, ssrc: 32 bits. payload_type: 7 bits."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    def pack(self) -> bytes:
        """12 octets of header and the payload: no padding, no extension, no CSRC."""
        second = self.marker << 7 | self.payload_type
        return _HEADER.pack(VERSION << 6, second, self.sequence, self.timestamp, self.ssrc) + self.payload


def parse(octets: bytes) -> RtpPacket:
    """The packet; CSRCs, header extension and padding are checked and left out.

    Raises RtpMalformed for another version, and for lengths that do not fit into `octets`.
    """
    if len(octets) < HEADER_OCTETS:
        raise RtpMalformed("shorter than a header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(octets)
    if first >> 6 != VERSION:
        raise RtpMalformed("not version 2")
    start = HEADER_OCTETS + 4 * (first & 0x0F)
    if first & 0x10:
        start += _extension_octets(octets, start)
    end = len(octets)
    if first & 0x20:
        padding = octets[-1]
        if padding == 0:
            raise RtpMalformed("padding of no octets")
        end -= padding
    if start > end:
        raise RtpMalformed("longer inside than outside")
    return RtpPacket(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=octets[start:end],
        marker=bool(second & 0x80),
    )


def _extension_octets(octets: bytes, start: int) -> int:
    """Length of the header extension with its own header of 4 octets (RFC 3550, 5.3.1)."""
    if start + 4 > len(octets):
        raise RtpMalformed("cut in the extension")
    _, words = _EXTENSION.unpack_from(octets, start)
    return 4 + 4 * int(words)
