"""Eight members on two hosts talk while members come and go and the focus is killed; what a leaver could
still decrypt, by trying.

TALK_S in the environment: for so many seconds; 120 is the form of which docs/operations.md has the figures.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import pytest

from chaos.lab import FOCUS
from media.leg import Leg
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import tone
from tests.cluster.cluster import USERS, Cluster
from tests.cluster.own_host import OwnHost, own_host
from tests.cluster.talk import Attendance, Talk, come_and_go, talking
from tests.cluster.tried import Tried, tried
from tests.cluster.wire import Bridge, caught, needs_root
from topics.messages import ConferenceEvent

pytestmark = pytest.mark.cluster

TALK_S: Final = float(os.environ.get("TALK_S", "40"))
KILLED_AFTER_S: Final = 15.0  # what a host hands back of a sound is its first minute
GONE_WITHIN_S: Final = 1.0
STAYING: Final = ("alice", "carol", "bob", "frank", "trudy")
GOING: Final = ("dave", "erin", "grace", "heidi", "mallory", "oscar")
OWN: Final = "mallory"  # the host in this process
HERTZ: Final = {name: 310 + 139 * number for number, name in enumerate(itertools.chain(*USERS.values()))}
WINDOW: Final = SAMPLE_HZ // 20  # samples that are looked at at a time
STEP: Final = WINDOW // 2
STEP_S: Final = STEP / SAMPLE_HZ
LEVEL: Final = 1_000  # of each in the mix
IDENTITIES: Final = (FOCUS, *(f"sip:{name}@ims.example" for name in HERTZ))


@pytest.fixture
async def spare(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Two focuses; one afterwards, whatever became of them."""
    needs_root()
    await asyncio.to_thread(cluster.scale, conference=2)
    yield cluster
    await asyncio.to_thread(cluster.scale, conference=1)
    await cluster.shared_out("conference", instances=1)


async def test_who_leaves_hears_no_more_and_who_stays_hears_the_others(
    spare: Cluster, measured: Callable[[str], None]
) -> None:
    assert await spare.shared_out("conference", instances=2) == [6, 6]
    bridge = Bridge.of(spare)
    names = {container[:12]: spare.address(container) for container in spare.containers("conference")}
    async with (
        own_host(spare, OWN, address=bridge.gateway, names=names, sound=says) as host,
        talking(spare) as talk,
    ):
        sounds = {name: await given(talk, name) for name in HERTZ}
        came = await asyncio.gather(*(talk.join(name, sounds[name]) for name in STAYING))
        joined = dict(zip(STAYING, came, strict=True))
        with caught(bridge) as packets:
            times = await talked(spare, talk, host, sounds)
        ends = {name: await talk.leave(name, about) for name, about in joined.items() if about is not None}
        assert len(ends) == len(STAYING)
        heard = {
            name: host.heard[end.device.impi][-1] if name == "trudy" else await talk.heard(end)
            for name, end in ends.items()
        }
    found = tried(packets, held_by(host), IDENTITIES)
    hearing = [judge_sound(heard[name], end, times) for name, end in ends.items()]
    judge_leaves(talk, found, times, measured)
    gaps = [gap for each in hearing for gap in each.gaps_s]
    measured(
        f"conference: who stays hears all others that do {min(each.whole for each in hearing):.1%} of the "
        f"time or more, and not one of them for {share(gaps, 0.5):.3f} s at the median of {len(gaps)} gaps, "
        f"{share(gaps, 0.99):.3f} s at p99; for {max(each.missing_s for each in hearing):.1f} s when the "
        f"focus is killed"
    )


@dataclass(frozen=True)
class Times:
    """Of a talk, in seconds since 1970 UTC."""

    began: float  # all who stay are in
    killed: float
    taken_over: float


async def talked(cluster: Cluster, talk: Talk, host: OwnHost, sounds: Mapping[str, bytes | None]) -> Times:
    """Members come and go, and the focus that mixes is killed once."""
    over, draw, began = asyncio.Event(), random.Random(6), time.time()
    async with asyncio.TaskGroup() as going:
        for name in GOING:
            stays_s = [draw.uniform(1.5, 4.5) for _ in range(7)]
            going.create_task(come_and_go(talk, name, stays_s, over, sounds[name]))
        await asyncio.sleep(KILLED_AFTER_S)  # so long they talk before
        killed = time.time()
        await asyncio.to_thread(cluster.docker, "kill", "-s", "KILL", host.peer)
        taken_over = await talk.until_told(ConferenceEvent.TAKEN_OVER, killed)
        await asyncio.sleep(began + TALK_S - time.time())  # so long they talk in all
        over.set()
    return Times(began, killed, taken_over)


def held_by(host: OwnHost) -> dict[int, Leg]:
    """The key of each epoch, as the handsets of this process have got it: all the same."""
    held: dict[int, Leg] = {}
    for legs in host.legs.values():
        for epoch, leg in legs.items():
            assert leg.root == held.setdefault(epoch, leg).root
    return held


def judge_leaves(talk: Talk, found: Tried, times: Times, measured: Callable[[str], None]) -> None:
    """Who has left can decrypt nothing after a second. What others than those of this process have held is
    known by the epochs that they have told of."""
    assert found.opened > 50 * TALK_S * len(STAYING)
    assert found.unopened < found.opened / 100, "the keys that are tried are those that are used"
    took: dict[str, list[float]] = {"held": [], "sent": [], "meanwhile": []}
    for each in talk.over(GOING):

        def last_of(epochs: frozenset[int], left: Attendance = each) -> float:
            return found.last(epochs, after=left.said_at, not_of=left.device.identity) - left.said_at

        meanwhile = each.said_at < times.taken_over and each.said_at + last_of(each.held) > times.killed
        took["meanwhile" if meanwhile else "held"].append(last_of(each.held))
        if not meanwhile:
            took["sent"].append(last_of(each.held | talk.granted_after(each)))
    measured(
        f"conference: {TALK_S:g} s, {len(talk.rosters)} epochs, {found.opened} packets tried; "
        f"from leave to the last packet that the leaver could decrypt: {told(took['held'])}"
    )
    measured(f"conference: ... with what was still sealed for it, had it looked: {told(took['sent'])}")
    measured(
        f"conference: the focus killed, another mixes {times.taken_over - times.killed:.1f} s later; "
        f"who left meanwhile could decrypt for {', '.join(f'{t:.1f}' for t in sorted(took['meanwhile']))} s"
    )
    assert len(took["held"]) > TALK_S / 4
    part = 0.99 if len(took["held"]) >= 100 else 0.9  # of few, the 99th percentile is the worst
    assert share(took["held"], part) < GONE_WITHIN_S


@dataclass(frozen=True)
class Hearing:
    """How one member heard all others that stay."""

    whole: float  # the share of the time in which all of them were there, but for when the focus was killed
    gaps_s: list[float]  # without one of them or more, in that time
    missing_s: float  # the longest such time when it was killed


def judge_sound(sound: Pcm, end: Attendance, times: Times) -> Hearing:
    """All others that stay are heard, before and after the focus was killed, and never oneself."""
    name = end.device.impi.partition("-")[0]
    others = [each for each in STAYING if each != name]
    loud = levels(sound)
    at = end.joined_at + np.arange(loud.shape[1]) * STEP_S
    named = list(HERTZ)
    there = loud[[named.index(each) for each in others]] > LEVEL / 2
    whole = np.all(there, axis=0)
    assert isinstance(whole, np.ndarray)
    last = min(at[-1], end.said_at)
    parts = [(at > times.began + 2) & (at < times.killed - 1), (at > times.taken_over + 3) & (at < last - 1)]
    for part in parts:
        assert part.sum() * STEP_S > 5
        assert there[:, part].mean(axis=1).min() > 0.7, f"{name} hears each of the others"
    assert np.median(loud[named.index(name)]) < LEVEL / 20, f"{name} hears no echo"
    gaps = [each * STEP_S for part in parts for each in runs(~whole[part])]
    meanwhile = whole[(at > times.killed - 1) & (at < times.taken_over + 3)]
    return Hearing(float(whole[parts[0] | parts[1]].mean()), gaps, max(runs(~meanwhile)) * STEP_S)


def says(identity: str) -> Pcm:
    """A tone of its own."""
    sound = tone(HERTZ[identity.removeprefix("sip:").partition("@")[0]], TALK_S + 60)
    return (sound * (LEVEL / 12_000)).astype(np.int16)


async def given(talk: Talk, name: str) -> bytes | None:
    """The name of the user's tone at its host, which has it now; None: the host is in this process."""
    device = talk.devices[name]
    if device.host == OWN:
        return None
    about = os.urandom(16)
    await talk.board.hand_over(device.host, about, says(device.identity))
    return about


def levels(sound: Pcm) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """How loud each one's tone is, as an amplitude: a row for each in the order of HERTZ, a column a STEP."""
    windows = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float64), WINDOW)[::STEP]
    time_s = np.arange(WINDOW) / SAMPLE_HZ
    waves = np.exp(-2j * np.pi * np.outer(time_s, list(HERTZ.values()))) * np.hanning(WINDOW)[:, None]
    found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = 4 * np.abs(windows @ waves).T / WINDOW
    return found


def runs(true: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[int]:
    """The lengths of those in a row; [0] where there are none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], true, [False]]).astype(int)))
    return list(map(int, edges[1::2] - edges[::2])) or [0]


def share(values: Sequence[float], part: float) -> float:
    """The least value that so many of them do not exceed."""
    return sorted(values)[ceil(part * len(values)) - 1]


def told(values: Sequence[float]) -> str:
    """For a person."""
    return (
        f"p50 {share(values, 0.5):.2f} s, p99 {share(values, 0.99):.2f} s, max {max(values):.2f} s "
        f"of {len(values)} leaves"
    )
