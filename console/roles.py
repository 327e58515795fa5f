"""One agent in this process on real servers: `otway run`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import structlog

from agents.bsf import Bsf
from agents.cscf import Cscf
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from chaos.lab import draw_codec
from console.settings import Settings
from protocol.profile import Profile
from protocol.sealing import Random
from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisStore
from storage.wrapping import Wrapping
from topics.catalogue import BSF, CSCF, KMS, Topic
from topics.kafka import KafkaBus

log = structlog.get_logger()

NETWORK: Final[dict[str, tuple[Topic, Callable[[Profile], Agent]]]] = {
    "kms": (KMS, Kms),
    "bsf": (BSF, lambda _: Bsf()),
    "cscf": (CSCF, lambda _: Cscf()),
}


def keyed_codec(settings: Settings, random: Random) -> RecordCodec:
    """Records under the keys of the key file. Raises KeyFileBroken."""
    return RecordCodec(Wrapping(key_file.read(settings.key_file), random))


async def run_network(
    role: str, settings: Settings, profile: Profile, *, clock: Callable[[], int], random: Random
) -> None:
    """KMS, BSF or CSCF until SIGTERM or SIGINT: then the batch is finished and committed.

    Raises KeyFileBroken, BusUnavailable, BusRefused, StoreRefused, GaveUp.
    """
    inbox, make = NETWORK[role]
    # the CSCF has no secrets, so it is not given the file that opens everybody's
    codec = draw_codec(random) if role == "cscf" else keyed_codec(settings, random)
    bus = KafkaBus(settings.kafka_settings, role, inbox.name)
    await bus.start()
    store = RedisStore(settings.redis_settings)
    loop = Loop(make(profile), bus, store, codec, clock=clock, random=random)
    log.info("running", role=role)
    await loop.run(until_told_to_stop())
    log.info("stopped", role=role, handled=loop.handled)


def until_told_to_stop() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping
