"""The sounds of a UE host that is used from elsewhere: it says what it is given, hands back what it heard.

    command -> host   SAY parts, then a Dial that names the sound        host -> command   KEPT
    host -> command   HEARD parts, when a call's media has closed

They travel on the host's own topic, `ims.sounds.<host>`. What was heard is no longer protected there: such a
host is for tests, and its topic is for the operator's eyes only (topics/access.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from agents.handset.ue_call import device_of
from media.leg import Leg
from media.pcm import SAMPLE_HZ, Pcm
from media.wav import write_wav
from protocol.checks import Refused
from topics.bus import Bus, BusRefused, BusUnavailable, Inbound, Outbound
from topics.catalogue import ue_sounds
from topics.codec import decode, encode
from topics.kafka_admin import tail
from topics.kafka_clients import KafkaSettings
from topics.messages import Sound, SoundUse
from topics.sounds import Gathering, take_apart

log = structlog.get_logger()

_SOUNDS_KEPT: Final = 16  # given by the command line; the oldest goes
_HEARD_S_MAX: Final = 60.0  # so much of what was heard is handed back
_WAITING_MAX: Final = 64  # sounds that are not handed back yet; more are dropped
_AGAIN_S: Final = 2.0  # after the bus was away
_LAST_WITHIN_S: Final = 1.0  # for what waits when the host is told to stop


class SoundDesk:
    """One host's sounds. `source` and `sink` are what a media engine is given."""

    def __init__(self, host: str, settings: KafkaSettings, bus: Bus, own: Pcm, heard: Path | None) -> None:
        """own: said when nothing else is asked for. heard: a directory for a WAV file of each call."""
        self._topic = ue_sounds(host).name
        self._settings = settings
        self._bus = bus
        self._own = own
        self._directory = heard
        self._given: dict[bytes, Pcm] = {}
        self._outgoing: asyncio.Queue[list[Outbound]] = asyncio.Queue(_WAITING_MAX)

    def source(self, leg: Leg) -> Pcm:
        """What to say on this leg."""
        return self._own if leg.sound is None else self._given.get(leg.sound, self._own)

    def sink(self, leg: Leg, pcm: Pcm) -> None:
        """What was heard on it. A file is written beside the event loop: asyncio waits for it at the end."""
        device, call = device_of(leg.session), leg.session.rpartition("/")[2]
        if self._directory is not None:
            path = self._directory / f"{device}-{call[:8]}.wav"
            asyncio.get_running_loop().run_in_executor(None, write_wav, path, pcm)
        samples = pcm[: int(_HEARD_S_MAX * SAMPLE_HZ)].astype("<i2").tobytes()
        parts = take_apart(SoundUse.HEARD, bytes.fromhex(call), samples, device)
        with suppress(asyncio.QueueFull):
            self._outgoing.put_nowait([self._record(part) for part in parts])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take and hand back sounds until the context is left; what waits then is handed back first."""
        tasks = [asyncio.create_task(self._keep_taking()), asyncio.create_task(self._hand_back())]
        try:
            yield
            with suppress(TimeoutError):
                await asyncio.wait_for(self._outgoing.join(), _LAST_WITHIN_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_taking(self) -> None:
        """A sound that comes while the bus is away is not taken, and its sender hears nothing of it."""
        while True:
            try:
                async with tail(self._settings, [self._topic]) as records:
                    await self._take(records)
            except (BusUnavailable, BusRefused) as error:
                log.warning("no sounds are taken", why=str(error))
            await asyncio.sleep(_AGAIN_S)

    async def _take(self, records: AsyncIterator[Inbound]) -> None:
        gathering = Gathering()
        async for record in records:
            try:
                sound = decode(record.value)
            except Refused:
                continue
            if not isinstance(sound, Sound) or sound.use is not SoundUse.SAY:
                continue
            samples = gathering.add(sound)
            if samples is not None:
                self._keep(sound.about, np.frombuffer(samples, "<i2").astype(np.int16))

    def _keep(self, about: bytes, pcm: Pcm) -> None:
        self._given[about] = pcm
        while len(self._given) > _SOUNDS_KEPT:
            self._given.pop(next(iter(self._given)))
        with suppress(asyncio.QueueFull):
            self._outgoing.put_nowait([self._record(Sound(use=SoundUse.KEPT, about=about))])

    async def _hand_back(self) -> None:
        while True:
            records = await self._outgoing.get()
            try:
                await self._bus.send(records)
            except (BusUnavailable, BusRefused) as error:
                log.warning("a sound is lost", why=str(error))
                await asyncio.sleep(_AGAIN_S)
            finally:
                self._outgoing.task_done()

    def _record(self, sound: Sound) -> Outbound:
        return Outbound(self._topic, 0, sound.about, encode(sound))
