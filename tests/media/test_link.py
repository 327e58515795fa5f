"""A session's keys over time: what is taken and spoken under which, on a clock of the test's own."""

from __future__ import annotations

import gc
import itertools
import random
import sys
import weakref
from typing import Final

import msgspec
import numpy as np
import pytest

from media.leg import Leg, RenewMedia
from media.link import Link
from media.outgoing import Ssrcs
from media.pcm import PACKET_S, Pcm
from media.rtcp import is_rtcp
from media.samples import tone
from protocol.limits import OVERLAP_S
from protocol.sealing import Random
from protocol.secret import Secret
from tests.media.phones import opened_by

TONE: Final = tone(440, 0.02)
ROOTS: Final = [Secret(bytes([number]) * 32) for number in range(5)]


def run(leg: Leg, n: int, **changes: int) -> Leg:
    """The n-th run of the call."""
    return msgspec.structs.replace(leg, n=n, root=ROOTS[n], **changes)


class Pair:
    """Both ends and a good wire."""

    def __init__(self, alice: Leg, bob: Leg, draw: Random) -> None:
        self.now = 100.0
        self.alice, self.bob = alice, bob
        self.one, self.two = Link(run(alice, 1), draw, now=self.now), Link(run(bob, 1), draw, now=self.now)
        self.from_one: list[bytes] = []  # of the last tick
        self.from_two: list[bytes] = []

    def ticks(self, seconds: float, *, one_way: bool = False) -> list[Pcm]:
        """What the second hears. one_way: the second does not speak."""
        heard = []
        for _ in range(round(seconds / PACKET_S)):
            self.now += PACKET_S
            self.from_one = self.one.packets(TONE, self.now)
            self.from_two = [] if one_way else self.two.packets(TONE, self.now)
            for datagram in self.from_one:
                self.two.take(datagram, self.now)
            for datagram in self.from_two:
                self.one.take(datagram, self.now)
            self.one.pull()
            heard.append(self.two.pull())
        return heard

    def one_speaks_under(self) -> int:
        return self._run_of(self.bob, self.from_one)

    def two_speaks_under(self) -> int:
        return self._run_of(self.alice, self.from_two)

    def _run_of(self, leg: Leg, datagrams: list[bytes]) -> int:
        packets = [datagram for datagram in datagrams if not is_rtcp(datagram)]
        [n] = [n for n in range(1, 5) if opened_by(run(leg, n), packets) == [True]]
        return n


@pytest.fixture
def pair(alice: Leg, bob: Leg, draw: Random) -> Pair:
    return Pair(alice, bob, draw)


def test_who_waits_speaks_when_it_has_heard(pair: Pair) -> None:
    pair.ticks(1)
    pair.two.renew(RenewMedia(run(pair.bob, 2)), pair.now)
    pair.ticks(2)
    assert (pair.one_speaks_under(), pair.two_speaks_under()) == (1, 1)
    pair.one.renew(RenewMedia(run(pair.alice, 2), speak_within_s=0), pair.now)
    pair.ticks(2 * PACKET_S)
    assert (pair.one_speaks_under(), pair.two_speaks_under()) == (2, 2)
    for link in (pair.one, pair.two):
        told = link.statistics()
        assert told.sent == told.received == 152
        assert (told.refused, told.lost, told.late) == (0, 0, 0)


def test_who_has_a_bound_speaks_then(pair: Pair) -> None:
    pair.two.renew(RenewMedia(run(pair.bob, 2), speak_within_s=0.3), pair.now)
    pair.ticks(0.28)
    assert pair.two_speaks_under() == 1
    pair.ticks(0.04)
    assert pair.two_speaks_under() == 2


def test_the_old_key_is_taken_for_the_overlap_from_the_first_that_is_heard(pair: Pair) -> None:
    """Whom the second waits for goes on for long, then only a copy of it does."""
    pair.ticks(1)
    pair.two.renew(RenewMedia(run(pair.bob, 2)), pair.now)
    pair.ticks(5)
    assert pair.two.statistics().refused == 0
    old = Link(run(pair.alice, 1), random.Random(9).randbytes, now=pair.now)
    pair.one.renew(RenewMedia(run(pair.alice, 2), speak_within_s=0), pair.now)
    pair.ticks(PACKET_S)  # heard
    pair.ticks(OVERLAP_S - PACKET_S)
    [packet] = old.packets(TONE, pair.now)
    pair.two.take(packet, pair.now)
    assert pair.two.statistics().refused == 0
    pair.ticks(2 * PACKET_S)
    for packet in old.packets(TONE, pair.now):
        pair.two.take(packet, pair.now)
    assert pair.two.statistics().refused == 1


def test_or_28_after_a_leave_the_old_key_is_not_taken_at_all(pair: Pair) -> None:
    pair.ticks(1)
    before = pair.two.statistics().received
    pair.two.renew(RenewMedia(run(pair.bob, 2), speak_within_s=0.3, overlap_s=0), pair.now)
    heard = pair.ticks(1)
    told = pair.two.statistics()
    assert told.received == before
    assert told.refused >= 50
    assert sum(sound.any() for sound in heard) == 3  # what has come before is played out


def test_an_old_key_ends_with_its_own_lifetime(alice: Leg, bob: Leg, draw: Random) -> None:
    pair = Pair(alice, bob, draw)
    pair.one = Link(run(alice, 1, lifetime_s=2), draw, now=pair.now)
    pair.two = Link(run(bob, 1, lifetime_s=2), draw, now=pair.now)
    pair.two.renew(RenewMedia(run(pair.bob, 2)), pair.now)
    pair.ticks(1.9)
    assert (pair.two.statistics().refused, pair.two_speaks_under()) == (0, 1)
    pair.ticks(0.2)
    assert pair.two.statistics().refused > 0
    assert pair.two_speaks_under() == 2  # although nothing was heard


def test_a_key_is_forgotten_when_it_is_not_taken_any_more(pair: Pair) -> None:
    pair.ticks(1)
    old = pair.two._incoming._under[0]
    streams = [weakref.ref(stream.srtp) for stream in old.proven.values()]
    del old
    assert streams[0]() is not None
    gc.collect()
    counted = sys.getrefcount(ROOTS[1])
    pair.two.renew(RenewMedia(run(pair.bob, 2), speak_within_s=0, overlap_s=0.5), pair.now)
    pair.ticks(0.4)
    assert streams[0]() is not None
    pair.ticks(0.2)
    gc.collect()
    left = sys.getrefcount(ROOTS[1])
    assert [stream() for stream in streams] == [None]
    assert left < counted  # the test's and the other end's


def test_several_renewals_at_once_never_go_back(pair: Pair) -> None:
    pair.ticks(0.2)
    for n in (2, 3, 4):
        pair.two.renew(RenewMedia(run(pair.bob, n), speak_within_s=None, overlap_s=1), pair.now)
    pair.ticks(0.2)
    assert pair.two_speaks_under() == 1
    pair.one.renew(RenewMedia(run(pair.alice, 3), speak_within_s=0), pair.now)
    pair.ticks(2 * PACKET_S)
    assert (pair.one_speaks_under(), pair.two_speaks_under()) == (3, 3)
    before = pair.from_two[-1]
    assert not pair.two.renew(RenewMedia(run(pair.bob, 3)), pair.now)  # a repeat
    pair.ticks(PACKET_S)
    assert not any(is_rtcp(packet) for packet in (before, pair.from_two[-1]))
    after = pair.from_two[-1]
    assert before[8:12] == after[8:12]
    pair.one.renew(RenewMedia(run(pair.alice, 4), speak_within_s=0), pair.now)
    pair.ticks(2 * PACKET_S)
    assert (pair.one_speaks_under(), pair.two_speaks_under()) == (4, 4)
    assert pair.two.statistics().refused == 0


def test_reports_go_on_under_each_key(pair: Pair) -> None:
    told = []
    for n in (2, 3, 4):
        pair.ticks(3)
        told.append(pair.one.statistics())
        pair.two.renew(RenewMedia(run(pair.bob, n)), pair.now)
        pair.one.renew(RenewMedia(run(pair.alice, n), speak_within_s=0), pair.now)
    assert all(statistics.peer_lost == 0 for statistics in told)
    pair.one._round_trip_s = None
    pair.ticks(3)
    assert pair.one.statistics().round_trip_ms is not None


def test_no_sound_is_lost_between_two_keys_or_two_ssrcs(alice: Leg, bob: Leg, draw: Random) -> None:
    pair = Pair(alice, bob, draw)
    pair.one = Link(run(alice, 1), draw, now=pair.now, packets_max=20)
    heard = pair.ticks(1)
    for n in (2, 3, 4):
        pair.two.renew(RenewMedia(run(pair.bob, n)), pair.now)
        heard += pair.ticks(0.1)
        pair.one.renew(RenewMedia(run(pair.alice, n), speak_within_s=0), pair.now)
        heard += pair.ticks(0.9)
    silent = [index for index, sound in enumerate(heard) if not sound.any()]
    assert silent == [0, 1, 2]  # the first packet waits for its time


def test_a_group_has_one_key_for_all_that_is_sent(alice: Leg, bob: Leg, draw: Random) -> None:
    """The receiver's name is G, in both directions; a leg with a name in place of it hears nothing."""
    group = bytes(range(16))
    changed = [msgspec.structs.replace(leg, group=group) for leg in (alice, bob)]
    pair = Pair(changed[0], changed[1], draw)
    pair.ticks(0.2)
    assert pair.one.statistics().received == pair.two.statistics().received == 10
    other = Pair(changed[0], bob, draw)
    other.ticks(0.2)
    assert other.one.statistics().received == other.two.statistics().received == 0


def test_nobody_takes_an_ssrc_twice_under_one_key(alice: Leg) -> None:
    """Sessions of one conference send under one key: the same SSRC would repeat a keystream."""
    drawn = itertools.count()
    ssrcs = Ssrcs()

    def draw(octets: int) -> bytes:
        """Nine draws are three streams of one SSRC."""
        return (next(drawn) // 9).to_bytes(octets, "big")

    links = [Link(alice, draw, now=0.0, ssrcs=ssrcs, packets_max=1) for _ in range(2)]
    sent = [links[0].packets(TONE, 0.0)[-1], links[1].packets(TONE, 0.0)[-1], links[1].packets(TONE, 0.0)[-1]]
    assert len({packet[8:12] for packet in sent}) == 3
    taken = Ssrcs()
    assert [taken.take(ssrc) for ssrc in (*range(10_000), 9_999)] == [True] * 10_000 + [False]
    assert len(taken._drawn) <= 4096


def test_a_keys_lifetime_counts_from_its_renewal(pair: Pair) -> None:
    """A second renewal leaves the first one's key its own end, not the last one's."""
    pair.two.renew(RenewMedia(run(pair.bob, 2, lifetime_s=1), overlap_s=5), pair.now)
    pair.two.renew(RenewMedia(run(pair.bob, 3), overlap_s=5), pair.now)
    pair.one.renew(RenewMedia(run(pair.alice, 2), speak_within_s=0), pair.now)
    pair.ticks(0.9)
    assert pair.two.statistics().refused == 0
    pair.ticks(0.2)
    assert pair.two.statistics().refused > 0


def test_a_renewal_keeps_the_delay_that_there_was(pair: Pair) -> None:
    """Packets that were held up at first play later than others; those under the next key do so as well."""
    sounds = iter(range(600, 32_000, 1000))
    heard: list[int] = []

    def tick() -> None:
        pair.now += PACKET_S
        for datagram in pair.one.packets(np.full(160, next(sounds), np.int16), pair.now):
            pair.two.take(datagram, pair.now)
        heard.append(int(pair.two.pull()[80]))

    for _ in range(10):
        tick()
    voice = pair.two._incoming._voice
    assert voice is not None
    voice.playout._waits = 2  # another 40 ms
    for n in (2, 3):
        pair.two.renew(RenewMedia(run(pair.bob, n)), pair.now)
        pair.one.renew(RenewMedia(run(pair.alice, n), speak_within_s=0), pair.now)
        for _ in range(10):
            tick()
    steps = np.diff([sound for sound in heard if sound])
    assert np.all(steps >= 0)
    assert np.all(steps < 2500)  # nothing is summed up
    assert heard[12:].count(0) == 0
