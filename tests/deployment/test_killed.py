"""kill -9 of the KMS in the middle of 200 calls: every call comes up with one K, and the audit has each."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Collection
from typing import Final

import pytest

from chaos.lab import draw_crowd
from chaos.load import Load, LoadSettings
from chaos.load_account import CallResult
from chaos.load_media import fingerprint
from console.outside import clock
from protocol.sharding import call_key
from storage.kms_records import Agreement
from storage.provisioning import provision_network
from storage.redis_store import RedisStore
from tests.deployment.network import SESSION_TIMEOUT_S, Network
from topics.catalogue import AUDIT, catalogue
from topics.codec import decode
from topics.kafka_admin import create_topics, read_all
from topics.kafka_clients import KafkaSettings
from topics.messages import Audit, AuditEvent

pytestmark = pytest.mark.servers

CALLS: Final = 200
PER_SECOND: Final = 50
draw = random.Random().randbytes


async def test_the_kms_is_killed_in_the_middle_of_200_calls(network: Network) -> None:
    kafka = KafkaSettings(bootstrap=network.servers.kafka, session_timeout_s=SESSION_TIMEOUT_S)
    host = f"load-{draw(3).hex()}"
    handsets = draw_crowd(2 * CALLS, host, draw)
    await network.otway("keys", "init")
    await create_topics(kafka, catalogue([host]))
    store = RedisStore(network.redis_settings)
    await provision_network(store, network.codec, handsets, clock(), draw)
    await network.run("kms", "kms")
    await network.run("cscf", "cscf")
    settings = LoadSettings(
        host=host, devices=handsets, rate=PER_SECOND, seconds=CALLS / PER_SECOND, hold_s=2.0, drain_s=90.0
    )
    load = Load(settings, kafka, clock=clock, random=draw)
    loading = asyncio.create_task(load.run(asyncio.Event()))
    for dialled in (CALLS // 4, 3 * CALLS // 4):
        await until_dialled(load, dialled, loading)
        await network.kill("kms")
        await network.run("kms", "kms")
    await loading
    outcome = load.outcome()
    assert (outcome.dials, outcome.came_up, outcome.confirmed) == (CALLS, CALLS, CALLS)
    assert (outcome.unaccounted, outcome.two_keys) == (0, 0)
    calls = {name(call): call for call in outcome.calls}
    assert all(call.key_at_caller == call.key_at_callee for call in calls.values()), "both ends hold K"
    assert len({call.key_at_caller for call in calls.values()}) == CALLS, "and no two calls the same one"
    granted = await grants(kafka, calls.keys())
    assert all(len(ids) == 1 for ids in granted.values()), "one fact for each grant, however often told"

    keys = [Agreement.key_for(call.caller, c_of(call)) for call in calls.values()]
    stored = await store.read([key.name for key in keys])
    for key, found, call in zip(keys, stored, calls.values(), strict=True):
        assert found.value is not None
        [agreed] = network.codec.decode(key, found.value).runs
        [fork] = agreed.forks
        assert fork.key is not None
        assert fork.key.reveal() not in found.value, "the store sees it wrapped only"
        assert fingerprint(fork.key) == call.key_at_caller, "the KMS has stored that K, and no other"
    await store.close()


async def until_dialled(load: Load, count: int, loading: asyncio.Task[None]) -> None:
    """Returns when so many calls were dialled; raises what has ended the load before."""
    async with asyncio.timeout(90):
        while len(load.account) < count:
            await asyncio.wait([loading], timeout=0.01)
            if loading.done():
                await loading


async def grants(settings: KafkaSettings, calls: Collection[str]) -> dict[str, set[bytes]]:
    """The facts of each call's grants."""
    granted: dict[str, set[bytes]] = defaultdict(set)
    async for record in read_all(settings, AUDIT.name):
        noted = decode(record.value)
        if isinstance(noted, Audit) and noted.event is AuditEvent.GRANTED and noted.caller and noted.call:
            key = call_key(noted.caller, noted.call)
            if key in calls:
                granted[key].add(noted.id)
    assert granted.keys() == set(calls)
    return granted


def name(call: CallResult) -> str:
    return call_key(call.caller, c_of(call))


def c_of(call: CallResult) -> bytes:
    assert call.call is not None
    return bytes.fromhex(call.call)
