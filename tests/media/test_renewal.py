"""Renewals between two engines on loopback: real UDP, real time; what a listener hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from media.codec import CODECS
from media.leg import CloseMedia, Leg, MediaClosed, MoveMedia, OpenMedia, RenewMedia
from media.likeness import likeness, spectral_likeness
from media.samples import callee_sample, caller_sample, tone
from protocol.sealing import Random
from protocol.secret import Secret
from tests.media.phones import Phone, longest_silence_ms, passed


def run(leg: Leg, n: int, peer: Phone, **changes: object) -> Leg:
    """The n-th run of the call."""
    root = Secret(bytes([n]) * 32)
    return msgspec.structs.replace(leg, n=n, root=root, remote_address=peer.lines[0], **changes)


@pytest.fixture
async def phones(draw: Random) -> AsyncIterator[tuple[Phone, Phone]]:
    """They take a fresh SSRC each 0.7 s."""
    one, two = Phone(tone(440, 20), draw, packets_max=35), Phone(tone(660, 20), draw, packets_max=35)
    for phone in (one, two):
        phone.lines = await phone.engine.start()
    yield one, two
    for phone in (one, two):
        await phone.engine.stop()


async def test_a_tone_has_no_gap_through_renewals_and_fresh_ssrcs(
    phones: tuple[Phone, Phone], alice: Leg, bob: Leg
) -> None:
    one, two = phones
    one.engine.carry_out(OpenMedia(run(alice, 1, two)))
    two.engine.carry_out(OpenMedia(run(bob, 1, one)))
    for n in (2, 3, 4, 5):
        await passed(one.engine, alice.session, (n - 1) * 25)
        two.engine.carry_out(RenewMedia(run(bob, n, one)))
        await passed(one.engine, alice.session, (n - 1) * 25 + 5)
        one.engine.carry_out(RenewMedia(run(alice, n, two), speak_within_s=0))
    await passed(one.engine, alice.session, 150)
    for phone, leg in ((one, alice), (two, bob)):
        phone.engine.carry_out(CloseMedia(leg.session))
        told = phone.closed().statistics
        assert told.sent >= 149
        assert told.received >= 149
        assert (told.refused, told.replayed, told.lost) == (0, 0, 0)
        assert told.round_trip_ms is not None
        assert phone.heard[0].size >= 145 * 160
        assert longest_silence_ms(phone.heard[0]) <= 60


@pytest.mark.parametrize("codec", list(CODECS))
async def test_the_sound_goes_on_where_it_was(codec: str, draw: Random, alice: Leg, bob: Leg) -> None:
    """In each codec: a session's sound is 8 kHz whatever the packets carry."""
    one, two = Phone(caller_sample(), draw), Phone(callee_sample(), draw)
    for phone in (one, two):
        phone.lines = await phone.engine.start()
    one.engine.carry_out(OpenMedia(run(alice, 1, two, codec=codec)))
    two.engine.carry_out(OpenMedia(run(bob, 1, one, codec=codec)))
    await passed(two.engine, bob.session, 50)
    two.engine.carry_out(RenewMedia(run(bob, 2, one, codec=codec)))
    one.engine.carry_out(RenewMedia(run(alice, 2, two, codec=codec), speak_within_s=0))
    await passed(two.engine, bob.session, 130)
    for phone, leg in ((one, alice), (two, bob)):
        phone.engine.carry_out(CloseMedia(leg.session))
        await phone.engine.stop()
    assert spectral_likeness(two.heard[0], caller_sample()[: two.heard[0].size]) > 0.9
    assert spectral_likeness(one.heard[0], callee_sample()[: one.heard[0].size]) > 0.9
    if codec in {"PCMU", "PCMA"}:
        assert likeness(two.heard[0], caller_sample()) > 0.95


async def test_or_28_a_session_ends_with_its_last_key(
    phones: tuple[Phone, Phone], alice: Leg, bob: Leg
) -> None:
    one, two = phones
    loop = asyncio.get_running_loop()
    began = loop.time()
    one.engine.carry_out(OpenMedia(run(alice, 1, two, lifetime_s=1)))
    two.engine.carry_out(OpenMedia(run(bob, 1, one, lifetime_s=1)))
    await passed(one.engine, alice.session, 20)
    one.engine.carry_out(RenewMedia(run(alice, 2, two, lifetime_s=2), speak_within_s=0))
    await two.until(two.has_closed)
    assert loop.time() - began == pytest.approx(1, abs=0.3)
    assert not one.events
    await one.until(one.has_closed)
    assert loop.time() - began > 2
    assert one.closed().expired
    one.engine.carry_out(MoveMedia(alice.session, two.lines[0]))  # left alone


async def test_a_renewal_of_what_is_not_open_opens_it(
    phones: tuple[Phone, Phone], alice: Leg, bob: Leg
) -> None:
    one, two = phones
    for _ in range(2):  # a repeat changes nothing
        one.engine.carry_out(RenewMedia(run(alice, 2, two)))
        two.engine.carry_out(RenewMedia(run(bob, 2, one), speak_within_s=0))
    await passed(one.engine, alice.session, 10)
    assert one.engine.statistics()[alice.session].refused == 0
    with pytest.raises(KeyError):
        one.engine.carry_out(RenewMedia(run(alice, 3, two, codec="speex")))
    await passed(one.engine, alice.session, 20)


@pytest.mark.parametrize("how", ["move", "renew"])
async def test_a_peer_that_has_moved_is_heard_at_its_new_address(
    phones: tuple[Phone, Phone], alice: Leg, bob: Leg, how: str
) -> None:
    """From the second's first line to its second, under the same key."""
    one, two = phones
    one.engine.carry_out(OpenMedia(run(alice, 1, two)))
    two.engine.carry_out(OpenMedia(run(bob, 1, one)))
    await passed(one.engine, alice.session, 20)
    two.engine.carry_out(CloseMedia(bob.session))
    moved = msgspec.structs.replace(run(bob, 1, one), session="moved", line=1)
    two.engine.carry_out(OpenMedia(moved))
    there = msgspec.structs.replace(run(alice, 1, two), remote_address=two.lines[1])
    one.engine.carry_out(MoveMedia(alice.session, two.lines[1]) if how == "move" else RenewMedia(there))
    await passed(two.engine, "moved", 20)
    assert isinstance(two.events[0], MediaClosed)
    assert len(two.events) == 1
