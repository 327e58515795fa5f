"""RTP headers (RFC 3550, 5.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtp import RtpMalformed, RtpPacket, parse

PLAIN = RtpPacket(payload_type=0, sequence=0x1234, timestamp=0x01020304, ssrc=0xDEADBEEF, payload=b"sound")


@given(
    st.builds(
        RtpPacket,
        payload_type=st.integers(0, 127),
        sequence=st.integers(0, 0xFFFF),
        timestamp=st.integers(0, 0xFFFF_FFFF),
        ssrc=st.integers(0, 0xFFFF_FFFF),
        payload=st.binary(max_size=200),
        marker=st.booleans(),
    )
)
def test_what_is_packed_parses_to_the_same(packet: RtpPacket) -> None:
    assert parse(packet.pack()) == packet


def test_the_header_is_as_in_the_rfc() -> None:
    assert PLAIN.pack().hex() == "8000123401020304deadbeef" + b"sound".hex()


def test_csrcs_extension_and_padding_are_left_out() -> None:
    header = bytearray(PLAIN.pack()[:12])
    header[0] = 0x80 | 0x20 | 0x10 | 2
    csrcs, extension = bytes(8), bytes.fromhex("bede0001aabbccdd")
    assert parse(bytes(header) + csrcs + extension + b"sound" + b"\0\0\3") == PLAIN


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PLAIN.pack()[:11], id="cut in the header"),
        pytest.param(b"\x40" + PLAIN.pack()[1:], id="version 1"),
        pytest.param(b"\xc0" + PLAIN.pack()[1:], id="version 3"),
        pytest.param(b"\x8f" + PLAIN.pack()[1:], id="CSRCs that are not there"),
        pytest.param(b"\x90" + PLAIN.pack()[1:12], id="extension that is not there"),
        pytest.param(
            b"\x90" + PLAIN.pack()[1:12] + bytes.fromhex("bede0002aabbccdd"),
            id="extension longer than the packet",
        ),
        pytest.param(b"\xa0" + PLAIN.pack()[1:] + b"\0", id="padding of 0 octets"),
        pytest.param(b"\xa0" + PLAIN.pack()[1:] + b"\x07", id="padding over the header"),
    ],
)
def test_malformed(octets: bytes) -> None:
    with pytest.raises(RtpMalformed):
        parse(octets)


@given(st.binary(max_size=64))
def test_any_octets_parse_or_are_malformed(octets: bytes) -> None:
    try:
        parse(octets)
    except RtpMalformed:
        return
    assert len(octets) >= 12
