"""What an operator reads on a terminal: all of a record, and nothing that the terminal obeys."""

from __future__ import annotations

import json

import pytest

from console.operating.showing import as_json, hex_dump, line, printable, said, text_or_hex, utc
from topics.bus import Inbound
from topics.codec import encode
from topics.messages import Attached, BootstrapChallenge, Contact, Register

REGISTER = Register(identity="sip:a@b", expires_s=60, sender=Contact("alice", "a-1"))


def test_a_message_is_one_line() -> None:
    record = Inbound("ims.cscf", 3, 17, b"k", encode(REGISTER))
    assert line(record).startswith("ims.cscf/3@17  Register  version=1  identity=sip:a@b  expires_s=60")
    told = json.loads(as_json(record))
    assert (told["topic"], told["partition"], told["offset"]) == ("ims.cscf", 3, 17)
    assert told["message"]["identity"] == "sip:a@b"


def test_a_seal_is_shown_by_its_length() -> None:
    octets = bytes(range(100))
    told = said(encode(Attached(btid="b", to="a-1", sealed=octets)))
    assert "sealed=(100 octets)" in told
    assert octets[:8].hex() not in told


@pytest.mark.parametrize("octets", [None, b"", b"\xc1", b"\x81\xa4type\xa4\x1b[2J"], ids=str)
def test_what_does_not_decode_says_why(octets: bytes | None) -> None:
    told = said(octets)
    assert told.startswith("malformed: ")
    assert told.isprintable()
    assert b"malformed" in as_json(Inbound("t", 0, 0, None, octets))


def test_a_terminal_is_told_nothing() -> None:
    hostile = BootstrapChallenge(attempt=bytes(16), to="a-1", realm="\x1b[2J", nonce="n")
    assert "realm=?[2J" in said(encode(hostile))
    assert printable("\x1b[31mred\x07\r\n\x9b2J\u202e") == "?[31mred????2J?"
    assert printable("größer, ok") == "größer, ok"


def test_octets_are_text_or_hexadecimal() -> None:
    assert [text_or_hex(octets) for octets in (b"alice", b"", b"\xff\x00", b"a\nb")] == [
        "alice",
        "",
        "0xff00",
        "0x610a62",
    ]


def test_a_hex_dump_has_a_limit() -> None:
    assert list(hex_dump(b"", 16)) == []
    assert list(hex_dump(b"0123456789abcdef\x00\x7f~", 100)) == [
        "000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef",
        "000010  00 7f 7e                                         ..~",
    ]
    assert list(hex_dump(bytes(20), 18))[1:] == [
        "000010  00 00                                            ..",
        "... and 2 octets more",
    ]


def test_times_beyond_the_calendar_are_no_errors() -> None:
    assert utc(0) == "1970-01-01T00:00:00Z"
    assert utc(1_800_000_000.9) == "2027-01-15T08:00:00Z"
    assert utc(253_402_300_799) == "9999-12-31T23:59:59Z"
    assert [utc(seconds) for seconds in (253_402_300_800, 2**62, -1)] == ["never"] * 3
