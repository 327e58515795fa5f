"""A call through a transcoder that is killed, renewed, and ended by whoever revokes a key id."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
import pytest

from console.calls.switchboard import Switchboard, switchboard
from media.likeness import spectral_likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import caller_sample
from media.wav import read_sound, write_wav
from protocol.names import NoticeKind
from tests.cluster.cluster import Cluster
from topics.catalogue import CSCF, ORDERS, REPORTS
from topics.messages import Message, Notice, Report, ReportEvent, Revoke

pytestmark = pytest.mark.cluster

TRANSCODER: Final = "sip:transcoder@ims.example"
CALLER, CALLEE = "dave-1@ims.example", "bob-1@ims.example"
LIFE_S: Final = 40  # of a key: it is renewed after half of it
BEFORE_S: Final = 6.0
AFTERWARDS_S: Final = 8.0
WITHIN_S: Final = 45.0
REVOKED_WITHIN_S: Final = 5.0
WINDOW: Final = SAMPLE_HZ // 5
SILENT: Final = 64  # of 32,767
M = TypeVar("M", bound=Message)


@dataclass
class Overheard:
    """What has passed on the bus, and when it was read, in seconds since 1970 UTC."""

    board: Switchboard
    passed: list[tuple[float, Message]] = field(default_factory=list)

    def all_of(self, kind: type[M], true: Callable[[M], bool]) -> list[tuple[float, M]]:
        return [(at, each) for at, each in self.passed if isinstance(each, kind) and true(each)]

    async def first(self, kind: type[M], true: Callable[[M], bool]) -> tuple[float, M]:
        """That of this kind."""
        assert await self.board.until(lambda: self.all_of(kind, true), WITHIN_S), kind
        return self.all_of(kind, true)[0]


@asynccontextmanager
async def overheard(cluster: Cluster) -> AsyncIterator[Overheard]:
    def note(_: str, message: Message) -> None:
        found.passed.append((time.time(), message))

    async with switchboard(cluster.kafka("operator"), [REPORTS, CSCF, ORDERS], note) as board:
        found = Overheard(board)
        yield found


@pytest.fixture
async def without_a_codec(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Bob speaks G.722 only, keys live for less than a minute, and there are two transcoders."""
    with cluster.changed({"BOB_CODECS": "G722", "LIFE_S": str(LIFE_S)}, "ue-bob", "kms"):
        await asyncio.to_thread(cluster.scale, transcoder=2)
        yield cluster
        await asyncio.to_thread(cluster.scale, transcoder=1)


async def test_a_transcoded_call_outlives_its_transcoder_and_ends_with_a_key_id(
    without_a_codec: Cluster, measured: Callable[[str], None]
) -> None:
    cluster, said = without_a_codec, np.resize(caller_sample(), 120 * SAMPLE_HZ)
    assert await cluster.shared_out("transcoder", instances=2) == [6, 6]
    write_wav(cluster.directory / "said.wav", said)
    arguments = (
        "call",
        "dave",
        "bob",
        "--wav",
        "said.wav",
        "--out",
        "transcoded",
        "--json",
        "--seconds",
        "110",
    )
    async with overheard(cluster) as bus:
        calling = asyncio.create_task(cluster.otway(*arguments, "--seconds", "110", expect=None))
        _, first = await bus.first(Notice, is_leg)
        await asyncio.sleep(BEFORE_S)  # so long they talk
        assert first.media is not None
        killed_host, killed = first.media.host, time.time()
        await asyncio.to_thread(cluster.docker, "kill", "-s", "KILL", killed_host)
        taken_over, _ = await bus.first(
            Notice,
            lambda notice: is_leg(notice) and notice.media is not None and notice.media.host != killed_host,
        )
        for device in (CALLER, CALLEE):
            await bus.first(Report, tells(device, ReportEvent.RENEWED))
        await bus.first(Notice, lambda notice: is_leg(notice) and notice.run > 0)
        await asyncio.sleep(AFTERWARDS_S)  # so long they talk on

        await cluster.otway("keys", "revoke", await key_of(cluster, CALLER))
        ordered, _ = await bus.first(Revoke, lambda _: True)
        ended = [(await bus.first(Report, tells(who, ReportEvent.ENDED)))[0] for who in (CALLER, CALLEE)]
        outcome = json.loads(await calling)
    assert (outcome["confirmed"], outcome["transcoder"]) == (True, TRANSCODER)
    assert outcome["ended"] == "revoked"
    revoked_s = max(ended) - ordered

    heard = read_sound(cluster.directory / "transcoded" / f"{CALLEE}-heard.wav")
    silent = [not window_is_loud(heard[at : at + WINDOW]) for at in range(0, heard.size, WINDOW)]
    alike = [
        spectral_likeness(part, said[: 15 * SAMPLE_HZ])
        for part in (heard[: int(5 * SAMPLE_HZ)], heard[-int(6 * SAMPLE_HZ) : -SAMPLE_HZ])
    ]
    measured(
        f"transcoder: killed, another's notices after {taken_over - killed:.1f} s, bob heard nothing for "
        f"{longest(silent) * WINDOW / SAMPLE_HZ:.1f} s; likeness of what he heard: {alike[0]:.2f} before, "
        f"{alike[1]:.2f} after; both ends hung up {revoked_s:.2f} s after the order that revoked a key id"
    )
    assert min(alike) > 0.7
    assert revoked_s < REVOKED_WITHIN_S


def is_leg(notice: Notice) -> bool:
    return notice.kind is NoticeKind.LEG


def tells(device: str, event: ReportEvent) -> Callable[[Report], bool]:
    """Whether it is this device's report of this."""
    return lambda report: (report.device, report.event) == (device, event)


async def key_of(cluster: Cluster, impi: str) -> str:
    """The key id that a device uses now."""
    listed = map(json.loads, (await cluster.otway("keys", "list", "--json")).splitlines())
    live = [each for each in listed if each["impi"] == impi and each["state"] == "live"]
    return str(max(live, key=lambda each: each["not_after"] or "")["key_id"])


def window_is_loud(sound: Pcm) -> bool:
    return bool(np.abs(sound.astype(np.int32)).max(initial=0) > SILENT)


def longest(true: list[bool]) -> int:
    """Of these in turn."""
    best = run = 0
    for each in true:
        run = run + 1 if each else 0
        best = max(best, run)
    return best
