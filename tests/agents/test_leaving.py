"""A loop that is told to stop has left within 5 s, also when the store or the bus does not answer."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from agents.cscf import Cscf
from agents.runtime import Loop
from chaos.lab import draw_codec
from storage.memory import MemoryStore
from storage.redis_store import RedisSettings, RedisStore
from storage.store import DueAlarm, Store, StoreUnavailable
from tests.agents.scene import NOW, Town
from tests.servers import ROOT, Servers
from topics.bus import Bus, Outbound
from topics.catalogue import CSCF, catalogue
from topics.codec import encode
from topics.kafka_admin import create_topics
from topics.kafka_clients import KafkaSettings
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Contact, Register

WITHIN_S = 5.0
HOST = "leaving"
REGISTER = Register(identity="sip:alice@ims.example", expires_s=3600, sender=Contact(HOST, "a@ims.example"))


def cscf(bus: Bus, store: Store) -> Loop:
    return Loop(Cscf(), bus, store, draw_codec(bytes), clock=lambda: NOW, random=Town().random)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that takes whatever is said to it and never answers. The event: something was said."""
    asked = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(4096):
                asked.set()
        finally:
            writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


async def left_after_s(running: asyncio.Task[None], stopping: asyncio.Event) -> float:
    """How long it takes from being told to having left."""
    clock = asyncio.get_running_loop().time
    told_at = clock()
    stopping.set()
    async with asyncio.timeout(30):
        await running
    return clock() - told_at


async def test_a_store_that_says_nothing() -> None:
    broker = MemoryBroker(catalogue([HOST]))
    bus = MemoryBus(broker, "cscf", CSCF.name)
    broker.append(Outbound(CSCF.name, 0, b"k", encode(REGISTER)))
    async with silent_server() as (port, asked):
        settings = RedisSettings(url=f"redis://127.0.0.1:{port}/0", deadline_s=20.0)
        stopping = asyncio.Event()
        running = asyncio.create_task(cscf(bus, RedisStore(settings)).run(stopping))
        await asyncio.wait_for(asked.wait(), 10)
        assert await left_after_s(running, stopping) < WITHIN_S
    assert not bus.joined()
    assert broker.committed("cscf", CSCF.name)[0] == 0, "it comes again elsewhere"


class Away(MemoryStore):
    """A store that is away, as the port has it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Semaphore(0)

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        del role, shards, now, limit
        self.asked.release()
        raise StoreUnavailable("away")


async def test_a_loop_that_rests_between_two_attempts_leaves_at_once() -> None:
    store = Away()
    stopping = asyncio.Event()
    running = asyncio.create_task(
        cscf(MemoryBus(MemoryBroker(catalogue([HOST])), "cscf", CSCF.name), store).run(stopping)
    )
    for _ in range(4):  # the fourth rest takes a second
        await asyncio.wait_for(store.asked.acquire(), 10)
    assert await left_after_s(running, stopping) < 0.5


@asynccontextmanager
async def paused(servers: Servers, service: str) -> AsyncIterator[None]:
    """It keeps its connections and takes new ones, and says nothing."""
    await asyncio.to_thread(servers.compose, "pause", service)
    try:
        yield
    finally:
        await asyncio.to_thread(servers.compose, "unpause", service)


CHILD = """
import asyncio, signal, sys
from tests.agents.test_leaving import HOST, REGISTER, cscf
from tests.topics.bus_contract import until_held
from storage.memory import MemoryStore
from topics.catalogue import CSCF
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings

class Told(MemoryStore):
    async def write(self, changes):
        print("written", flush=True)
        return await super().write(changes)

async def main(bootstrap):
    bus = KafkaBus(KafkaSettings(bootstrap=bootstrap, session_timeout_s=2.0), "cscf", CSCF.name)
    stopping = asyncio.Event()
    loop = cscf(bus, Told())
    on = asyncio.get_running_loop().add_signal_handler
    on(signal.SIGUSR1, loop.tell, REGISTER)
    on(signal.SIGTERM, stopping.set)
    await bus.start()
    await until_held([bus], [CSCF.partitions])
    print("ready", flush=True)
    await loop.run(stopping)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.servers
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a batch"])
async def test_a_broker_that_says_nothing(servers: Servers, *, busy: bool) -> None:
    settings = KafkaSettings(bootstrap=servers.kafka)
    await create_topics(settings, catalogue([HOST]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, servers.kafka), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None

    async def says(word: str) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while (line := await process.stdout.readline()).strip() != word.encode():
                assert line, "it ended by itself"

    try:
        await says("ready")
        async with paused(servers, "kafka-1"):
            if busy:
                process.send_signal(signal.SIGUSR1)
                await says("written")
            told_at = asyncio.get_running_loop().time()
            process.terminate()
            async with asyncio.timeout(30):
                await process.communicate()
            assert asyncio.get_running_loop().time() - told_at < WITHIN_S
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
