"""The simulator's media engines: keys over time, and who hears whom."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chaos.silent_media import SilentBridge, SilentMedia
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
from protocol.description import Flow, SrtpSuite
from protocol.secret import Secret
from protocol.transport import MediaAddress

LINES = {host: (MediaAddress(host, 1), MediaAddress(host, 2)) for host in ("a", "b", "t#1", "t#2")}


def leg(n: int, here: str, there: str, **changes: Any) -> Leg:
    made = Leg(
        session=f"{here} sip:a@x/00",
        line=0,
        root=Secret(bytes([n]) * 32),
        suite=SrtpSuite.AEAD_AES_256_GCM,
        codec="PCMU",
        local=f"sip:{here[0]}@x",
        remote=f"sip:{there[0]}@x",
        remote_address=LINES[there][0],
        media_line=0,
        n=n,
        flow=Flow.SENDRECV,
        lifetime_s=100,
    )
    return msgspec.structs.replace(made, **changes)


class Scene:
    """A world with nothing but media."""

    def __init__(self) -> None:
        self.time = 0.0
        self.told: list[tuple[float, str, object]] = []
        self.sessions: list[SilentMedia] = []
        self._count = itertools.count()
        self._events: list[tuple[float, int, Callable[[], object]]] = []

    def deliver(self, address: MediaAddress, packet: bytes) -> None:
        raise AssertionError((address, packet))

    def at(self, when: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._count), action))

    def tell(self, name: str, event: Any) -> None:
        self.told.append((self.time, name, event))

    def run_until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
        self.time = end

    def media(self, host: str) -> SilentMedia:
        media = SilentMedia(self, host, LINES[host])
        self.sessions.append(media)
        return media

    def bridge(self, instance: str) -> SilentBridge:
        bridge = SilentBridge(self, instance, LINES[instance])
        self.sessions.append(bridge.media)
        return bridge


@pytest.fixture
def scene() -> Scene:
    return Scene()


def history(media: SilentMedia) -> list[tuple[int, float, float | None]]:
    return [(opening.leg.n, opening.time, opening.closed) for opening in media.openings]


def test_a_renewal_keeps_both_keys_for_the_overlap(scene: Scene) -> None:
    a, b = scene.media("a"), scene.media("b")
    a.carry_out(OpenMedia(leg(0, "a", "b")))
    b.carry_out(OpenMedia(leg(0, "b", "a")))
    scene.run_until(50)
    b.carry_out(RenewMedia(leg(1, "b", "a")))
    scene.run_until(52)
    assert history(b) == [(0, 0, None), (1, 50, None)]
    a.carry_out(RenewMedia(leg(1, "a", "b"), speak_within_s=0))
    scene.run_until(120)
    assert history(b) == [(0, 0, 53), (1, 50, None)]
    assert history(a) == [(0, 0, 53), (1, 52, None)]
    assert not scene.told  # they hear each other all the time
    scene.run_until(200)
    told = [(when, host, type(event)) for when, host, event in scene.told if isinstance(event, MediaClosed)]
    assert told == [(150, "b", MediaClosed), (152, "a", MediaClosed)]
    assert history(b)[1] == (1, 50, 150)


def test_a_peer_that_does_not_renew_is_heard_until_its_key_ends(scene: Scene) -> None:
    a, b = scene.media("a"), scene.media("b")
    a.carry_out(OpenMedia(leg(0, "a", "b")))
    b.carry_out(OpenMedia(leg(0, "b", "a")))
    scene.run_until(50)
    b.carry_out(RenewMedia(leg(1, "b", "a")))
    scene.run_until(140)
    assert history(b) == [(0, 0, 100), (1, 50, None)]
    told = [(when, host, type(event)) for when, host, event in scene.told]
    assert sorted(told[:2], key=str) == [(100, "a", MediaClosed), (100, "b", MediaSilent)]


def test_after_a_leave_only_who_has_the_new_key_is_heard(scene: Scene) -> None:
    a, b = scene.media("a"), scene.media("b")
    a.carry_out(OpenMedia(leg(0, "a", "b")))
    b.carry_out(OpenMedia(leg(0, "b", "a")))
    b.carry_out(RenewMedia(leg(1, "b", "a"), speak_within_s=0.3, overlap_s=0))
    b.carry_out(RenewMedia(leg(1, "b", "a"), speak_within_s=0.3, overlap_s=0))  # a repeat changes nothing
    assert history(b) == [(0, 0, 0), (1, 0, None)]
    scene.run_until(30)
    silent = [host for _, host, event in scene.told if isinstance(event, MediaSilent)]
    assert silent == ["a", "b"]


def test_a_transcoder_that_has_moved_is_heard_at_its_new_lines_only(scene: Scene) -> None:
    a = scene.media("a")
    first, second = scene.bridge("t#1"), scene.bridge("t#2")
    inner = leg(0, "t#1", "a", bridge="c", session="call a")
    a.carry_out(OpenMedia(leg(0, "a", "t#1")))
    first.carry_out(OpenMedia(inner))
    assert first.bridge("c") == (inner,)
    scene.run_until(35)
    first.die()
    second.carry_out(OpenMedia(inner))
    scene.run_until(41)
    assert not scene.told  # a hears it, wherever it comes from
    a.carry_out(MoveMedia("a sip:a@x/00", LINES["t#2"][0]))
    scene.run_until(90)
    assert not scene.told
    a.carry_out(MoveMedia("a sip:a@x/00", LINES["t#1"][0]))
    scene.run_until(99)
    [(_, host, event)] = scene.told
    assert (host, event) == ("t#2", MediaSilent("call a"))


def test_a_bridge_tells_speakers_of_a_conference(scene: Scene) -> None:
    t = scene.bridge("t#1")
    for name in ("one", "two"):
        t.carry_out(OpenMedia(leg(1, "t#1", "a", bridge="room", session=name, group=bytes(16))))
    t.carry_out(OpenMedia(leg(1, "t#1", "a", bridge="other", session="three")))
    scene.run_until(5)
    t.carry_out(CloseMedia("one"))
    scene.run_until(8)
    told = [event for _, _, event in scene.told if isinstance(event, Speakers)]
    assert told == [Speakers("room", ("one",)), Speakers("room", ("two",))]
    with pytest.raises(AssertionError):
        t.carry_out(OpenStored(leg(1, "t#1", "a")))
