"""Two engines on loopback: real UDP, real time, a key that ends, a peer that is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import msgspec
import numpy as np
import pytest

from media.engine import Engine, EngineSettings, LineBusy
from media.leg import CloseMedia, Leg, MediaAddress, MediaClosed, MediaEvent, MediaSilent, OpenMedia
from media.likeness import likeness
from media.pcm import Pcm
from media.samples import callee_sample, caller_sample
from protocol.sealing import Random


class Phone:
    """An engine with what it told."""

    def __init__(self, sound: Pcm, draw: Random, **settings: float) -> None:
        self.events: list[MediaEvent] = []
        self.heard: list[Pcm] = []
        self._news = asyncio.Event()
        self.engine = Engine(
            EngineSettings(lines=2, **settings),  # type: ignore[arg-type]
            random=draw,
            source=lambda _: sound,
            on_event=self._told,
            sink=lambda _, pcm: self.heard.append(pcm),
        )
        self.lines: tuple[MediaAddress, ...] = ()

    def _told(self, event: MediaEvent) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self._news.clear()
                await self._news.wait()

    def closed(self) -> MediaClosed:
        return next(event for event in self.events if isinstance(event, MediaClosed))


@pytest.fixture
async def phones(draw: Random) -> AsyncIterator[tuple[Phone, Phone]]:
    one, two = Phone(caller_sample(), draw, silence_s=0.5), Phone(callee_sample(), draw, silence_s=0.5)
    for phone in (one, two):
        phone.lines = await phone.engine.start()
    yield one, two
    for phone in (one, two):
        await phone.engine.stop()


async def test_a_call_over_udp(phones: tuple[Phone, Phone], alice: Leg, bob: Leg) -> None:
    one, two = phones
    for phone, leg, peer in ((one, alice, two), (two, bob, one)):
        here = msgspec.structs.replace(leg, remote_address=peer.lines[0], lifetime_s=3)
        phone.engine.carry_out(OpenMedia(here))
    for phone in phones:
        await phone.until(lambda phone=phone: bool(phone.heard))  # type: ignore[misc]
    for phone, sound in ((one, callee_sample()), (two, caller_sample())):
        told = phone.closed().statistics
        assert told.received > 140
        assert told.refused == told.replayed == 0
        assert likeness(phone.heard[0], sound) > 0.95
    one.engine.carry_out(CloseMedia(alice.session))  # a repeat is left alone


async def test_or_28_media_ends_with_its_key(phones: tuple[Phone, Phone], alice: Leg, bob: Leg) -> None:
    one, two = phones
    for phone, leg, peer in ((one, alice, two), (two, bob, one)):
        short = msgspec.structs.replace(leg, remote_address=peer.lines[0], lifetime_s=1)
        phone.engine.carry_out(OpenMedia(short))
    await one.until(lambda: any(isinstance(event, MediaClosed) for event in one.events))
    assert one.closed().expired
    assert 40 <= one.closed().statistics.sent <= 51


async def test_silence_is_told_once(phones: tuple[Phone, Phone], alice: Leg) -> None:
    one, two = phones
    one.engine.carry_out(OpenMedia(msgspec.structs.replace(alice, remote_address=two.lines[0])))
    await one.until(lambda: bool(one.events))
    assert one.events == [MediaSilent(alice.session)]


async def test_a_line_carries_one_session(phones: tuple[Phone, Phone], alice: Leg) -> None:
    one, two = phones
    leg = msgspec.structs.replace(alice, remote_address=two.lines[0])
    one.engine.carry_out(OpenMedia(leg))
    one.engine.carry_out(OpenMedia(leg))
    with pytest.raises(LineBusy):
        one.engine.carry_out(OpenMedia(msgspec.structs.replace(leg, session="another")))
    one.engine.carry_out(OpenMedia(msgspec.structs.replace(leg, session="another", line=1)))


async def test_a_port_that_is_taken(draw: Random) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        phone = Phone(np.zeros(0, np.int16), draw, port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            await phone.engine.start()
