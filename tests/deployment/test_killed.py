"""kill -9 of the KMS in the middle of 200 calls: every call comes up with one K, and the audit has each."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import pytest

from agents.alarms import HandsetAlarm
from agents.runtime import Loop
from agents.ue import Ue
from agents.ue_call import UeSettings
from chaos.lab import draw_codec
from console.outside import clock
from media.leg import MediaInstruction, OpenMedia
from protocol.profile import HARDENED
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.kms_records import Agreement
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.redis_store import RedisStore
from storage.users_file import Device, draw_device
from tests.deployment.network import Network
from topics.catalogue import AUDIT, REPORTS, catalogue, ue_inbox
from topics.codec import decode
from topics.kafka import KafkaBus, KafkaSettings
from topics.kafka_admin import create_topics, tail
from topics.messages import Audit, AuditEvent, Dial, Report, ReportEvent

pytestmark = pytest.mark.servers

CALLS: Final = 200
PER_SECOND: Final = 50
draw = random.Random().randbytes


class Host:
    """A UE host of many handsets, whose media engine only notes the keys."""

    def __init__(self, name: str, devices: list[Device], settings: KafkaSettings) -> None:
        self.name = name
        self.devices = devices
        self.keys: dict[str, Secret] = {}  # by ID-A and C
        self._bus = KafkaBus(settings, f"ue.{name}", ue_inbox(name).name)
        self._store = MemoryStore()
        codec = draw_codec(draw)
        lines = tuple(MediaAddress("127.0.0.1", 20_000 + n) for n in range(len(devices)))
        self.loop = Loop(
            Ue(HARDENED, UeSettings(host=name, lines=lines)),
            self._bus,
            self._store,
            codec,
            clock=clock,
            random=draw,
            carry_out=self._open,
        )
        self._codec = codec

    async def start(self) -> None:
        await provision_handsets(self._store, self._codec, self.devices, clock(), draw)
        for device in self.devices:
            self.loop.tell(HandsetAlarm(device.impi))
        await self._bus.start()

    def _open(self, instruction: MediaInstruction) -> None:
        if isinstance(instruction, OpenMedia):
            call = instruction.leg.session.partition(" ")[2]
            assert self.keys.setdefault(call, instruction.leg.root) == instruction.leg.root, "two Ks here"


class Reports:
    """What the handsets have reported."""

    def __init__(self) -> None:
        self.seen: dict[ReportEvent, set[str]] = defaultdict(set)  # devices
        self._news = asyncio.Event()

    async def watch(self, records: Any) -> None:
        async for record in records:
            message = decode(record.value)
            if isinstance(message, Report):
                self.seen[message.event].add(message.device)
                self._news.set()

    async def until(self, true: Callable[[], bool], within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not true():
                self._news.clear()
                await self._news.wait()


async def test_the_kms_is_killed_in_the_middle_of_200_calls(network: Network) -> None:
    settings = KafkaSettings(bootstrap=network.servers.kafka, session_timeout_s=2.0)
    west, east = f"west-{draw(3).hex()}", f"east-{draw(3).hex()}"
    callers = [device(f"a{n}", west) for n in range(CALLS)]
    callees = [device(f"b{n}", east) for n in range(CALLS)]
    await network.otway("keys", "init")
    await create_topics(settings, catalogue([west, east]))
    store = RedisStore(network.redis_settings)
    await provision_network(store, network.codec, [*callers, *callees], clock(), draw)
    await network.run("kms", "kms")
    await network.run("cscf", "cscf")
    hosts = [Host(west, callers, settings), Host(east, callees, settings)]
    stopping, reports = asyncio.Event(), Reports()
    async with tail(settings, [REPORTS.name]) as records, tail(settings, [AUDIT.name]) as audits:
        watching = asyncio.create_task(reports.watch(records))
        for host in hosts:
            await host.start()
        serving = [asyncio.create_task(host.loop.run(stopping)) for host in hosts]
        registered = reports.seen[ReportEvent.REGISTERED]
        await reports.until(lambda: len(registered) == 2 * CALLS, 60)

        restarted = asyncio.create_task(asyncio.sleep(0))
        for number, (caller, callee) in enumerate(zip(callers, callees, strict=True)):
            hosts[0].loop.tell(Dial(request=draw(16), to=caller.impi, callee=callee.identity))
            if number in {CALLS // 4, 3 * CALLS // 4}:
                await restarted
                await network.kill("kms")
                restarted = asyncio.create_task(network.run("kms", "kms"))
            await asyncio.sleep(1 / PER_SECOND)  # the rate of arrival, nothing waits for it
        await restarted
        up, confirmed = reports.seen[ReportEvent.UP], reports.seen[ReportEvent.CONFIRMED]
        await reports.until(lambda: len(up) == len(confirmed) == CALLS, 60)
        stopping.set()
        await asyncio.gather(*serving)
        watching.cancel()

        at_caller, at_callee = hosts[0].keys, hosts[1].keys
        assert len(at_caller) == CALLS
        assert at_caller == at_callee, "both ends of each call hold the same K"
        assert len({key.reveal() for key in at_caller.values()}) == CALLS, "and no two calls the same one"

        granted: dict[str, set[bytes]] = defaultdict(set)
        async with asyncio.timeout(30):
            async for record in audits:
                noted = decode(record.value)
                if isinstance(noted, Audit) and noted.event is AuditEvent.GRANTED and noted.call:
                    granted[f"{noted.caller}/{noted.call.hex()}"].add(noted.id)
                    if len(granted) == CALLS:
                        break
        assert granted.keys() == at_caller.keys()
        assert all(len(ids) == 1 for ids in granted.values()), "one fact for each grant, however often told"

    keys = [Agreement.key_for(*split(call)) for call in at_caller]
    for key, stored, held in zip(
        keys, await store.read([key.name for key in keys]), at_caller.values(), strict=True
    ):
        assert stored.value is not None
        assert held.reveal() not in stored.value, "the store sees it wrapped only"
        [agreed] = network.codec.decode(key, stored.value).runs
        assert [fork.key for fork in agreed.forks] == [held], "the KMS has stored that K, and no other"
    await store.close()


def device(name: str, host: str) -> Device:
    return draw_device(f"{name}@ims.example", f"sip:{name}@ims.example", host, draw, shared=True)


def split(call: str) -> tuple[str, bytes]:
    caller, _, name = call.rpartition("/")
    return caller, bytes.fromhex(name)
