"""The audit as an operator reads it: all of it, and what it says of an order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from console.mistakes import Mistake
from protocol.checks import Refused
from protocol.sharding import call_key, shard_of
from topics.bus import Inbound, Outbound
from topics.catalogue import AUDIT, ORDERS
from topics.codec import decode, encode
from topics.kafka_admin import read_all, sender, tail
from topics.kafka_clients import KafkaSettings
from topics.messages import Audit, Revoke, RevokeRelease

ANSWER_S: Final = 30.0  # how long an order waits for its outcome


async def all_audits(settings: KafkaSettings) -> AsyncIterator[Audit]:
    """All that there are, in no order. Raises BusUnavailable, BusRefused."""
    async for record in read_all(settings, AUDIT.name):
        noted = _audit(record)
        if noted is not None:
            yield noted


async def outcome_of(
    settings: KafkaSettings, order: Revoke | RevokeRelease, *, within_s: float
) -> Audit | None:
    """Give the order, and wait for what the audit says of it; None: nothing in time.

    Raises BusUnavailable, BusRefused.
    """
    about = order.key_id if isinstance(order, Revoke) else call_key(order.caller, order.call)
    sent = Outbound(ORDERS.name, shard_of(about) % ORDERS.partitions, about.encode(), encode(order))
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


async def carried_out(settings: KafkaSettings, order: Revoke | RevokeRelease) -> Audit:
    """The same, as a command asks for it. Raises Mistake, BusUnavailable, BusRefused."""
    noted = await outcome_of(settings, order, within_s=ANSWER_S)
    if noted is None:
        raise Mistake(
            f"no answer in {ANSWER_S:g} s: is a KMS running? It carries the order out once it does; "
            "giving it again does no harm"
        )
    return noted


def _audit(record: Inbound) -> Audit | None:
    """None: what no agent has written."""
    try:
        message = decode(record.value)
    except Refused:
        return None
    return message if isinstance(message, Audit) else None
