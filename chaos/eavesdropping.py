"""Who can decrypt what, by trying: every root key that a party holds, on every packet that was caught."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from media.codec import CODECS, Decoder
from media.likeness import likeness
from media.pcm import PACKET_SAMPLES, Pcm
from media.rtp import HEADER_OCTETS
from media.srtp import ReceivingStream, SrtpRefused, SrtpReplayed
from protocol.description import SrtpSuite
from protocol.names import MASTER_KEY_OCTETS
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master
from storage.attendance_records import Attendances
from storage.bsf_records import Bootstrapped, Challenge, Naf, Subscription
from storage.focus_records import Conference
from storage.kms_records import Agreement, Group, Site, Subscriber
from storage.memory import MemoryStore
from storage.records import Key, Record, RecordCodec
from storage.ue_records import Collecting, Handset, Outbox, UeCall

_TRIED_PACKETS: Final = 25  # half a second of each stream

RECORDS: Final[Mapping[tuple[str, str], type[Record]]] = {
    ("kms", "site"): Site,
    ("kms", "subscriber"): Subscriber,
    ("kms", "agreement"): Agreement,
    ("kms", "group"): Group,
    ("bsf", "naf"): Naf,
    ("bsf", "subscription"): Subscription,
    ("bsf", "challenge"): Challenge,
    ("bsf", "bootstrapped"): Bootstrapped,
    ("ue", "handset"): Handset,
    ("ue", "call"): UeCall,
    ("ue", "collecting"): Collecting,
    ("ue", "outbox"): Outbox,
    ("ue", "attendances"): Attendances,
    ("conference", "conference"): Conference,
}
"""The records that hold secrets, by role and label."""


def holdings(store: MemoryStore, codec: RecordCodec, role: str) -> list[Secret]:
    """Every secret in a role's records, opened as the role itself opens them."""
    found: list[Secret] = []
    for name, value in store.items():
        owner, _, rest = name.partition(":")
        kind = RECORDS.get((owner, rest.partition(":")[2].partition(":")[0]))
        if owner == role and kind is not None:
            found += secrets_in(codec.decode(Key(name, kind), value))
    return found


def secrets_in(value: Any) -> Iterator[Secret]:  # noqa: ANN401  (any field of any record)
    """Every Secret inside a record, however deep."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from secrets_in(getattr(value, field))
    elif isinstance(value, tuple):
        for item in value:
            yield from secrets_in(item)


def keylike(message: msgspec.Struct) -> Iterator[Secret]:
    """Every field of a message that has the octets of a key: what a curious relay would try."""
    for field in message.__struct_fields__:
        value = getattr(message, field)
        if isinstance(value, bytes) and len(value) >= MASTER_KEY_OCTETS:
            yield Secret(value[-MASTER_KEY_OCTETS:])


def can_decrypt(
    roots: Iterable[Secret], packets: Sequence[bytes], *, sender: str, receiver: str | bytes, n: int = 0
) -> bool:
    """Whether any of the roots opens any of the SRTP packets, under any suite. receiver: an identity, or G;
    n: the run, or the epoch."""
    return any(
        _opens(root, suite, packets[:_TRIED_PACKETS], sender, receiver, n)
        for root in roots
        if len(root) == MASTER_KEY_OCTETS
        for suite in SrtpSuite
    )


def readable(packets: Sequence[bytes], sound: Pcm) -> float:
    """How much the payloads as they went by are like a sound, 0 to 1: what a wiretap without a key hears."""
    decoder = Decoder(CODECS["PCMU"])
    octets = CODECS["PCMU"].packet_octets
    payloads = [packet[HEADER_OCTETS : HEADER_OCTETS + octets] for packet in packets]
    heard = [decoder.decode(payload) for payload in payloads if len(payload) == octets]
    return likeness(np.concatenate(heard), sound) if heard and sound.size >= PACKET_SAMPLES else 0.0


def _opens(
    root: Secret, suite: SrtpSuite, packets: Sequence[bytes], sender: str, receiver: str | bytes, n: int
) -> bool:
    streams: dict[int, ReceivingStream] = {}
    for packet in packets:
        if len(packet) < HEADER_OCTETS:
            continue
        ssrc = int.from_bytes(packet[8:12], "big")
        if ssrc not in streams:
            master = srtp_master(root, suite, sender=sender, receiver=receiver, media_line=0, ssrc=ssrc, n=n)
            streams[ssrc] = ReceivingStream(master, ssrc)
        try:
            streams[ssrc].unprotect(packet)
        except (SrtpRefused, SrtpReplayed):
            continue
        return True
    return False
