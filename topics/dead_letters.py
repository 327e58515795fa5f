"""Dead letters: a record that cannot be read is kept as it came, with where it came from and why."""

from __future__ import annotations

from typing import Final

from protocol.checks import Refused
from protocol.sharding import shard_of
from topics.bus import Inbound, Outbound
from topics.catalogue import DEAD_LETTERS, Party

_REASON_OCTETS_MAX: Final = 500
_ORIGINAL_OCTETS_MAX: Final = 4_096
_HEADERS_MAX: Final = 16


def bury(record: Inbound, party: Party, refused: Refused) -> Outbound:
    """The dead letter of a record: the same octets each time, so that a repeat after a crash is recognised.

    Headers: origin topic, partition, offset and key, who buried it, the check that it failed and the reason;
    the record's own headers, as far as they fit, with `original-` before their names.
    """
    origin = f"{record.topic}/{record.partition}/{record.offset}"
    reason = (refused.detail or str(refused)).encode()[:_REASON_OCTETS_MAX]
    headers: list[tuple[str, bytes]] = [
        ("origin-topic", record.topic.encode()),
        ("origin-partition", str(record.partition).encode()),
        ("origin-offset", str(record.offset).encode()),
        ("origin-key", (record.key or b"")[:_ORIGINAL_OCTETS_MAX]),
        ("buried-by", party.encode()),
        ("check", refused.check.encode()),
        ("reason", reason),
    ]
    room = _ORIGINAL_OCTETS_MAX
    for name, value in record.headers[:_HEADERS_MAX]:
        room -= len(name) + len(value)
        if room >= 0:
            headers.append((f"original-{name}", value))
    return Outbound(DEAD_LETTERS.name, shard_of(origin), origin.encode(), record.value, tuple(headers))
