"""Engines on loopback, with what they told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from media.beside import MediaEngine
from media.bridge import BridgeEngine
from media.engine import Engine, EngineSettings
from media.leg import Leg, MediaAddress, MediaClosed, MediaEvent
from media.pcm import SAMPLE_HZ, Pcm
from media.srtp import SrtpRefused, stream_of_peer
from protocol.sealing import Random


class Told:
    """The events of an engine."""

    def __init__(self) -> None:
        self.events: list[MediaEvent] = []
        self.lines: tuple[MediaAddress, ...] = ()
        self._news = asyncio.Event()

    def take(self, event: MediaEvent) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """As events come."""
        async with asyncio.timeout(20):
            while not true():
                self._news.clear()
                await self._news.wait()

    def closed(self, session: str | None = None) -> MediaClosed:
        """Of this session, or the first one."""
        closed = [event for event in self.events if isinstance(event, MediaClosed)]
        return next(event for event in closed if session in (None, event.session))

    def has_closed(self) -> bool:
        return any(isinstance(event, MediaClosed) for event in self.events)


class Phone(Told):
    """A handset's engine."""

    def __init__(self, sound: Pcm, draw: Random, **settings: float) -> None:
        super().__init__()
        self.heard: list[Pcm] = []
        self.engine = Engine(
            EngineSettings(lines=2, **settings),  # type: ignore[arg-type]
            random=draw,
            source=lambda _: sound,
            on_event=self.take,
            sink=lambda _, pcm: self.heard.append(pcm),
        )


class Exchange(Told):
    """A bridge's engine."""

    def __init__(self, draw: Random, lines: int, **settings: float) -> None:
        super().__init__()
        self.engine = BridgeEngine(
            EngineSettings(lines=lines, **settings),  # type: ignore[arg-type]
            random=draw,
            on_event=self.take,
        )


async def passed(engine: MediaEngine, session: str, packets: int) -> None:
    """Until a session has received so many packets in all."""
    async with asyncio.timeout(20):
        while engine.statistics()[session].received < packets:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.005)


def longest_silence_ms(sound: Pcm) -> int:
    """Of what was heard; what is before the first sound and after the last does not count."""
    loud = np.abs(sound.astype(int))[: sound.size // 40 * 40].reshape(-1, 40).max(axis=1) > 500
    [at] = np.nonzero(loud)
    return int((np.diff(at) - 1).max()) * 40 * 1000 // SAMPLE_HZ


def opened_by(leg: Leg, datagrams: list[bytes]) -> list[bool]:
    """For each SRTP packet whether the one at this leg could have opened it."""
    return [_opens(leg, datagram) for datagram in datagrams]


def _opens(leg: Leg, datagram: bytes) -> bool:
    stream = stream_of_peer(leg, int.from_bytes(datagram[8:12], "big"))
    try:
        stream.unprotect(datagram)
    except SrtpRefused:
        return False
    return True
