"""Two engines on loopback: real UDP, real time, a key that ends, a peer that is gone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from media.engine import Engine, EngineSettings, LineBusy
from media.leg import (
    CloseMedia,
    CloseStored,
    Leg,
    MediaEvent,
    MediaSilent,
    MoveMedia,
    OpenMedia,
    OpenStored,
    StoredHeard,
    TakeStored,
)
from media.likeness import likeness
from media.pcm import PACKET_S, Pcm
from media.samples import callee_sample, caller_sample, mailbox_tone
from media.session import Session
from protocol.description import Flow
from protocol.sealing import Random
from tests.media.phones import Phone


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
    await one.until(one.has_closed)
    assert one.closed().expired
    assert 40 <= one.closed().statistics.sent <= 51


async def test_silence_is_told_once(phones: tuple[Phone, Phone], alice: Leg) -> None:
    one, two = phones
    one.engine.carry_out(OpenMedia(msgspec.structs.replace(alice, remote_address=two.lines[0])))
    await one.until(lambda: bool(one.events))
    assert one.events == [MediaSilent(alice.session)]


async def test_silence_is_told_again_when_the_peer_has_moved(phones: tuple[Phone, Phone], alice: Leg) -> None:
    one, two = phones
    one.engine.carry_out(OpenMedia(msgspec.structs.replace(alice, remote_address=two.lines[0])))
    await one.until(lambda: bool(one.events))
    one.engine.carry_out(MoveMedia(alice.session, two.lines[1]))
    await one.until(lambda: len(one.events) > 1)
    assert one.events == [MediaSilent(alice.session)] * 2


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


def packets_of(alice: Leg, draw: Random, ticks: int = 100) -> tuple[bytes, ...]:
    """What alice leaves in a mailbox."""
    session = Session(alice, draw, caller_sample(), now=0.0, heard_samples_max=0)
    said = [packet for tick in range(ticks) for packet in session.tick(tick * PACKET_S)]
    return (*said, session.close(ticks * PACKET_S))


async def test_a_stored_message_is_heard_at_once(alice: Leg, bob: Leg, draw: Random) -> None:
    """No line and no socket; the agent is told before the sink, in parts or in one."""
    told: list[MediaEvent] = []
    heard: list[tuple[Leg, Pcm]] = []
    engine = Engine(
        EngineSettings(lines=0),
        random=draw,
        source=lambda _: caller_sample(),
        on_event=told.append,
        sink=lambda leg, pcm: heard.append((leg, pcm)),
    )
    packets = packets_of(alice, draw)
    engine.carry_out(OpenStored(bob))
    engine.carry_out(TakeStored(bob.session, packets[:40]))
    engine.carry_out(OpenStored(bob))  # a repeat is left alone
    engine.carry_out(TakeStored("another", packets[40:]))
    engine.carry_out(TakeStored(bob.session, packets[40:]))
    assert not told
    assert not heard
    engine.carry_out(CloseStored(bob.session))
    assert told == [StoredHeard(bob.session, packets=103, refused=0, whole=True)]
    [(leg, pcm)] = heard
    assert leg == bob
    assert likeness(pcm, caller_sample()[: pcm.size]) > 0.98
    engine.carry_out(CloseStored(bob.session))
    assert told[1:] == [StoredHeard(bob.session, packets=0, refused=0, whole=False)]
    assert len(heard) == 1
    await engine.stop()


async def test_or_28_a_stored_message_is_not_heard_after_its_keys_end(
    alice: Leg, bob: Leg, draw: Random
) -> None:
    phone = Phone(caller_sample(), draw)
    phone.engine.carry_out(OpenStored(msgspec.structs.replace(bob, lifetime_s=0)))
    phone.engine.carry_out(TakeStored(bob.session, packets_of(alice, draw)))
    phone.engine.carry_out(CloseStored(bob.session))
    assert phone.events == [StoredHeard(bob.session, packets=0, refused=0, whole=False)]
    assert phone.heard[0].size == 0


async def test_a_message_may_have_the_name_of_a_call(
    phones: tuple[Phone, Phone], alice: Leg, bob: Leg, draw: Random
) -> None:
    _, two = phones
    two.engine.carry_out(OpenMedia(bob))
    two.engine.carry_out(OpenStored(bob))
    two.engine.carry_out(TakeStored(bob.session, packets_of(alice, draw)))
    two.engine.carry_out(CloseStored(bob.session))
    assert two.events == [StoredHeard(bob.session, packets=103, refused=0, whole=True)]
    two.engine.carry_out(CloseMedia(bob.session))
    assert two.closed().session == bob.session


async def test_a_mailbox_says_nothing_and_that_is_no_silence(phones: tuple[Phone, Phone], alice: Leg) -> None:
    """Beside it a call on the next line is told as silent, at the same time."""
    one, two = phones
    leg = msgspec.structs.replace(
        alice, remote_address=two.lines[0], flow=Flow.SENDONLY, to_mailbox=True, session="left"
    )
    one.engine.carry_out(OpenMedia(leg))
    one.engine.carry_out(OpenMedia(msgspec.structs.replace(alice, remote_address=two.lines[1], line=1)))
    await one.until(lambda: bool(one.events))
    assert one.events == [MediaSilent(alice.session)]
    one.engine.carry_out(CloseMedia("left"))
    [heard] = one.heard
    assert np.array_equal(heard, mailbox_tone())
