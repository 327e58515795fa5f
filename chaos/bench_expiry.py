"""Keys of messages that all end in the same second: how soon they are destroyed, beside Redis's own expiry.

    KMS     so many stored keys, each with its alarm; one KMS destroys them while devices ask for some
    Redis   as many records of the same octets, left to the server's own expiry

What is granted after the end does not depend on either: the record decides at each read. So every answer to a
FETCH is looked at, and in the end every record is read back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from agents.alarms import KeysEnd, encode_alarm
from agents.kms import Kms
from agents.runtime import Loop
from chaos.bench_clients import UNLIMITED, Clients, codec, now, people
from protocol.deferred import seal_fetch
from protocol.evidence import FetchToken, Holder
from protocol.names import Role, Run, Suite
from protocol.profile import HARDENED
from protocol.secret import Secret
from protocol.sharding import SHARDS, call_key, shard_of
from storage.kms_records import AgreedRun, Agreement, Deposited
from storage.redis_store import RedisStore
from storage.store import NO_VERSION, Change, StoredAlarm, StoredPut
from storage.users_file import Device
from topics.bus import Outbound
from topics.catalogue import KMS, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Contact, Fetch, FetchResponse, Refusal, clear

KEYS: Final = 100_000
FETCHES: Final = 1_000
_BATCH: Final = 500
_AHEAD_S: Final = 30  # until the second in which they end: they are written before it
_GIVE_UP_S: Final = 120
_HOST: Final = "bench"


class Expiry(msgspec.Struct, frozen=True):
    """How soon so many keys were gone, in seconds from the end of their time."""

    keys: int
    destroyed_s: float  # by the KMS
    expired_s: float  # by Redis
    fetches: int  # after the end, while the KMS was at it
    granted: int  # of them
    left: int  # keys that a record still has afterwards


async def measure(servers: Clients, say: Callable[[str], None]) -> Expiry:
    """Redis first, then the KMS, on the same server."""
    store = RedisStore(servers.redis)
    callers, callees = people()
    say(f"expiry: {KEYS} records, left to Redis")
    expired_s = await _by_redis(servers, _agreement(callers[0], callees[0], os.urandom(16), 0)[1])
    say(f"expiry: {KEYS} keys of messages, destroyed by the KMS")
    end = now() + _AHEAD_S
    runs = [
        _agreement(callers[number % len(callers)], callees[number % len(callees)], os.urandom(16), end)
        for number in range(KEYS)
    ]
    await _store(store, runs, end)
    assert now() < end, "written too late: the keys have ended before all were there"
    destroyed_s, fetches, granted = await _by_kms(store, [run for run, _ in runs], callers, callees, end)
    left = await _left(store, [run for run, _ in runs])
    await store.close()
    return Expiry(KEYS, destroyed_s, expired_s, fetches, granted, left)


def line(found: Expiry) -> str:
    """The figures side by side."""
    return (
        f"{found.keys} keys of messages that end in one second: destroyed by one KMS within "
        f"{found.destroyed_s:.1f} s, {found.left} left; by Redis's own expiry {found.expired_s:.1f} s; "
        f"{found.granted} of {found.fetches} fetches granted meanwhile"
    )


async def _by_redis(servers: Clients, value: bytes) -> float:
    async with Redis.from_url(servers.redis.url) as client:
        before, end = await client.dbsize(), now() + _AHEAD_S
        for first in range(0, KEYS, _BATCH):
            pipeline = client.pipeline(transaction=False)
            for number in range(first, first + _BATCH):
                pipeline.set(f"bench:expiry:{number}", value, exat=end)
            await pipeline.execute()
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + _AHEAD_S + _GIVE_UP_S):
            while await client.dbsize() > before:  # noqa: ASYNC110  (the server tells nobody)
                await asyncio.sleep(0.05)
        return time.time() - end


async def _by_kms(
    store: RedisStore, runs: Sequence[Run], callers: Sequence[Device], callees: Sequence[Device], end: int
) -> tuple[float, int, int]:
    """Seconds until no alarm of theirs is due, fetches answered, and how many of them with a key."""
    broker = MemoryBroker(catalogue([_HOST]))
    kms = Kms(HARDENED, UNLIMITED)
    loop = Loop(kms, MemoryBus(broker, "kms", KMS.name), store, codec(), clock=now, random=os.urandom)
    await asyncio.sleep(end + 1 - time.time())
    every = max(1, len(runs) // FETCHES)
    asked = 0
    while True:
        for run in runs[asked * every : (asked + 10) * every : every]:
            broker.append(_fetch(run, callers, callees))
            asked += 1
        await loop.step(0)
        if asked >= FETCHES and not await store.due("kms", range(SHARDS), end + 2, 1):
            break
    took = time.time() - end - 1
    answers = [decode(record.value) for record in broker.records(ue_inbox(_HOST).name)]
    granted = sum(isinstance(answer, FetchResponse) for answer in answers)
    refused = sum(isinstance(answer, Refusal) for answer in answers)
    return took, granted + refused, granted


def _agreement(caller: Device, callee: Device, call: bytes, end: int) -> tuple[Run, bytes]:
    """What the KMS has of a call in which a message was left, wrapped as it is stored."""
    run = Run(call=call, n=0, caller=caller.identity, callee=callee.identity, suite=Suite.AES_256_GCM)
    deposit = Deposited(
        mailbox="sip:voicemail@ims.example",
        mailbox_key="psk:voicemail@ims.example",
        token_v_hash=bytes(32),
        offer_hash=bytes(32),
        answer_hash=bytes(32),
        key=Secret(os.urandom(32)),
        granted=end - 3600,
        not_before=end - 3720,
        not_after=end,
    )
    agreed = AgreedRun(
        n=0,
        suite=run.suite,
        callee=run.callee,
        caller_key=caller.psk_id,
        token_a_hash=bytes(32),
        nonce_a=bytes(16),
        forks=(),
        settled=b"",
        deposit=deposit,
    )
    return run, codec().encode(Agreement.key_for(run.caller, call), Agreement(runs=(agreed,)))


async def _store(store: RedisStore, runs: Sequence[tuple[Run, bytes]], end: int) -> None:
    """The records with their alarms, as a KMS has written them."""
    for first in range(0, len(runs), _BATCH):
        changes = []
        for run, value in runs[first : first + _BATCH]:
            about, version = call_key(run.caller, run.call), os.urandom(16)
            name = Agreement.key_for(run.caller, run.call).name
            alarm = encode_alarm(KeysEnd(run.caller, run.call))
            changes.append(
                Change(
                    [StoredPut(name, NO_VERSION, version, value, end)],
                    [StoredAlarm("kms", shard_of(about), f"keys-end {about}", end + 1, version, alarm)],
                )
            )
        assert all(await store.write(changes))


def _fetch(run: Run, callers: Sequence[Device], callees: Sequence[Device]) -> Outbound:
    caller = next(device for device in callers if device.identity == run.caller)
    callee = next(device for device in callees if device.identity == run.callee)
    assert callee.psk is not None
    holder = Holder(Role.CALLEE, callee.psk_id, callee.psk)
    token_f = seal_fetch(holder, run, FetchToken(*run.clear, os.urandom(16), now()), random=os.urandom)
    fetch = Fetch(
        caller_key=caller.psk_id,
        callee_key=callee.psk_id,
        suite=run.suite,
        token_f=token_f,
        sender=Contact(_HOST, callee.impi),
        **clear(run),
    )
    key = call_key(run.caller, run.call)
    return Outbound(KMS.name, shard_of(key), key.encode(), encode(fetch))


async def _left(store: RedisStore, runs: Sequence[Run]) -> int:
    """How many records still have a key."""
    left, opened = 0, codec()
    for first in range(0, len(runs), _BATCH):
        keys = [Agreement.key_for(run.caller, run.call) for run in runs[first : first + _BATCH]]
        for key, stored in zip(keys, await store.read([key.name for key in keys]), strict=True):
            if stored.value is not None:
                agreement = opened.decode(key, stored.value)
                left += sum(run.deposit is not None and run.deposit.key is not None for run in agreement.runs)
    return left
