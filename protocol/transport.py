"""What travels beside the security description and is not protected by the exchange: where media goes, and
how it went."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class MediaAddress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where UDP packets of a call go: an IP address or host name, and a port."""

    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class Statistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one end sent and heard in a session (RFC 3550 section 6 for loss and jitter)."""

    sent: int  # packets
    received: int  # packets that authenticated and were not seen before
    lost: int  # packets that never came, by sequence number
    late: int  # authentic, but after their turn to be played
    refused: int  # wrong key or changed octets (OR-28); counted, never played
    replayed: int  # authentic, but seen before (OR-28); counted, never played
    jitter_ms: float  # interarrival jitter
    peer_lost: int | None  # loss that the peer's last receiver report told, None before the first
    peer_jitter_ms: float | None
    round_trip_ms: float | None  # from sender report and receiver report, None before the first
