"""Agents of the network in this process, on real servers: `otway run`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from structlog.contextvars import bind_contextvars

from agents.bsf import Bsf
from agents.cscf import Cscf, CscfSettings
from agents.custodian import Custodian
from agents.decision import Agent
from agents.kms import Kms, KmsSettings
from agents.runtime import Loop
from chaos.lab import draw_codec
from console.hosting.operations import operated, telling
from console.hosting.readiness import Watched
from console.settings import Settings
from protocol.profile import Profile
from protocol.sealing import Random
from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisStore
from storage.wrapping import Wrapping
from topics.catalogue import BSF, CSCF, KMS, ORDERS, Party, Topic
from topics.kafka import KafkaBus

log = structlog.get_logger()

_GIVE_UP_S: Final = 2.0  # for a broker to let go of a member that it has not yet let in


@dataclass(frozen=True, slots=True)
class Served:
    """One agent of a process. group: its consumer group, and its name to operators."""

    inbox: Topic
    group: Party
    make: Callable[[Settings, Profile], Agent]


def _cscf(settings: Settings, _: Profile) -> Cscf:
    return Cscf(CscfSettings(mailbox=settings.mailbox, transcoder=settings.transcoder, focus=settings.focus))


def _kms(settings: Settings, profile: Profile) -> Kms:
    chosen = KmsSettings(
        deferred_days_max=settings.deferred_days_max,
        life_s=settings.life_s,
        removed_may_return=settings.removed_may_return,
    )
    return Kms(profile, chosen)


NETWORK: Final[dict[str, tuple[Served, ...]]] = {
    "kms": (Served(KMS, Party.KMS, _kms), Served(ORDERS, Party.CUSTODIAN, lambda *_: Custodian())),
    "bsf": (Served(BSF, Party.BSF, lambda *_: Bsf()),),
    "cscf": (Served(CSCF, Party.CSCF, _cscf),),
}
"""What a process of each role runs; each agent has its own bus, store and vitals."""


def keyed_codec(settings: Settings, random: Random) -> RecordCodec:
    """Records under the keys of the key file. Raises KeyFileBroken."""
    return RecordCodec(Wrapping(key_file.read(settings.key_file), random))


@dataclass(frozen=True, slots=True)
class _Running:
    """One agent with what is its own."""

    watched: Watched
    bus: KafkaBus
    loop: Loop


async def run_network(
    role: str, settings: Settings, profile: Profile, *, clock: Callable[[], int], random: Random
) -> None:
    """The agents of a role until SIGTERM or SIGINT: then their batches are finished and committed.

    Raises KeyFileBroken, SettingsBroken, BusUnavailable, BusRefused, StoreRefused, GaveUp.
    """
    # the CSCF has no secrets, so it is not given the file that opens everybody's
    codec = draw_codec(random) if role == "cscf" else keyed_codec(settings, random)
    instance = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
    agents = []
    for served in NETWORK[role]:
        watched = Watched(served.group)
        bus = KafkaBus(settings.kafka_settings, served.group, served.inbox.name)
        store = RedisStore(settings.redis_settings)
        agent = served.make(settings, profile)
        loop = Loop(agent, bus, store, codec, clock=clock, random=random, vitals=watched.vitals)
        agents.append(_Running(watched, bus, loop))

    stopping = until_told_to_stop()

    async def serve(agent: _Running) -> None:
        bind_contextvars(role=agent.watched.role)  # in this task and what it starts
        if await _joined(agent.bus, stopping):
            log.info("running")
            async with telling(agent.bus, agent.watched, instance, clock=clock):
                await agent.loop.run(stopping)
            await agent.bus.stop()  # once more: a status may have connected again meanwhile

    with operated(settings, role, instance, [agent.watched for agent in agents]):
        await together([serve(agent) for agent in agents], stopping)
        log.info("stopped", handled=sum(agent.watched.vitals.handled for agent in agents))


async def _joined(bus: KafkaBus, stopping: asyncio.Event) -> bool:
    """Join the group; False if it was told to stop meanwhile. Raises BusUnavailable, BusRefused."""
    joining, told = asyncio.create_task(bus.start()), asyncio.create_task(stopping.wait())
    await asyncio.wait({joining, told}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if joining.done():
        joining.result()
        return True
    joining.cancel()
    await asyncio.wait({joining}, timeout=_GIVE_UP_S)
    return False


async def together(serving: Iterable[Coroutine[Any, Any, None]], stopping: asyncio.Event) -> None:
    """Until all have ended; the first that ends stops the others. Raises what one of them has raised."""
    tasks = [asyncio.create_task(each) for each in serving]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        await asyncio.wait(tasks)
    for problem in [task.exception() for task in tasks]:
        if problem is not None:
            raise problem


def until_told_to_stop() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping
