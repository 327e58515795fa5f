"""More instances of a role: partitions spread, each call has one server at a time, one that wakes overwrites
nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import pytest

from agents.kms import Kms
from agents.runtime import Loop
from chaos.bench_clients import requests
from console.outside import clock
from protocol.profile import HARDENED
from storage.kms_records import Agreement
from storage.redis_store import RedisSettings, RedisStore
from storage.store import Change
from storage.users_file import read_users
from tests.cluster.cluster import Cluster
from tests.cluster.load import HOST, check, load
from topics.catalogue import KMS, catalogue, ue_inbox
from topics.codec import decode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import KeyRequest, KeyResponse

pytestmark = pytest.mark.cluster

PAUSE_S = 10


@pytest.fixture
async def scaled(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three KMSs and two CSCFs; one of each afterwards."""
    await asyncio.to_thread(cluster.scale, kms=3, cscf=2)
    yield cluster
    await asyncio.to_thread(cluster.scale, kms=1, cscf=1)


async def test_partitions_spread_and_each_call_has_one_server(scaled: Cluster) -> None:
    assert await scaled.shared_out("kms", instances=3) == [4, 4, 4]
    assert await scaled.shared_out("cscf", instances=2) == [6, 6]
    async with load(scaled, "scaled", rate=10, seconds=10) as run:
        outcome = await run.outcome()
    await check(scaled, outcome)
    assert outcome.came_up == outcome.dials, outcome.failed
    served = servers_of_calls(scaled, "kms")
    calls = [call.call for call in outcome.calls if call.call]
    assert all(len(served[call]) == 1 for call in calls)
    assert len({container for call in calls for container in served[call]}) == 3, "and all of them serve"


async def test_an_instance_that_was_paused_and_wakes_harms_nothing(scaled: Cluster) -> None:
    container = scaled.containers("kms")[1]
    async with load(scaled, "paused", rate=10, seconds=25) as run:
        await run.dialling()
        await asyncio.to_thread(scaled.docker, "pause", container)
        await asyncio.sleep(PAUSE_S)  # so long that others have taken its partitions over
        await asyncio.to_thread(scaled.docker, "unpause", container)
        outcome = await run.outcome()
    await check(scaled, outcome)
    assert outcome.came_up == outcome.dials, outcome.failed
    await scaled.until_healthy("kms")
    await scaled.shared_out("kms", instances=3)


class Sleeper(RedisStore):
    """A store whose user falls asleep between what it has read and what it will write."""

    def __init__(self, settings: RedisSettings) -> None:
        super().__init__(settings)
        self.asleep = asyncio.Event()
        self.wake = asyncio.Event()
        self.late: list[bool] = []

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        self.asleep.set()
        await self.wake.wait()
        written = await super().write(changes)
        self.late += [not each for each in written]
        return written


async def test_who_wakes_between_reading_and_writing_cannot_overwrite(cluster: Cluster) -> None:
    """Two instances with the same REQUEST, on the cluster's Valkey: the one that slept finds what the other
    has granted, and grants the same."""
    devices = read_users(cluster.secrets / f"ue-{HOST}" / "users.toml")
    [request] = requests(1, devices[:1], devices[1:2], HOST)
    about = decode(request.value)
    assert isinstance(about, KeyRequest)
    key = Agreement.key_for(about.caller, about.call)
    store = RedisStore(cluster.store("kms"))
    sleeper = Sleeper(cluster.store("kms"))
    broker = {name: MemoryBroker(catalogue([HOST])) for name in ("asleep", "awake")}
    for each in broker.values():
        each.append(request)
    loops = {
        name: Loop(
            Kms(HARDENED),
            MemoryBus(broker[name], "kms", KMS.name),
            sleeper if name == "asleep" else store,
            cluster.codec,
            clock=clock,
            random=os.urandom,
        )
        for name in broker
    }
    slow = asyncio.create_task(loops["asleep"].step(0))
    await asyncio.wait_for(sleeper.asleep.wait(), 10)
    assert await loops["awake"].step(0) == 1
    [before] = await store.read([key.name])
    sleeper.wake.set()
    assert await slow == 1
    [after] = await store.read([key.name])
    await store.close()
    await sleeper.close()
    assert True in sleeper.late, "its first write came too late"
    codec = cluster.codec
    assert before.value is not None
    assert after.value is not None
    assert codec.decode(key, after.value) == codec.decode(key, before.value), "the same K, and no other"
    answers = [
        decode(record.value) for each in broker.values() for record in each.records(ue_inbox(HOST).name)
    ]
    assert [type(answer) for answer in answers] == [KeyResponse, KeyResponse]


def servers_of_calls(cluster: Cluster, service: str) -> dict[str, set[str]]:
    """Which containers have granted a key for each call, by their logs."""
    found: dict[str, set[str]] = defaultdict(set)
    for container in cluster.containers(service):
        for line in cluster.logs(container):
            noted = json.loads(line)
            if noted["event"] == "granted":
                found[noted["call"]].add(container)
    return found
