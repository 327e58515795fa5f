"""A conference while a test breaks it: who is asked to come and go, and what is told of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from chaos.lab import FOCUS
from console.calls.switchboard import Switchboard, switchboard
from media.pcm import Pcm
from storage.users_file import Device, read_directory
from tests.cluster.cluster import Cluster
from topics.catalogue import REPORTS, ue_inbox, ue_sounds
from topics.messages import (
    ConferenceEvent,
    ConferenceReport,
    JoinConference,
    LeaveConference,
    Message,
    Report,
    ReportEvent,
)

_DONE_WITHIN_S: Final = 45.0  # a handset gives up after 32 s
_OUT: Final = frozenset({ReportEvent.LEFT_CONFERENCE, ReportEvent.FAILED})


@dataclass(frozen=True, slots=True)
class Attendance:
    """A device was in, from when it said so until it was told to leave. Times in seconds since 1970 UTC."""

    device: Device
    call: bytes
    joined_at: float
    said_at: float  # the wish to leave
    held: frozenset[int]  # the epochs that it has told of, by when it was out


@dataclass
class Talk:
    """One conference."""

    board: Switchboard
    devices: dict[str, Device]
    """By the user's name."""
    group: bytes = b""
    told: list[tuple[float, ConferenceReport]] = field(default_factory=list)
    """What the focus has told, and when that was read."""
    attendances: list[Attendance] = field(default_factory=list)
    """Those that are over."""
    _answers: dict[bytes, list[Report]] = field(default_factory=lambda: defaultdict(list))
    _epochs: dict[tuple[str, bytes | None], set[int]] = field(default_factory=lambda: defaultdict(set))

    def note(self, message: Message) -> None:
        """What was read on the bus."""
        match message:
            case ConferenceReport() if message.group == self.group:
                self.told.append((time.time(), message))
            case Report(request=bytes(request)):
                self._answers[request].append(message)
                if message.epoch is not None:
                    self._epochs[message.device, message.call].add(message.epoch)
            case _:
                pass

    async def join(self, name: str, sound: bytes | None = None) -> tuple[Report, float] | None:
        """How it came in, and when that was read; None: it did not."""
        device, request = self.devices[name], os.urandom(16)
        wish = JoinConference(request=request, to=device.impi, group=self.group, focus=FOCUS, sound=sound)
        await self.board.say(ue_inbox(device.host), device.impi, wish)
        told = await self._answer(request, _OUT | {ReportEvent.JOINED})
        return (told, time.time()) if told.event is ReportEvent.JOINED else None

    async def leave(self, name: str, joined: tuple[Report, float]) -> Attendance:
        """It wants to be out, and is."""
        device, request = self.devices[name], os.urandom(16)
        wish = LeaveConference(request=request, to=device.impi, group=self.group, focus=FOCUS)
        said_at = time.time()
        await self.board.say(ue_inbox(device.host), device.impi, wish)
        await self._answer(request, _OUT)
        about, since = joined
        assert about.call is not None
        held = frozenset(self._epochs[device.impi, about.call])
        attendance = Attendance(device, about.call, since, said_at, held)
        self.attendances.append(attendance)
        return attendance

    async def heard(self, attendance: Attendance) -> Pcm:
        """What a device in a container has handed back."""
        about = (attendance.device.impi, attendance.call)
        assert await self.board.until(lambda: about in self.board.heard, _DONE_WITHIN_S), about
        return self.board.heard[about]

    async def until_told(self, event: ConferenceEvent, since: float) -> float:
        """When the focus has told of this, after that time."""

        def moments() -> list[float]:
            return [at for at, message in self.told if message.event is event and at >= since]

        assert await self.board.until(moments, _DONE_WITHIN_S), event
        return moments()[0]

    @property
    def rosters(self) -> dict[int, tuple[str, ...]]:
        """Of each epoch."""
        return {
            message.epoch: message.roster
            for _, message in self.told
            if message.event is ConferenceEvent.EPOCH
        }

    def over(self, names: Collection[str]) -> list[Attendance]:
        """The attendances of these users that are over."""
        mine = {self.devices[name].impi for name in names}
        return [each for each in self.attendances if each.device.impi in mine]

    def granted_after(self, attendance: Attendance) -> frozenset[int]:
        """The epochs whose key the KMS has sealed for it after the last one that it took, since its leave had
        not come by."""
        later = [
            min(each.held)
            for each in self.attendances
            if each.device == attendance.device and each.joined_at > attendance.joined_at
        ]
        rosters, found = self.rosters, set[int]()
        epoch = max(attendance.held) + 1
        while attendance.device.identity in rosters.get(epoch, ()) and epoch < min(later, default=epoch + 1):
            found.add(epoch)
            epoch += 1
        return frozenset(found)

    async def _answer(self, request: bytes, events: frozenset[ReportEvent]) -> Report:
        def answers() -> list[Report]:
            return [report for report in self._answers[request] if report.event in events]

        assert await self.board.until(answers, _DONE_WITHIN_S), "no answer to a wish"
        return answers()[0]


@asynccontextmanager
async def talking(cluster: Cluster) -> AsyncIterator[Talk]:
    """A conference that nobody is in yet."""
    directory = read_directory(cluster.secrets / "operator" / "directory.toml")
    devices = {device.identity.removeprefix("sip:").partition("@")[0]: device for device in directory}
    topics = [REPORTS, ue_sounds("alice"), ue_sounds("bob")]
    async with switchboard(cluster.kafka("operator"), topics, lambda _, message: talk.note(message)) as board:
        talk = Talk(board, devices)
        talk.group = bytes.fromhex((await cluster.otway("conference", "create")).strip())
        yield talk


async def come_and_go(
    talk: Talk, name: str, stays_s: list[float], until: asyncio.Event, sound: bytes | None = None
) -> None:
    """In and out, staying and staying away for these times in turn, until told so; out in the end."""
    turn = 0
    while not until.is_set():
        joined = await talk.join(name, sound)
        await _wait(until, stays_s[turn % len(stays_s)])
        if joined is not None:
            await talk.leave(name, joined)
        turn += 1
        await _wait(until, stays_s[turn % len(stays_s)] / 2)


async def _wait(until: asyncio.Event, seconds: float) -> None:
    """That long, or until it is set."""
    try:
        async with asyncio.timeout(seconds):
            await until.wait()
    except TimeoutError:
        pass
