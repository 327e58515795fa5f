"""OR-01: a record is read only when it is exactly what we would have written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.checks import Check, Refused
from protocol.limits import MESSAGE_OCTETS_MAX
from topics.codec import decode, encode
from topics.messages import Contact, Register, Registered

GOOD = Register(identity="sip:alice@ims.example", expires_s=3600, sender=Contact("alice", "a-1@ims.example"))


def raw(**changes: Any) -> bytes:
    """The message as a map, with entries changed or (None) left out, in its own order."""
    fields: dict[str, Any] = {**msgspec.msgpack.decode(encode(GOOD)), **changes}
    return msgspec.msgpack.encode({key: value for key, value in fields.items() if value is not None})


def test_what_is_written_is_read() -> None:
    assert decode(encode(GOOD)) == GOOD
    assert decode(raw()) == GOOD


MALFORMED = {
    "tombstone": None,
    "nothing": b"",
    "no map": b"\x93\x01\x02\x03",
    "not msgpack": b"\xc1\xff",
    "cut": encode(GOOD)[:-1],
    "more behind it": encode(GOOD) + b"\xc0",
    "oversize": raw(identity="x" * MESSAGE_OCTETS_MAX),
    "unknown type": raw(type="nonsense"),
    "no type": raw(type=None),
    "unknown version": raw(v=2),
    "no version": raw(v=None),
    "unknown field": raw(extra=1),
    "missing field": raw(identity=None),
    "wrong type": raw(expires_s="3600"),
    "number as float": raw(expires_s=3600.0),
    "out of range": raw(expires_s=-1),
    "another order": msgspec.msgpack.encode(dict(reversed(msgspec.msgpack.decode(encode(GOOD)).items()))),
    "a key twice": b"\x86" + encode(GOOD)[1:] + b"\xa1v\x01",
    "a longer form of a number": encode(GOOD).replace(b"\xcd\x0e\x10", b"\xce\x00\x00\x0e\x10"),
    "a longer form of a text": encode(GOOD).replace(b"\xa5alice", b"\xd9\x05alice"),
    "deep nesting": b"\x91" * 5000,
    "identity in capitals": raw(identity="sip:Alice@ims.example"),
    "identity with a port": raw(identity="sip:alice@ims.example:5060"),
    "identity with an escape": raw(identity="sip:al%69ce@ims.example"),
    "identity without a scheme": raw(identity="alice@ims.example"),
    "identity with a line end": raw(identity="sip:alice@ims.example\n"),
    "identity too long": raw(identity="sip:alice@" + "a" * 250),
    "user too long": raw(identity="sip:" + "a" * 65 + "@ims.example"),
    "device with a space": raw(**{"from": ["alice", "a 1"]}),
    "host with a slash": raw(**{"from": ["a/b", "a-1"]}),
}


@pytest.mark.parametrize("octets", MALFORMED.values(), ids=MALFORMED.keys())
def test_or_01_malformed(octets: bytes | None) -> None:
    with pytest.raises(Refused) as refused:
        decode(octets)
    assert refused.value.check is Check.OR_01
    assert refused.value.detail


@given(st.binary(max_size=200))
def test_or_01_any_octets_are_read_or_refused(octets: bytes) -> None:
    try:
        message = decode(octets)
    except Refused:
        return
    assert encode(message) == octets


@given(st.integers(0, len(encode(GOOD)) - 1), st.integers(0, 255))
def test_or_01_one_octet_changed_is_another_message_or_none(place: int, octet: int) -> None:
    changed = bytearray(encode(GOOD))
    changed[place] = octet
    try:
        message = decode(bytes(changed))
    except Refused:
        return
    assert encode(message) == changed
    assert isinstance(message, Register | Registered)
