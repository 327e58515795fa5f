"""A key that was destroyed is gone from the disk too: K of a message whose time is over, in the store's own
files.

The KMS runs in this process, on the servers, with a clock that the test turns on.
"""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

import msgspec
import pytest
from redis.asyncio import Redis

from agents.kms import Kms
from agents.runtime import Loop
from protocol.checks import RefusalCode
from protocol.names import Permit
from protocol.profile import HARDENED
from storage import key_file
from storage.kms_records import Agreement, Site
from storage.records import Key
from storage.redis_store import RedisStore
from storage.store import NO_VERSION, Change, StoredPut
from storage.wrapping import WRAPPING_OCTETS, Wrapping, WrappingBroken
from tests.agents.scene import ALICE, Town
from tests.deployment.network import Network, Overheard, until
from tests.servers import Servers
from topics.bus import Outbound
from topics.catalogue import KMS, VOICEMAIL, ue_inbox
from topics.codec import encode
from topics.kafka import KafkaBus
from topics.kafka_admin import sender
from topics.messages import Deposit, DepositResponse, Fetch, FetchResponse, Refusal

pytestmark = pytest.mark.servers

KEEP_S: Final = 60  # less than the record is kept for (OR-10), so that it outlives K
CALL: Final = secrets.token_bytes(16)  # other tests leave records on the same servers
AGREEMENT: Final = Agreement.key_for(ALICE, CALL)
WRAPPED_OCTETS_MAX: Final = 1024  # this agreement has half as many


Answer = TypeVar("Answer", DepositResponse, FetchResponse, Refusal)


class Clock:
    """Stands still until it is turned on; the store's own is the real one."""

    def __init__(self) -> None:
        self.now = int(time.time())

    def __call__(self) -> int:
        return self.now


async def test_a_key_that_was_destroyed_is_not_in_the_append_only_file(network: Network) -> None:
    await network.otway("keys", "init")
    await network.otway("topics", "create", "--host", "bob")
    store, disk, clock = RedisStore(network.redis_settings), Disk(network), Clock()
    began, town = clock.now, await a_town(network, clock.now)
    run = town.run(call=CALL)
    deposit = town.deposit(
        run,
        body_a=town.body(run, time=began, permits=(Permit.DEFERRED,)),
        body_v=town.body_v(run, time=began, keep_s=KEEP_S),
    )

    async def destroyed() -> bool:
        [stored] = await store.read([AGREEMENT.name])
        return k_in(network, stored.value) is None

    async with network.overhear(VOICEMAIL, ue_inbox("bob")) as overheard, serving(network, clock):
        await ask(network, deposit, deposit)  # granted twice, so K is written in two wrapped records
        [response, _] = await answers(overheard, DepositResponse, 2)
        grant, receipt = town.left(deposit, response, began)
        assert receipt.not_after == began + KEEP_S
        await ask(network, town.fetch(run, time=began))
        await answers(overheard, FetchResponse, 1)
        k, [stored] = grant.key.reveal(), await store.read([AGREEMENT.name])
        assert stored.value is not None
        assert k_in(network, stored.value) == k

        written = await disk.read()
        await disk.rewrite()
        rewritten = await disk.read()
        for files, records in ((written, 2), (rewritten, 1)):
            assert stored.value in files
            assert len(disk.opening_to(k, files)) == records
            assert k not in files

        clock.now = receipt.not_after + 1
        await until(destroyed)
        await ask(network, town.fetch(run, time=clock.now))
        [refusal] = await answers(overheard, Refusal, 1)
        assert refusal.code is RefusalCode.EXPIRED
        assert disk.opening_to(k, await disk.read()), "a log of writes keeps what was written"
        await disk.rewrite()
        files = await disk.read()
        assert AGREEMENT.name.encode() in files, "without K"
        assert stored.value not in files
        assert disk.opening_to(k, files) == []
        assert k not in files
    await store.close()


async def a_town(network: Network, now: int) -> Town:
    """Subscribers who have keys now, in the store."""
    town, store, codec = Town(), RedisStore(network.redis_settings), network.codec
    for key_id in ("psk:alice", "psk:bob", "psk:voicemail"):
        town.change(key_id, not_before=now - 1000, not_after=now + 100_000)
    site = town.records[Site.key().name]
    town.put(Site.key(), msgspec.structs.replace(site, founded=now - 100_000))
    for name, record in town.records.items():
        put = StoredPut(name, NO_VERSION, bytes(16), codec.encode(Key(name, type(record)), record))
        assert await store.write([Change([put])]) == [True]
    await store.close()
    return town


@asynccontextmanager
async def serving(network: Network, clock: Callable[[], int]) -> AsyncIterator[None]:
    """The KMS."""
    bus = KafkaBus(network.kafka_settings, Kms.party, KMS.name)
    await bus.start()
    store = RedisStore(network.redis_settings)
    loop = Loop(Kms(HARDENED), bus, store, network.codec, clock=clock, random=secrets.token_bytes)
    stopping = asyncio.Event()
    running = asyncio.create_task(loop.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await running


async def ask(network: Network, *requests: Deposit | Fetch) -> None:
    async with sender(network.kafka_settings) as send:
        await send([Outbound(KMS.name, 0, b"call", encode(request)) for request in requests])


async def answers(overheard: Overheard, kind: type[Answer], count: int) -> list[Answer]:
    """All of this kind about the call, once there are so many."""

    def came() -> list[Answer]:
        found = [message for _, message in overheard.passed if isinstance(message, kind)]
        return [message for message in found if message.call == CALL]

    await overheard.until(lambda: len(came()) >= count, kind.__name__)
    return came()


def k_in(network: Network, wrapped: bytes | None) -> bytes | None:
    """K in the stored agreement."""
    assert wrapped is not None
    [agreed] = network.codec.decode(AGREEMENT, wrapped).runs
    assert agreed.deposit is not None
    return None if agreed.deposit.key is None else agreed.deposit.key.reveal()


class Disk:
    """The files of the store."""

    def __init__(self, network: Network) -> None:
        keys = key_file.read(network.directory / "secrets" / "keys.toml")
        self._wrapping = Wrapping(keys, secrets.token_bytes)
        self._head = re.compile(re.escape(b"\x01" + keys[0].id))
        self._servers = network.servers
        self._url = network.store_url

    async def read(self) -> bytes:
        """All files under the data directory, one after another."""
        return b"\0".join((await asyncio.to_thread(files_of, self._servers)).values())

    async def rewrite(self) -> None:
        """BGREWRITEAOF; returns when the files from before are gone."""
        before = await asyncio.to_thread(logs_of, self._servers)
        async with Redis.from_url(self._url) as client:
            await client.bgrewriteaof()

            async def done() -> bool:
                return not (await client.info("persistence"))["aof_rewrite_in_progress"]

            async def gone() -> bool:
                return before.isdisjoint(await asyncio.to_thread(logs_of, self._servers))

            await until(done)
            await until(gone)

    def opening_to(self, k: bytes, files: bytes) -> list[int]:
        """Where there are agreements of this call with K, wrapped under the key-encryption key."""
        return [head.start() for head in self._head.finditer(files) if self._opens(k, files, head.start())]

    def _opens(self, k: bytes, files: bytes, start: int) -> bool:
        """It says nowhere how long a wrapped record is."""
        for octets in range(WRAPPING_OCTETS, WRAPPED_OCTETS_MAX):
            with suppress(WrappingBroken):
                return k in self._wrapping.unwrap(AGREEMENT.name, files[start : start + octets])
        return False


def logs_of(servers: Servers) -> set[str]:
    """The names of the append-only file's parts; a rewrite changes all but that of the manifest."""
    names = servers.compose("exec", "-T", "valkey", "ls", "/data/appendonlydir").split()
    return {name for name in names if not name.endswith(".manifest")}


def files_of(servers: Servers) -> dict[str, bytes]:
    """The store's data directory, by name."""
    container = servers.compose("ps", "-q", "valkey").strip()
    copied = subprocess.run(["docker", "cp", f"{container}:/data", "-"], check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as archive:
        found = ((member, archive.extractfile(member)) for member in archive)
        return {member.name: file.read() for member, file in found if file is not None}
