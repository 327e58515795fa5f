"""RTCP packets (RFC 3550, 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.rtcp import (
    Bye,
    Cname,
    ReceiverReport,
    ReportBlock,
    RtcpMalformed,
    SenderReport,
    compound,
    is_rtcp,
    middle,
    ntp,
    parse,
    round_trip_s,
)

BLOCK = ReportBlock(ssrc=1, fraction_lost=64, lost=-3, highest=70_000, jitter=12, lsr=5, dlsr=6)
SENDER = SenderReport(
    ssrc=7, ntp=0x0102030405060708, rtp_timestamp=9, packets=10, octets=1600, blocks=(BLOCK,)
)


def test_a_compound_packet_parses_to_its_reports() -> None:
    packet = compound(SENDER, Cname(7, "00000007"), Bye(7))
    assert parse(packet) == (SENDER, Bye(7))
    receiver = ReceiverReport(7, (BLOCK, BLOCK))
    assert parse(compound(receiver, Cname(7, "00000007"))) == (receiver,)


def test_octets_as_in_the_rfc() -> None:
    assert ReceiverReport(0x0A0B0C0D).pack().hex() == "80c900010a0b0c0d"
    assert Bye(0x0A0B0C0D).pack().hex() == "81cb00010a0b0c0d"
    assert Cname(1, "ab").pack().hex() == "81ca0003" + "00000001" + "01026162" + "00000000"
    assert Cname(1, "abc").pack().hex() == "81ca0003" + "00000001" + "0103616263000000"
    assert SENDER.pack().hex() == (
        "81c8000c" + "00000007" + "0102030405060708" + "00000009" + "0000000a" + "00000640"
        "00000001" + "40fffffd" + "00011170" + "0000000c" + "00000005" + "00000006"
    )


def test_a_loss_over_24_bits_is_clamped() -> None:
    block = ReportBlock(ssrc=1, fraction_lost=0, lost=1 << 30, highest=0, jitter=0, lsr=0, dlsr=0)
    heard = parse(compound(ReceiverReport(7, (block,)), Cname(7, "x")))[0]
    assert isinstance(heard, ReceiverReport)
    assert heard.blocks[0].lost == 0x7F_FFFF


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        Cname(7, "x").pack(),  # no report first
        SENDER.pack()[:-1],
        SENDER.pack() + b"\x81",
        SENDER.pack() + bytes(4),  # version 0
        b"\x82" + SENDER.pack()[1:],  # a block more than there is
        b"\xa1" + SENDER.pack()[1:],  # padding in the first packet
        b"\x80\xc8\x00\x01" + bytes(4),  # a sender report without its sender's part
        SENDER.pack() + b"\x9f\xcb\x00\x01" + bytes(4),  # BYE of 31 sources
    ],
)
def test_malformed(octets: bytes) -> None:
    with pytest.raises(RtcpMalformed):
        parse(octets)


@given(st.binary(max_size=80))
def test_any_octets_parse_or_are_malformed(octets: bytes) -> None:
    for first in (b"", b"\x81\xc8\x00\x0c", b"\x80\xc9\x00\x01"):
        try:
            parse(first + octets)
        except RtcpMalformed:
            continue


def test_rtcp_is_told_from_rtp_by_its_second_octet() -> None:
    assert is_rtcp(SENDER.pack())
    assert not is_rtcp(b"\x80\x00")  # PCMU
    assert not is_rtcp(b"\x80\x80")  # PCMU with the marker
    assert not is_rtcp(b"\x80")


def test_round_trip_is_the_time_less_what_the_peer_kept_it() -> None:
    sent, answered, kept = 100.25, 101.0, 0.5
    block = ReportBlock(1, 0, 0, 0, 0, lsr=middle(ntp(sent)), dlsr=int(kept * 65_536))
    assert round_trip_s(block, answered) == 0.25
    assert round_trip_s(block, answered - 0.26) == 0.0  # the grain of the clocks
    assert round_trip_s(ReportBlock(1, 0, 0, 0, 0, lsr=0, dlsr=0), answered) is None
    wrapped = ReportBlock(1, 0, 0, 0, 0, lsr=middle(ntp(65_535.75)), dlsr=0)
    assert round_trip_s(wrapped, 65_536.25) == 0.5
