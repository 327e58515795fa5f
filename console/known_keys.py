"""What the audit says of key ids: who has them, what they were used for, whether they still serve; and what
became of an order about one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from protocol.checks import Refused
from protocol.sharding import shard_of
from topics.bus import Inbound, Outbound
from topics.catalogue import AUDIT, ORDERS
from topics.codec import decode, encode
from topics.kafka_admin import read_all, sender, tail
from topics.kafka_clients import KafkaSettings
from topics.messages import Audit, AuditEvent, Revoke


class KeyState(StrEnum):
    """Whether a key id serves."""

    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"


class KnownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key id that was attached, used in a grant, or revoked."""

    key_id: str
    impi: str | None  # None: no record says it
    identities: tuple[str, ...]  # that it has acted as
    not_after: int | None  # seconds since 1970 UTC; None: no record says it, as of a pre-shared key
    grants: int
    state: KeyState


@dataclass(slots=True)
class _Told:
    impi: str | None = None
    not_after: int | None = None
    revoked: bool = False
    identities: set[str] = field(default_factory=set)
    grants: set[bytes] = field(default_factory=set)  # by id, since the audit may tell one twice


class KeyBook:
    """Takes the audit record by record, in any order."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def add(self, audit: Audit) -> None:
        """What this record says of key ids."""
        match audit:
            case Audit(event=AuditEvent.ATTACHED | AuditEvent.REVOKED, key_id=str(key_id)):
                told = self._of(key_id)
                told.impi, told.not_after = audit.impi, audit.not_after
                told.revoked = told.revoked or audit.event is AuditEvent.REVOKED
            case Audit(event=AuditEvent.GRANTED):
                for used, identity in (
                    (audit.caller_key, audit.caller),
                    (audit.callee_key, audit.callee),
                ):
                    if used is not None and identity is not None:
                        self._of(used).identities.add(identity)
                        self._of(used).grants.add(audit.id)
            case _:
                pass

    def keys(self, now: int) -> Iterator[KnownKey]:
        """By key id. One that was revoked and then provisioned with another key is still called revoked."""
        for key_id, told in sorted(self._told.items()):
            state = KeyState.LIVE
            if told.revoked:
                state = KeyState.REVOKED
            elif told.not_after is not None and now > told.not_after:
                state = KeyState.EXPIRED
            yield KnownKey(
                key_id=key_id,
                impi=told.impi,
                identities=tuple(sorted(told.identities)),
                not_after=told.not_after,
                grants=len(told.grants),
                state=state,
            )

    def _of(self, key_id: str) -> _Told:
        return self._told.setdefault(key_id, _Told())


async def known_keys(settings: KafkaSettings, now: int) -> tuple[KnownKey, ...]:
    """All that the audit has. now: seconds since 1970 UTC. Raises BusUnavailable, BusRefused."""
    book = KeyBook()
    async for record in read_all(settings, AUDIT.name):
        noted = _audit(record)
        if noted is not None:
            book.add(noted)
    return tuple(book.keys(now))


async def outcome_of(settings: KafkaSettings, order: Revoke, *, within_s: float) -> Audit | None:
    """Give the order, and wait for what the audit says of it; None: nothing in time.

    Raises BusUnavailable, BusRefused.
    """
    sent = Outbound(
        ORDERS.name, shard_of(order.key_id) % ORDERS.partitions, order.key_id.encode(), encode(order)
    )
    async with tail(settings, [AUDIT.name]) as audits, sender(settings) as send:
        await send([sent])
        try:
            async with asyncio.timeout(within_s):
                async for record in audits:
                    noted = _audit(record)
                    if noted is not None and noted.order == order.order:
                        return noted
        except TimeoutError:
            pass
    return None


def _audit(record: Inbound) -> Audit | None:
    """None: what no agent has written."""
    try:
        message = decode(record.value)
    except Refused:
        return None
    return message if isinstance(message, Audit) else None
