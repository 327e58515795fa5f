"""Records and times as an operator reads them. Whoever sent them chose their text: what a terminal would obey
is not shown. Keys are in no message; seals are shown by their length."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from protocol.checks import Refused
from topics.bus import Inbound
from topics.codec import decode

NEVER: Final = "never"
_LAST_S: Final = 253_402_300_799  # the end of year 9999, after which no calendar of Python's goes on
_HEX_OCTETS: Final = 16  # in a line


def utc(seconds: float) -> str:
    """seconds: since 1970 UTC. A time as ISO 8601 has it; `never` for one beyond any calendar."""
    if not 0 <= seconds <= _LAST_S:
        return NEVER
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """With a question mark for each character that is not meant to be seen: one line, without colours."""
    return "".join(each if each.isprintable() else "?" for each in text)


def line(record: Inbound) -> str:
    """One line: where the record is, and what it says."""
    return f"{record.topic}/{record.partition}@{record.offset}  {said(record.value)}"


def said(octets: bytes | None) -> str:
    """One line: the message with its fields, or why it is none. octets: a record's value."""
    try:
        message = decode(octets)
    except Refused as refused:
        return printable(f"malformed: {refused.detail}")
    fields = msgspec.structs.asdict(message)
    told = "  ".join(f"{field}={_plain(value)}" for field, value in fields.items() if value is not None)
    return printable(f"{type(message).__name__}  {told}")


def as_json(record: Inbound) -> bytes:
    """The same for a program; octets are in base64."""
    try:
        message: Any = msgspec.to_builtins(decode(record.value), enc_hook=str)
    except Refused as refused:
        message = {"malformed": refused.detail}
    where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return msgspec.json.encode({**where, "message": message})


def text_or_hex(octets: bytes) -> str:
    """Text if it is nothing but that, else in hexadecimal after 0x."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return f"0x{octets.hex()}"
    return text if text.isprintable() else f"0x{octets.hex()}"


def hex_dump(octets: bytes, limit: int) -> Iterator[str]:
    """Lines of 16 octets, at most `limit` octets, and how many more there are."""
    for start in range(0, min(len(octets), limit), _HEX_OCTETS):
        part = octets[start : min(start + _HEX_OCTETS, limit)]
        seen = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in part)
        yield f"{start:06x}  {part.hex(' '):{3 * _HEX_OCTETS}} {seen}"
    if len(octets) > limit:
        yield f"... and {len(octets) - limit} octets more"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"({len(value)} octets)"
    return str(value)
