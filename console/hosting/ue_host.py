"""A UE host in this process: its media engine, its handsets in memory, and the loop that serves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agents.alarms import HandsetAlarm
from agents.handset.ue_call import UeSettings
from agents.runtime import Loop
from agents.ue import Ue
from agents.vitals import Vitals
from chaos.lab import draw_codec
from console.hosting.operations import operated, telling
from console.hosting.readiness import Watched
from console.hosting.roles import until_told_to_stop
from console.hosting.sound_desk import SoundDesk
from console.settings import Settings
from media.engine import Engine, EngineSettings, Sink, Source
from media.leg import MediaEvent
from media.pcm import Pcm
from protocol.description import SrtpSuite
from protocol.names import Permit, Suite
from protocol.profile import Profile
from protocol.sealing import Random
from protocol.transport import MediaAddress
from storage.handset_memory import HandsetMemory
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets
from storage.store import Store
from storage.users_file import Device
from topics.access import ue_group
from topics.bus import Bus
from topics.catalogue import Party, ue_inbox
from topics.kafka import KafkaBus

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class UeHostSettings:
    """Who lives here, and what they say."""

    host: str
    """Its inbox is ims.ue.<host>."""
    devices: Sequence[Device]
    engine: EngineSettings
    profile: Profile
    suite: Suite = Suite.AES_256_GCM
    srtp_suites: tuple[SrtpSuite, ...] = tuple(SrtpSuite)
    codecs: tuple[str, ...] = ("PCMU",)
    """RTP names, the first choice first."""
    permits: tuple[Permit, ...] = (Permit.DEFERRED,)
    """What its users consent to beyond the call itself, sorted."""
    answer_after_s: int | None = 0
    """Seconds of ringing before a handset answers by itself; None: it declines."""
    memory: Path | None = None
    """A file for what its handsets must not forget when it restarts; None: they forget it."""


class UeHost:
    """Switched on by `start`; `loop` is to be run by whoever made it."""

    def __init__(
        self,
        settings: UeHostSettings,
        bus: Bus,
        *,
        clock: Callable[[], int],
        random: Random,
        source: Source,
        sink: Sink,
        vitals: Vitals | None = None,
    ) -> None:
        self.store: Final = MemoryStore()
        self.codec: Final = draw_codec(random)  # what a handset has dies with it, and so does this key
        self.lines: tuple[MediaAddress, ...] = ()
        self._settings = settings
        self._bus = bus
        self._clock = clock
        self._random = random
        self._engine = Engine(settings.engine, random=random, source=source, on_event=self._told, sink=sink)
        self._vitals = vitals
        self._loop: Loop | None = None

    @property
    def loop(self) -> Loop:
        """The loop of this host's agent, once it has been started."""
        assert self._loop is not None
        return self._loop

    async def start(self) -> None:
        """Bind the lines and switch the handsets on. Raises OSError, HandsetMemoryBroken."""
        settings = self._settings
        store = await self._remember()
        self.lines = await self._engine.start()
        await provision_handsets(store, self.codec, settings.devices, self._clock(), self._random)
        ue_settings = UeSettings(
            host=settings.host,
            lines=self.lines,
            suite=settings.suite,
            srtp_suites=settings.srtp_suites,
            codecs=settings.codecs,
            permits=settings.permits,
            answer_after_s=settings.answer_after_s,
        )
        self._loop = Loop(
            Ue(settings.profile, ue_settings),
            self._bus,
            store,
            self.codec,
            clock=self._clock,
            random=self._random,
            carry_out=self._engine.carry_out,
            vitals=self._vitals,
        )
        for device in settings.devices:
            self._loop.tell(HandsetAlarm(device.impi))

    async def _remember(self) -> Store:
        """The store of this host's agent, with what its handsets had not to forget."""
        if self._settings.memory is None:
            return self.store
        memory = HandsetMemory(self.store, self._settings.memory)
        await memory.load()
        return memory

    async def stop(self) -> None:
        """Close all media."""
        await self._engine.stop()

    def _told(self, event: MediaEvent) -> None:
        self.loop.tell(event)


async def run_ue_host(
    host: str,
    devices: tuple[Device, ...],
    settings: Settings,
    profile: Profile,
    *,
    sound: Pcm,
    heard: Path | None,
    memory: Path | None,
    answer_after_s: int | None,
    clock: Callable[[], int],
    random: Random,
) -> None:
    """The handsets of one host until SIGTERM or SIGINT. heard: a directory for a WAV file of each call.
    memory: a file for what handsets remember when the host is started anew.

    Raises OSError, SettingsBroken, HandsetMemoryBroken, BusUnavailable, BusRefused, GaveUp.
    """
    watched, instance = Watched(Party.UE), settings.instance or host
    bus = KafkaBus(settings.kafka_settings, ue_group(host), ue_inbox(host).name)
    desk = SoundDesk(host, settings.kafka_settings, bus, sound, heard)
    phone = UeHost(
        UeHostSettings(
            host=host,
            devices=devices,
            engine=engine_settings(settings),
            profile=profile,
            codecs=settings.codec_names,
            permits=settings.permitted,
            answer_after_s=answer_after_s,
            memory=memory,
        ),
        bus,
        clock=clock,
        random=random,
        source=desk.source,
        sink=desk.sink,
        vitals=watched.vitals,
    )
    async with AsyncExitStack() as closing:
        closing.enter_context(operated(settings, Party.UE, instance, [watched]))
        await bus.start()
        closing.push_async_callback(bus.stop)  # once more: sounds are handed back after the loop has left
        stopping = until_told_to_stop()
        await closing.enter_async_context(desk.open())
        await phone.start()
        closing.push_async_callback(phone.stop)
        log.info("running", host=host, devices=len(devices), lines=len(phone.lines))
        async with telling(bus, watched, instance, clock=clock):
            await phone.loop.run(stopping)
    log.info("stopped", host=host, handled=watched.vitals.handled)


def engine_settings(settings: Settings) -> EngineSettings:
    """The media engine of this process."""
    return EngineSettings(
        lines=settings.lines,
        host=settings.media_host,
        port=settings.media_port,
        advertised_host=settings.media_advertised or None,
    )
