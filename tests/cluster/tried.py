"""Packets of a conference, tried with the keys that its members held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from media.leg import Leg
from media.rtp import HEADER_OCTETS
from media.srtp import ReceivingStream, SrtpRefused, SrtpReplayed, stream_of_peer
from tests.cluster.wire import Caught

_RTCP: Final = range(192, 224)  # payload types (RFC 5761)


@dataclass(frozen=True, slots=True)
class Tried:
    """What has come of all packets. Times in seconds since 1970 UTC."""

    opened: int
    unopened: int
    last_at: dict[tuple[int, str], float]
    """When the last packet under an epoch's key went by, by the epoch and its sender."""

    def last(self, epochs: Collection[int], *, after: float, not_of: str) -> float:
        """When the last packet went by that holders of these epochs can decrypt, after this time, sent by
        others; that time if there was none."""
        mine = (at for (epoch, sender), at in self.last_at.items() if epoch in epochs and sender != not_of)
        return max((at for at in mine if at > after), default=after)


def tried(packets: Sequence[Caught], legs: Mapping[int, Leg], senders: Sequence[str]) -> Tried:
    """With the key of each epoch, as each sender's. legs: a member's, by epoch."""
    streams: dict[tuple[int, str], list[Caught]] = defaultdict(list)
    for each in packets:
        if len(each.payload) > HEADER_OCTETS:
            streams[_ssrc(each.payload), each.source[0]].append(each)
    last_at: dict[tuple[int, str], float] = {}
    opened = unopened = 0
    newest = max(legs)
    for (ssrc, _), stream in streams.items():
        found = _find(stream, ssrc, legs, senders, newest)
        if found is None:
            unopened += len(stream)
            continue
        epoch, sender, key = found
        newest = epoch
        for each in stream:
            if _opens(key, each.payload):
                opened += 1
                last_at[epoch, sender] = max(each.at, last_at.get((epoch, sender), 0.0))
            else:
                unopened += 1
    return Tried(opened, unopened, last_at)


def _find(
    stream: Sequence[Caught], ssrc: int, legs: Mapping[int, Leg], senders: Sequence[str], near: int
) -> tuple[int, str, ReceivingStream] | None:
    """Whose stream it is, and of which epoch; the epochs near one that is likely are tried first."""
    for epoch in sorted(legs, key=lambda each: abs(each - near)):
        for sender in senders:
            leg = msgspec.structs.replace(legs[epoch], remote=sender)
            if any(_opens(stream_of_peer(leg, ssrc), each.payload) for each in (stream[0], stream[-1])):
                return epoch, sender, stream_of_peer(leg, ssrc)
    return None


def _opens(key: ReceivingStream, payload: bytes) -> bool:
    try:
        if payload[1] in _RTCP:
            key.unprotect_rtcp(payload)
        else:
            key.unprotect(payload)
    except SrtpReplayed:
        return True  # authentic, and seen before
    except SrtpRefused:
        return False
    return True


def _ssrc(payload: bytes) -> int:
    at = 4 if payload[1] in _RTCP else 8
    return int.from_bytes(payload[at : at + 4], "big")
