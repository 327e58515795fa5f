"""One agent in this process on real servers: `otway run`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog

from agents.bsf import Bsf
from agents.cscf import Cscf
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from chaos.lab import draw_codec
from console.settings import Settings
from console.ue_host import UeHost, UeHostSettings
from media.engine import EngineSettings
from media.leg import Leg
from media.pcm import Pcm
from media.wav import write_wav
from protocol.profile import Profile
from protocol.sealing import Random
from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisStore
from storage.users_file import Device
from storage.wrapping import Wrapping
from topics.catalogue import BSF, CSCF, KMS, Topic, ue_inbox
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


async def run_ue_host(
    host: str,
    devices: tuple[Device, ...],
    settings: Settings,
    profile: Profile,
    *,
    sound: Pcm,
    heard: Path | None,
    answer_after_s: int | None,
    clock: Callable[[], int],
    random: Random,
) -> None:
    """The handsets of one host until SIGTERM or SIGINT. heard: a directory for a WAV file of each call.

    Raises OSError, BusUnavailable, BusRefused, GaveUp.
    """
    bus = KafkaBus(settings.kafka_settings, f"ue.{host}", ue_inbox(host).name)
    phone = UeHost(
        UeHostSettings(
            host=host,
            devices=devices,
            engine=engine_settings(settings),
            profile=profile,
            answer_after_s=answer_after_s,
        ),
        bus,
        clock=clock,
        random=random,
        source=lambda _leg: sound,
        sink=lambda leg, pcm: _keep(heard, leg, pcm),
    )
    async with AsyncExitStack() as closing:
        await bus.start()
        await phone.start()
        closing.push_async_callback(phone.stop)
        log.info("running", role="ue", host=host, devices=len(devices), lines=len(phone.lines))
        await phone.loop.run(until_told_to_stop())
    log.info("stopped", role="ue", host=host, handled=phone.loop.handled)


def engine_settings(settings: Settings) -> EngineSettings:
    """The media engine of this process."""
    return EngineSettings(
        lines=settings.lines,
        host=settings.media_host,
        port=settings.media_port,
        advertised_host=settings.media_advertised or None,
    )


def until_told_to_stop() -> asyncio.Event:
    """Set by SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _keep(directory: Path | None, leg: Leg, pcm: Pcm) -> None:
    """Write what was heard, beside the loop: asyncio waits for it before the process ends."""
    if directory is None:
        return
    device, _, call = leg.session.partition(" ")
    path = directory / f"{device}-{call.rpartition('/')[2][:8]}.wav"
    asyncio.get_running_loop().run_in_executor(None, write_wav, path, pcm)
