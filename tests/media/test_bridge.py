"""A bridge between handsets on loopback: who hears whom, in which codec, under which key."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from media.codec import CODECS
from media.engine import LineBusy
from media.leg import (
    CloseMedia,
    Leg,
    MediaClosed,
    MediaSilent,
    MoveMedia,
    OpenMedia,
    OpenStored,
    RenewMedia,
    Speakers,
)
from media.likeness import spectral_likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.rtcp import is_rtcp
from media.rtp import parse
from media.samples import callee_sample, caller_sample, tone
from protocol.description import SrtpSuite
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master
from protocol.transport import MediaAddress
from tests.media.phones import Exchange, Phone, longest_silence_ms, passed
from tests.media.reference_srtp import protect_cm, protect_gcm

FOCUS: Final = "sip:focus@conf.example"
GROUP: Final = bytes(range(16))
EPOCHS: Final = {epoch: Secret(bytes([epoch]) * 32) for epoch in range(1, 9)}


class Room:
    """A bridge with two names, and handsets."""

    def __init__(self, exchange: Exchange, draw: Random, alice: Leg) -> None:
        self.exchange = exchange
        self.phones: list[Phone] = []
        self._draw = draw
        self._leg = alice

    async def phone(self, sound: Pcm) -> int:
        """The number of a handset that is there from now on."""
        phone = Phone(sound, self._draw)
        phone.lines = await phone.engine.start()
        self.phones.append(phone)
        return len(self.phones) - 1

    def inner(self, number: int, bridge: str = "room", **changes: Any) -> Leg:
        """The bridge's end of a leg."""
        leg = self.outer(number, **changes)
        return msgspec.structs.replace(
            leg,
            session=f"{bridge} {number}",
            line=number,
            local=leg.remote,
            remote=leg.local,
            remote_address=self.phones[number].lines[0],
            bridge=bridge,
        )

    def outer(self, number: int, *, n: int = 1, **changes: Any) -> Leg:
        """The handset's end: of epoch 1, if nothing else is said."""
        changes = {"group": GROUP} | changes
        return msgspec.structs.replace(
            self._leg,
            session="call",
            local=f"sip:user{number}@ims.example",
            remote=FOCUS,
            remote_address=self.exchange.lines[number],
            n=n,
            root=EPOCHS[n],
            **changes,
        )

    def open(self, number: int, bridge: str = "room", **changes: Any) -> None:
        self.exchange.engine.carry_out(OpenMedia(self.inner(number, bridge, **changes)))
        self.phones[number].engine.carry_out(OpenMedia(self.outer(number, **changes)))

    def close(self, number: int) -> Pcm:
        """What the handset has heard."""
        self.phones[number].engine.carry_out(CloseMedia("call"))
        return self.phones[number].heard[-1]


@pytest.fixture
async def room(draw: Random, alice: Leg) -> AsyncIterator[Room]:
    exchange = Exchange(draw, 20, silence_s=0.5)
    exchange.lines = await exchange.engine.start()
    room = Room(exchange, draw, alice)
    yield room
    for phone in room.phones:
        await phone.engine.stop()
    await exchange.engine.stop()


def level(sound: Pcm, hertz: float) -> float:
    """Of a tone in a sound, where 1 is a full sine of 12,000."""
    window = np.hanning(sound.size)
    wave = np.exp(2j * np.pi * hertz * np.arange(sound.size) / SAMPLE_HZ)
    return float(abs(np.sum(sound * window * wave)) / (12_000 * window.sum() / 2))


async def test_each_two_codecs_understand_each_other(room: Room) -> None:
    """All pairs at a time, each in its bridge."""
    samples = (caller_sample(), callee_sample())
    pairs = list(itertools.combinations_with_replacement(CODECS, 2))
    for number in range(2 * len(pairs)):
        await room.phone(samples[number % 2])
    for number, codec in enumerate(itertools.chain(*pairs)):
        room.open(number, f"bridge {number // 2}", codec=codec, group=None)
    await passed(room.phones[-1].engine, "call", 150)
    for number in range(2 * len(pairs)):
        heard = room.close(number)
        pair = pairs[number // 2]
        assert spectral_likeness(heard, samples[1 - number % 2]) > 0.9, pair
        assert spectral_likeness(heard, samples[number % 2]) < 0.6, pair
        assert room.phones[number].closed().statistics.refused == 0


async def test_each_hears_the_others_and_not_itself(room: Room) -> None:
    tones = (440.0, 700.0, 1100.0)
    codecs = ("PCMU", "G722", "opus")
    for hertz in tones:
        await room.phone((tone(hertz, 10) // 3).astype(np.int16))
    for number, codec in enumerate(codecs):
        room.open(number, codec=codec)
    await passed(room.phones[0].engine, "call", 120)
    for number in range(3):
        heard = room.close(number)[4000:]
        levels = [level(heard, hertz) for hertz in tones]
        for other, loud in enumerate(levels):
            assert (loud < 0.01) if other == number else (0.2 < loud < 0.4)


async def test_two_bridges_do_not_hear_each_other(room: Room) -> None:
    for hertz in (440, 700, 1100, 1500):
        await room.phone((tone(hertz, 10) // 2).astype(np.int16))
    for number, bridge in enumerate(("one", "one", "two", "two")):
        room.open(number, bridge)
    await passed(room.phones[3].engine, "call", 60)
    assert [level(room.close(0)[3200:], hertz) > 0.1 for hertz in (440, 700, 1100, 1500)] == [0, 1, 0, 0]
    assert [level(room.close(3)[3200:], hertz) > 0.1 for hertz in (440, 700, 1100, 1500)] == [0, 0, 1, 0]


async def test_the_sum_is_clipped_and_does_not_wrap(room: Room) -> None:
    for _ in range(4):
        await room.phone(np.full(80_000, 30_000, np.int16))
    for number in range(4):
        room.open(number)
    await passed(room.phones[0].engine, "call", 60)
    heard = room.close(0)[6400:]
    assert int(heard.min()) > 25_000


async def test_epochs_pass_without_a_gap(room: Room) -> None:
    """As a conference does when somebody joins: the focus first, then each member at its own time."""
    await room.phone(tone(440, 20))
    await room.phone(tone(660, 20))
    for number in (0, 1):
        room.open(number)
    for epoch in (2, 3, 4):
        await passed(room.phones[0].engine, "call", (epoch - 1) * 30)
        for number in (0, 1):
            inner = room.inner(number, n=epoch)
            room.exchange.engine.carry_out(RenewMedia(inner, speak_within_s=1.0, overlap_s=1))
        for number in (0, 1):
            await passed(room.phones[number].engine, "call", (epoch - 1) * 30 + 8 * number)
            outer = room.outer(number, n=epoch)
            room.phones[number].engine.carry_out(RenewMedia(outer, speak_within_s=0, overlap_s=1))
    await passed(room.phones[0].engine, "call", 130)
    for number in (0, 1):
        assert room.exchange.engine.statistics()[f"room {number}"].refused == 0
        assert longest_silence_ms(room.close(number)) <= 60
        assert room.phones[number].closed().statistics.refused == 0


async def test_or_28_who_has_left_is_not_heard_under_the_old_key(room: Room) -> None:
    """Nor by one who goes on sending it to another's line; who has the new one is."""
    for hertz in (440, 700, 1100):
        await room.phone(tone(hertz, 20) // 2)
    for number in range(3):
        room.open(number)
    await passed(room.phones[0].engine, "call", 30)
    bridge = room.exchange.engine
    bridge.carry_out(CloseMedia("room 2"))
    for number in (0, 1):
        bridge.carry_out(RenewMedia(room.inner(number, n=2), speak_within_s=0.3, overlap_s=0))
    room.phones[2].engine.carry_out(MoveMedia("call", room.exchange.lines[1]))
    for number in (0, 1):
        outer = room.outer(number, n=2)
        room.phones[number].engine.carry_out(RenewMedia(outer, speak_within_s=0, overlap_s=0))
    before = room.phones[0].engine.statistics()["call"].received
    await passed(room.phones[0].engine, "call", before + 60)
    heard = room.close(0)[-6400:]
    assert level(heard, 700) > 0.3
    assert level(heard, 1100) < 0.02
    assert bridge.statistics()["room 1"].refused > 30
    assert room.phones[2].engine.statistics()["call"].received < 60


class Ear(asyncio.DatagramProtocol):
    """A socket that keeps what comes."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ARG002
        self.heard.append((self._loop.time(), data))
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.heard) < count:
                self._news.clear()
                await self._news.wait()


async def ear() -> tuple[asyncio.DatagramTransport, Ear, MediaAddress]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Ear, ("127.0.0.1", 0))
    return transport, protocol, MediaAddress(*transport.get_extra_info("sockname"))


async def test_the_bound_of_speaking_holds_though_nobody_answers(room: Room) -> None:
    transport, protocol, address = await ear()
    await room.phone(tone(440, 1))
    inner = msgspec.structs.replace(room.inner(0), remote_address=address)
    room.exchange.engine.carry_out(OpenMedia(inner))
    await protocol.until(10)
    later = msgspec.structs.replace(room.inner(0, n=2), remote_address=address)
    asked = asyncio.get_running_loop().time()
    room.exchange.engine.carry_out(RenewMedia(later, speak_within_s=0.3, overlap_s=0))
    await protocol.until(60)
    transport.close()
    packets = [(when, packet) for when, packet in protocol.heard if not is_rtcp(packet)]
    first = next(when for when, packet in packets if packet[8:12] != packets[0][1][8:12])
    assert 0.25 < first - asked < 0.4


@pytest.mark.parametrize("codec", list(CODECS))
async def test_its_packets_are_those_of_the_specification(room: Room, codec: str, suite: SrtpSuite) -> None:
    """The reference, which has no libsrtp in it, seals what it opens to the same octets: sender ID-C,
    receiver G, epoch e."""
    transport, protocol, address = await ear()
    await room.phone(tone(440, 1))
    inner = msgspec.structs.replace(room.inner(0, codec=codec, suite=suite), remote_address=address)
    room.exchange.engine.carry_out(OpenMedia(inner))
    await protocol.until(5)
    transport.close()
    protect = protect_gcm if suite is SrtpSuite.AEAD_AES_256_GCM else protect_cm
    stamps = []
    for _, sealed in protocol.heard[:5]:
        ssrc = int.from_bytes(sealed[8:12], "big")
        master = srtp_master(EPOCHS[1], suite, sender=FOCUS, receiver=GROUP, media_line=0, ssrc=ssrc, n=1)
        tag = 16 if suite is SrtpSuite.AEAD_AES_256_GCM else 10
        # both ciphers are a keystream: sealing the sealed octets opens them
        opened = protect(master.key.reveal(), master.salt.reveal(), sealed[:-tag])[:-tag]
        assert protect(master.key.reveal(), master.salt.reveal(), opened) == sealed
        packet = parse(opened)
        assert packet.payload_type == CODECS[codec].payload_type
        assert len(packet.payload) == CODECS[codec].packet_octets or codec == "opus"
        stamps.append(packet.timestamp)
    steps = {(later - one) & 0xFFFF_FFFF for one, later in itertools.pairwise(stamps)}
    assert steps == {CODECS[codec].clock_hz // 50}


async def test_speakers_are_told_when_they_change(room: Room) -> None:
    """The loudest first; who is quiet, not at all."""
    quarter = tone(440, 1.5)
    await room.phone(np.concatenate([quarter // 2, np.zeros(80_000, np.int16)]))
    await room.phone(tone(660, 20))
    await room.phone(tone(880, 20) // 200)
    for number in range(3):
        room.open(number)

    def told() -> list[tuple[str, ...]]:
        return [event.sessions for event in room.exchange.events if isinstance(event, Speakers)]

    await room.exchange.until(lambda: ("room 1",) in told())
    assert told()[-2:] == [("room 1", "room 0"), ("room 1",)]
    room.exchange.engine.carry_out(CloseMedia("room 1"))
    await room.exchange.until(lambda: told()[-1] == ())
    assert len(told()) <= 4
    assert {event.bridge for event in room.exchange.events if isinstance(event, Speakers)} == {"room"}


async def test_a_transcoder_tells_no_speakers_but_silence_and_the_end(room: Room) -> None:
    await room.phone(tone(440, 10))
    await room.phone(tone(660, 10))
    room.open(0, group=None, codec="G722")
    assert room.exchange.engine._bridges["room"].rate_hz == 16_000
    room.exchange.engine.carry_out(OpenMedia(room.inner(1, group=None, lifetime_s=2)))
    assert room.exchange.engine._bridges["room"].rate_hz == 8000
    await room.exchange.until(room.exchange.has_closed)
    silent, closed = room.exchange.events
    assert silent == MediaSilent("room 1")
    assert isinstance(closed, MediaClosed)
    assert (closed.session, closed.expired) == ("room 1", True)
    assert closed.statistics.sent > 80
    assert room.exchange.engine.statistics()["room 0"].round_trip_ms is not None


async def test_who_was_never_heard_may_take_longer_than_who_falls_silent(draw: Random, alice: Leg) -> None:
    """An end that waits for its notice, and one that is gone."""
    exchange = Exchange(draw, 2, silence_s=0.3, unheard_s=4.0)
    exchange.lines = await exchange.engine.start()
    room = Room(exchange, draw, alice)
    await room.phone(tone(440, 10))
    await room.phone(tone(660, 10))
    exchange.engine.carry_out(OpenMedia(room.inner(1, group=None)))
    room.open(0, group=None)
    await passed(exchange.engine, "room 0", 10)
    room.close(0)
    await exchange.until(lambda: len(exchange.events) == 2)
    assert exchange.events == [MediaSilent("room 0"), MediaSilent("room 1")]
    for phone in room.phones:
        await phone.engine.stop()
    await exchange.engine.stop()


async def test_a_bridge_has_the_rules_of_an_engine(room: Room) -> None:
    await room.phone(tone(440, 10))
    await room.phone(tone(440, 10))
    engine = room.exchange.engine
    inner = room.inner(0)
    engine.carry_out(RenewMedia(inner))  # opens it
    engine.carry_out(OpenMedia(inner))  # a repeat is left alone
    with pytest.raises(LineBusy):
        engine.carry_out(OpenMedia(msgspec.structs.replace(inner, session="another")))
    with pytest.raises(IndexError):
        engine.carry_out(OpenMedia(msgspec.structs.replace(inner, session="another", line=99)))
    with pytest.raises(KeyError):
        engine.carry_out(OpenMedia(msgspec.structs.replace(inner, session="another", line=1, codec="speex")))
    with pytest.raises(AssertionError):
        engine.carry_out(OpenStored(inner))
    engine.carry_out(MoveMedia("nobody", room.phones[0].lines[0]))
    engine.carry_out(CloseMedia("nobody"))
    assert list(engine.statistics()) == ["room 0"]
    engine.carry_out(CloseMedia("room 0"))
    engine.carry_out(OpenMedia(msgspec.structs.replace(inner, session="another", line=1)))
    engine.carry_out(OpenMedia(inner))
    assert room.exchange.closed().session == "room 0"


async def test_a_port_that_is_taken(draw: Random) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            await Exchange(draw, 1, port=taken.getsockname()[1]).engine.start()
