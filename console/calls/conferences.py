"""`otway conference`: asks a focus to begin, show or end a conference, and handsets to go in or out.

    command -> focus     CreateConference, ShowConference, RemoveMember, EndConference
    command -> UE host   JoinConference, LeaveConference
    focus, UE hosts -> command   reports

It holds no key: who is in decides the KMS, by the token of each handset (agents/handset/attending.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agents.handset.attending import NOT_IN
from console.calls.switchboard import NotDone, Switchboard, switchboard
from console.mistakes import Mistake
from console.operating.showing import utc
from console.settings import Settings
from media.pcm import Pcm
from protocol.sealing import Random
from storage.users_file import Device
from topics.catalogue import CONFERENCE, REPORTS, Topic, ue_inbox, ue_sounds
from topics.messages import (
    ConferenceEvent,
    ConferenceReport,
    CreateConference,
    EndConference,
    JoinConference,
    LeaveConference,
    Message,
    RemoveMember,
    Report,
    ReportEvent,
    ShowConference,
    Wire,
)

_ANSWERED_WITHIN_S: Final = 10.0  # by a focus; one that died is replaced within its session's time
_LOOKED_WITHIN_S: Final = 5.0
_BEGUN_WITHIN_S: Final = 10.0
_DONE_WITHIN_S: Final = 40.0  # a handset gives up after 32 s, and says so
_SOUND_WITHIN_S: Final = 10.0
_OUT: Final = frozenset({ReportEvent.LEFT_CONFERENCE, ReportEvent.FAILED})


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a conference stands, as its focus says."""

    group: str  # G in hexadecimal
    focus: str
    epoch: int  # 0: nobody has been in yet
    roster: tuple[str, ...]  # who holds the epoch's key, by the KMS
    in_use: tuple[str, ...]  # of them, who has taken this epoch
    speakers: tuple[str, ...]  # who is heard now, the loudest first
    instance: str | None  # which process mixes
    not_after: int | None  # of the epoch; seconds since 1970 UTC

    def lines(self) -> list[str]:
        """For a terminal."""
        until = "" if self.not_after is None else f" until {utc(self.not_after)}"
        mixer = f", mixed by {self.instance}" if self.instance else ""
        about = [f"conference {self.group} at {self.focus}: epoch {self.epoch}{until}{mixer}"]
        for identity in self.roster:
            notes = ["" if identity in self.in_use or identity == self.focus else "not yet in this epoch"]
            notes += ["mixes"] if identity == self.focus else []
            notes += ["speaks"] if identity in self.speakers else []
            about.append(f"  {identity:40} {', '.join(filter(None, notes))}".rstrip())
        return about if self.roster else [*about, "  nobody is in"]


class Attendance(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one handset that was asked to go in or out."""

    identity: str
    device: str
    joined: bool  # whether it is in now
    told: bool  # whether it has said so itself, by now
    epoch: int | None
    roster: tuple[str, ...]
    reason: str | None  # why it is out
    call: str | None  # names its attendance, as C in hexadecimal

    @property
    def left(self) -> bool:
        """Whether it has told that it is out."""
        return not self.joined and self.told

    def line(self) -> str:
        """For a terminal."""
        if not self.joined:
            return f"{self.device} {'is out' if self.told else 'may be in or out'}: {self.reason or 'left'}"
        return f"{self.device} is in, epoch {self.epoch}: {', '.join(self.roster)}"


@dataclass(slots=True)
class _Line:
    """A switchboard, and what focuses have told since it was opened."""

    board: Switchboard
    told: list[ConferenceReport] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Conferences:
    """The conferences of one focus. All methods raise NotDone, BusUnavailable, BusRefused."""

    focus: str
    settings: Settings
    random: Random

    async def create(self) -> bytes:
        """Begin one. Returns G."""
        group, request = self.random(16), self.random(16)
        async with self._line() as line:
            wish = CreateConference(group=group, focus=self.focus, request=request)
            await self._ask(line, group, wish)
            events = (ConferenceEvent.CREATED, ConferenceEvent.REFUSED)
            told = await self._answer(line, group, request, *events)
        if told.event is ConferenceEvent.REFUSED:
            raise NotDone(f"no conference was begun: {_why(told)}")
        return group

    async def show(self, group: bytes) -> Standing:
        """How it stands. Raises Mistake when there is none."""
        async with self._line() as line:
            return await self._standing(line, group, _ANSWERED_WITHIN_S)

    async def end(self, group: bytes) -> None:
        """Put everybody out. Raises Mistake when there is none."""
        request = self.random(16)
        async with self._line() as line:
            await self._ask(line, group, EndConference(group=group, focus=self.focus, request=request))
            await self._answer(line, group, request, ConferenceEvent.ENDED)

    async def remove(self, group: bytes, member: str) -> Standing:
        """Put this identity out. Returns how the conference stands without it. Raises Mistake when there is
        no such conference, or it is not in."""
        request = self.random(16)
        async with self._line() as line:
            standing = await self._standing(line, group, _ANSWERED_WITHIN_S)
            if member not in standing.roster:
                raise Mistake(f"{member} is not in the conference; `otway conference show` tells who is")
            wish = RemoveMember(group=group, focus=self.focus, member=member, request=request)
            await self._ask(line, group, wish)

            def gone() -> ConferenceReport | None:
                for report in line.told:
                    if report.group != group:
                        continue
                    if report.event is ConferenceEvent.REFUSED and report.request == request:
                        return report
                    later = report.event is ConferenceEvent.EPOCH and report.epoch > standing.epoch
                    if later and member not in report.roster:
                        return report
                return None

            if not await line.board.until(gone, _ANSWERED_WITHIN_S):
                raise NotDone(f"no epoch without {member} in {_ANSWERED_WITHIN_S:g} s: {_LOOK}")
            told = gone()
            assert told is not None
            if told.event is ConferenceEvent.REFUSED:
                raise NotDone(f"{member} is not put out: {_why(told)}")
            return await self._standing(line, group, _ANSWERED_WITHIN_S)

    async def join(self, group: bytes, devices: Sequence[Device], sound: Pcm | None) -> list[Attendance]:
        """Have these handsets go in, all at a time. sound: what they are to say; None: what their hosts say
        by themselves. Raises Mistake when there is no such conference."""
        hosts = list(dict.fromkeys(device.host for device in devices))
        async with self._line(*(map(ue_sounds, hosts) if sound is not None else ())) as line:
            await self._look(line, group)
            name = None if sound is None else self.random(16)
            if sound is not None and name is not None:
                for host in hosts:
                    await line.board.hand_over(host, name, sound)
            wishes = [
                JoinConference(
                    request=self.random(16), to=device.impi, group=group, focus=self.focus, sound=name
                )
                for device in devices
            ]
            for device, wish in zip(devices, wishes, strict=True):
                await line.board.say(ue_inbox(device.host), device.impi, wish)
            asked = {wish.request: device for wish, device in zip(wishes, devices, strict=True)}
            return await _all_told(line.board, asked, _OUT | {ReportEvent.JOINED})

    async def leave(self, group: bytes, device: Device, *, with_sound: bool) -> tuple[Attendance, Pcm | None]:
        """Have this handset go out. with_sound: wait for what it has heard, as well.

        Raises Mistake when there is no such conference, or it is not in."""
        async with self._line(*((ue_sounds(device.host),) if with_sound else ())) as line:
            standing = await self._look(line, group)
            if standing is not None and device.identity not in standing.roster:
                raise Mistake(
                    f"{device.identity} is not in the conference: `otway conference show` tells who is"
                )
            wish = LeaveConference(request=self.random(16), to=device.impi, group=group, focus=self.focus)
            await line.board.say(ue_inbox(device.host), device.impi, wish)
            [left] = await _all_told(line.board, {wish.request: device}, _OUT)
            if left.reason == NOT_IN:
                raise Mistake(f"{device.impi} is not in that conference")
            if not with_sound or left.call is None:
                return left, None
            about = (device.impi, bytes.fromhex(left.call))
            await line.board.until(lambda: about in line.board.heard, _SOUND_WITHIN_S)
            return left, line.board.heard.get(about)

    @asynccontextmanager
    async def _line(self, *topics: Topic) -> AsyncIterator[_Line]:
        told: list[ConferenceReport] = []

        def note(_topic: str, message: Message) -> None:
            if isinstance(message, ConferenceReport) and message.focus == self.focus:
                told.append(message)

        async with switchboard(self.settings.kafka_settings, [REPORTS, *topics], note) as board:
            yield _Line(board, told)

    async def _ask(self, line: _Line, group: bytes, message: Wire) -> None:
        await line.board.say(CONFERENCE, group.hex(), message)

    async def _answer(
        self,
        line: _Line,
        group: bytes,
        request: bytes,
        *events: ConferenceEvent,
        within_s: float = _ANSWERED_WITHIN_S,
    ) -> ConferenceReport:
        """The first report of one of these events that answers this request."""

        def answer() -> ConferenceReport | None:
            wanted = {*events, ConferenceEvent.UNKNOWN}
            mine = (each for each in line.told if each.request == request and each.event in wanted)
            return next(mine, None)

        if not await line.board.until(answer, within_s):
            raise NotDone(f"the focus {self.focus} does not answer in {within_s:g} s: {_LOOK}")
        told = answer()
        assert told is not None
        if told.event is ConferenceEvent.UNKNOWN:
            raise Mistake(f"there is no conference {group.hex()} at {self.focus}, or no longer")
        return told

    async def _standing(self, line: _Line, group: bytes, within_s: float) -> Standing:
        request = self.random(16)
        await self._ask(line, group, ShowConference(group=group, focus=self.focus, request=request))
        return _standing(await self._answer(line, group, request, ConferenceEvent.STANDS, within_s=within_s))

    async def _look(self, line: _Line, group: bytes) -> Standing | None:
        """The same before a handset is asked; None: the focus is silent, and the handset will see."""
        try:
            return await self._standing(line, group, _LOOKED_WITHIN_S)
        except NotDone:
            return None


_LOOK: Final = "does it run, and the KMS? `otway status` tells"


async def _all_told(
    board: Switchboard, asked: Mapping[bytes, Device], over: frozenset[ReportEvent]
) -> list[Attendance]:
    """What devices tell, in their order, once each has told how it ended. asked: by the wish's request.

    Raises NotDone when none of them tells anything."""

    def told(request: bytes, events: frozenset[ReportEvent] = frozenset(ReportEvent)) -> Report | None:
        found = (report for report in board.reports if report.request == request and report.event in events)
        return next(found, None)

    await board.until(lambda: all(told(request) for request in asked), _BEGUN_WITHIN_S)
    answering = [request for request in asked if told(request)]
    if not answering:
        hosts = ", ".join(dict.fromkeys(device.host for device in asked.values()))
        raise NotDone(f"nobody answers on {hosts}: does that UE host run? `otway status` tells")
    await board.until(lambda: all(told(request, over) for request in answering), _DONE_WITHIN_S)
    return [_attendance(device, told(request, over), told(request)) for request, device in asked.items()]


def _why(told: ConferenceReport) -> str:
    return told.reason or told.code or "refused"


def _standing(told: ConferenceReport) -> Standing:
    return Standing(
        group=told.group.hex(),
        focus=told.focus,
        epoch=told.epoch,
        roster=told.roster,
        in_use=told.in_use,
        speakers=told.speakers,
        instance=told.instance,
        not_after=told.not_after,
    )


def _attendance(device: Device, ended: Report | None, begun: Report | None) -> Attendance:
    """ended: how it was over, or in; begun: the first that was told."""
    silent = "the UE host does not answer" if begun is None else "no answer of the focus"
    last = ended or begun
    call = last.call if last else None
    return Attendance(
        identity=device.identity,
        device=device.impi,
        told=ended is not None,
        joined=ended is not None and ended.event is ReportEvent.JOINED,
        epoch=ended.epoch if ended else None,
        roster=ended.roster if ended else (),
        reason=silent if ended is None else ended.reason,
        call=None if call is None else call.hex(),
    )
