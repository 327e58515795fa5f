"""An engine in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from media.beside import Beside, MediaEngine
from media.bridge import BridgeEngine
from media.engine import EngineSettings, LineBusy
from media.leg import CloseMedia, Leg, MediaEvent, OpenMedia
from media.samples import tone
from protocol.sealing import Random
from tests.media.phones import Phone, Told, longest_silence_ms, passed


class Aside(Told):
    """A bridge beside the test's loop."""

    def __init__(self, draw: Random) -> None:
        super().__init__()
        self.threads: set[int] = set()

        def make(on_event: Callable[[MediaEvent], None]) -> MediaEngine:
            return BridgeEngine(EngineSettings(lines=2), random=draw, on_event=on_event)

        self.engine = Beside(make, on_event=self._take_here)

    def _take_here(self, event: MediaEvent) -> None:
        self.threads.add(threading.get_ident())
        self.take(event)


@pytest.fixture
async def aside(draw: Random) -> AsyncIterator[Aside]:
    aside = Aside(draw)
    aside.lines = await aside.engine.start()
    yield aside
    await aside.engine.stop()
    assert "media" not in {thread.name for thread in threading.enumerate()}


async def connect(aside: Aside, phone: Phone, alice: Leg, bob: Leg, line: int) -> None:
    phone.lines = await phone.engine.start()
    inner = msgspec.structs.replace(
        bob, session=f"inner {line}", line=line, bridge="room", remote_address=phone.lines[0]
    )
    aside.engine.carry_out(OpenMedia(inner))
    phone.engine.carry_out(OpenMedia(msgspec.structs.replace(alice, remote_address=aside.lines[line])))


async def test_the_beat_goes_on_while_the_agents_loop_is_busy(
    aside: Aside, draw: Random, alice: Leg, bob: Leg
) -> None:
    one, two = Phone(tone(440, 10), draw), Phone(tone(660, 10), draw)
    await connect(aside, one, alice, bob, 0)
    await connect(aside, two, alice, bob, 1)
    await passed(one.engine, alice.session, 20)
    before = aside.engine.statistics()["inner 0"].sent
    began = time.monotonic()
    while time.monotonic() - began < 0.5:  # what no agent should do
        sum(range(1000))
    assert aside.engine.statistics()["inner 0"].sent - before >= 15
    aside.engine.carry_out(CloseMedia("inner 0"))
    await aside.until(aside.has_closed)
    assert aside.threads == {threading.get_ident()}
    for phone in (one, two):
        await phone.engine.stop()
    assert longest_silence_ms(one.heard[0]) <= 700


async def test_the_last_events_come_before_stop_returns(draw: Random, alice: Leg, bob: Leg) -> None:
    aside, phone = Aside(draw), Phone(tone(440, 10), draw)
    aside.lines = await aside.engine.start()
    await connect(aside, phone, alice, bob, 0)
    await aside.engine.stop()
    assert aside.closed().session == "inner 0"
    await phone.engine.stop()


async def test_what_goes_wrong_in_there_is_told_here(
    aside: Aside, draw: Random, alice: Leg, bob: Leg
) -> None:
    failed: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.put_nowait(context))
    phone = Phone(tone(440, 10), draw)
    await connect(aside, phone, alice, bob, 0)
    busy = msgspec.structs.replace(bob, session="another", bridge="room", remote_address=phone.lines[0])
    aside.engine.carry_out(OpenMedia(busy))
    async with asyncio.timeout(10):
        context = await failed.get()
    assert isinstance(context["exception"], LineBusy)
    await passed(phone.engine, alice.session, 10)  # the rest goes on
    await phone.engine.stop()


async def test_a_start_that_fails_raises_here_and_leaves_no_thread(draw: Random) -> None:
    def make(on_event: Callable[[MediaEvent], None]) -> MediaEngine:
        return BridgeEngine(EngineSettings(lines=1, host="192.0.2.1"), random=draw, on_event=on_event)

    beside = Beside(make, on_event=lambda _: None)
    with pytest.raises(OSError, match="assign"):
        await beside.start()
    assert "media" not in {thread.name for thread in threading.enumerate()}
