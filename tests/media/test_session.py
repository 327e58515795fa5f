"""Two sessions and a bad wire: what was said is heard, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from media.leg import Leg
from media.likeness import likeness
from media.pcm import PACKET_S, Pcm
from media.rtcp import is_rtcp
from media.samples import callee_sample, caller_sample, tone
from media.session import Session
from protocol.description import Flow, SrtpSuite
from protocol.sealing import Random
from protocol.secret import Secret

Wire = Callable[[list[bytes]], list[bytes]]
SECONDS = 6.0
QUIET = np.zeros(0, np.int16)


def talk(
    alice: Leg, bob: Leg, draw: Random, *, to_bob: Wire = list, seconds: float = SECONDS
) -> tuple[Session, Session]:
    """Both play their samples; to_bob: what becomes of the datagrams of each tick."""
    now = 100.0
    one = Session(alice, draw, caller_sample(), now=now, heard_samples_max=10**6)
    two = Session(bob, draw, callee_sample(), now=now, heard_samples_max=10**6)
    for tick in range(round(seconds / PACKET_S)):
        now = 100.0 + tick * PACKET_S
        from_one, from_two = one.tick(now), two.tick(now)
        for datagram in to_bob(from_one):
            two.take(datagram, now + 0.005)
        for datagram in from_two:
            one.take(datagram, now + 0.005)
    return one, two


def heard(session: Session, sound: Pcm) -> float:
    return likeness(session.heard(), sound)


def test_both_hear_each_other(alice: Leg, bob: Leg, suite: SrtpSuite, draw: Random) -> None:
    one, two = talk(
        msgspec.structs.replace(alice, suite=suite), msgspec.structs.replace(bob, suite=suite), draw
    )
    assert heard(two, caller_sample()) > 0.98
    assert heard(one, callee_sample()) > 0.98
    assert heard(two, callee_sample()) < 0.2
    for session in (one, two):
        told = session.statistics()
        assert (told.sent, told.received) == (300, 300)
        assert (told.lost, told.late, told.refused, told.replayed) == (0, 0, 0, 0)
        assert told.peer_lost == 0
        assert told.round_trip_ms is not None


def test_lost_packets_are_counted_on_both_sides(alice: Leg, bob: Leg, draw: Random) -> None:
    chance = random.Random(1)

    def lossy(datagrams: list[bytes]) -> list[bytes]:
        return [d for d in datagrams if is_rtcp(d) or chance.random() > 0.1]

    one, two = talk(alice, bob, draw, to_bob=lossy)
    told = two.statistics()
    assert told.lost == 300 - told.received > 0
    peer_lost = one.statistics().peer_lost
    assert peer_lost is not None
    assert abs(peer_lost - told.lost) <= 10
    assert heard(two, caller_sample()) > 0.85


def test_reordered_and_repeated_packets_cost_nothing(alice: Leg, bob: Leg, draw: Random) -> None:
    held: list[bytes] = []

    def shuffled(datagrams: list[bytes]) -> list[bytes]:
        held.extend(datagrams)
        if len(held) < 2:
            return []
        out = [held[1], held[0], held[1]]
        held.clear()
        return out

    _, two = talk(alice, bob, draw, to_bob=shuffled)
    told = two.statistics()
    assert told.replayed >= 140
    assert (told.lost, told.refused) == (0, 0)
    assert heard(two, caller_sample()) > 0.95


def test_or_28_packets_under_another_key_are_counted_and_not_played(
    alice: Leg, bob: Leg, suite: SrtpSuite, draw: Random
) -> None:
    mallory = msgspec.structs.replace(alice, root=Secret(bytes(32)), suite=suite)
    _, two = talk(mallory, msgspec.structs.replace(bob, suite=suite), draw)
    told = two.statistics()
    assert told.received == 0
    assert told.refused >= 300
    assert two.heard().size == 0


@pytest.mark.parametrize("changed", [0, 1, 4, 11, 12, 40, -1])
def test_or_28_changed_packets_are_counted_and_not_played(
    alice: Leg, bob: Leg, draw: Random, changed: int
) -> None:
    def flip(datagrams: list[bytes]) -> list[bytes]:
        out = []
        for datagram in datagrams:
            octets = bytearray(datagram)
            octets[changed] ^= 1
            out.append(bytes(octets))
        return out

    _, two = talk(alice, bob, draw, to_bob=flip, seconds=1.0)
    told = two.statistics()
    assert (told.received, two.heard().size) == (0, 0)
    assert told.refused >= 50


def test_or_28_a_replayed_packet_is_counted_and_not_played(alice: Leg, bob: Leg, draw: Random) -> None:
    kept: list[bytes] = []

    def replay(datagrams: list[bytes]) -> list[bytes]:
        kept.extend(datagrams)
        return [*datagrams, kept[0]]

    _, two = talk(alice, bob, draw, to_bob=replay)
    told = two.statistics()
    assert told.received == 300
    assert told.replayed == 300
    assert heard(two, caller_sample()) > 0.98


def test_or_28_a_replayed_packet_with_a_false_tag_is_refused(alice: Leg, bob: Leg, draw: Random) -> None:
    """Anybody can write a sequence number that was seen: that is no proof of a replay."""

    def forge(datagrams: list[bytes]) -> list[bytes]:
        return [*datagrams, *(d[:-1] + bytes([d[-1] ^ 1]) for d in datagrams if not is_rtcp(d))]

    _, two = talk(alice, bob, draw, to_bob=forge, seconds=1.0)
    assert (two.statistics().replayed, two.statistics().refused) == (0, 50)


def test_or_28_another_party_of_the_same_root(alice: Leg, bob: Leg, draw: Random) -> None:
    """Each sender has its own key: alice's packets are not bob's, and not another run's."""
    changes: list[dict[str, Any]] = [
        {"local": "sip:carol@ims.example"},
        {"remote": "sip:carol@ims.example"},
        {"n": 0},
        {"media_line": 1},
    ]
    for change in changes:
        _, two = talk(msgspec.structs.replace(alice, **change), bob, draw, seconds=0.5)
        assert two.statistics().received == 0
    reflected: list[bytes] = []
    one = Session(alice, draw, caller_sample(), now=0.0, heard_samples_max=0)
    for tick in range(50):
        reflected += one.tick(tick * PACKET_S)
    for datagram in reflected:
        one.take(datagram, 2.0)
    assert one.statistics().received == 0


def test_junk_from_anybody_is_bounded_and_harmless(alice: Leg, bob: Leg, draw: Random) -> None:
    chance = random.Random(3)

    def junk(datagrams: list[bytes]) -> list[bytes]:
        strays = [chance.randbytes(chance.randrange(0, 300)) for _ in range(5)]
        strangers = [
            b"\x80\x00" + chance.randbytes(2) + bytes(4) + chance.randbytes(4) + chance.randbytes(176)
            for _ in range(5)
        ]
        return [*strays, *datagrams, *strangers]

    _, two = talk(alice, bob, draw, to_bob=junk)
    assert two.statistics().received == 300
    assert heard(two, caller_sample()) > 0.98


def test_a_stream_ends_before_its_numbers_do(alice: Leg, bob: Leg, draw: Random) -> None:
    """The rollover counter stays 0: before 65,535 a fresh SSRC goes on."""
    one = Session(alice, draw, tone(440, 1.0), now=0.0, heard_samples_max=0)
    two = Session(bob, draw, QUIET, now=0.0, heard_samples_max=0)
    ssrcs = set()
    ticks = 70_000
    for tick in range(ticks):
        now = tick * PACKET_S
        for datagram in one.tick(now):
            if not is_rtcp(datagram):
                ssrcs.add(datagram[8:12])
            two.take(datagram, now)
        two.tick(now)
    assert len(ssrcs) >= 2
    told = two.statistics()
    assert (told.received, told.lost, told.refused) == (ticks, 0, 0)
    assert one.statistics().sent == ticks


def test_flow_says_who_sends(alice: Leg, bob: Leg, draw: Random) -> None:
    one, two = talk(
        msgspec.structs.replace(alice, flow=Flow.SENDONLY),
        msgspec.structs.replace(bob, flow=Flow.RECVONLY),
        draw,
    )
    assert one.statistics().received == 0
    assert two.statistics().sent == 0
    assert heard(two, caller_sample()) > 0.98


def test_what_is_kept_is_bounded(alice: Leg, bob: Leg, draw: Random) -> None:
    now = 0.0
    one = Session(alice, draw, caller_sample(), now=now, heard_samples_max=0)
    two = Session(bob, draw, QUIET, now=now, heard_samples_max=8000)
    for tick in range(200):
        now = tick * PACKET_S
        for datagram in one.tick(now):
            two.take(datagram, now)
        two.tick(now)
    assert two.heard().size == 8000
