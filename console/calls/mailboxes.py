"""`otway mailbox`: asks a UE host what is in its user's mailbox, to play a message, or to have it deleted.

    command -> UE host   ListMessages, PlayMessage, DeleteMessage
    UE host -> command   reports that carry the request, and what was heard

The host fetches the key and opens the message (agents/handset/collecting.py); the command holds no key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from console.calls.switchboard import NotDone, Switchboard, switchboard
from console.mistakes import Mistake
from console.operating.showing import utc
from console.settings import Settings
from media.pcm import Pcm
from protocol.sealing import Random
from storage.users_file import Device
from topics.catalogue import REPORTS, ue_inbox, ue_sounds
from topics.messages import DeleteMessage, ListMessages, Message, PlayMessage, Report, ReportEvent

_LISTED_WITHIN_S: Final = 8.0
_DONE_WITHIN_S: Final = 120.0
_SOUND_WITHIN_S: Final = 10.0
_OVER: Final = (ReportEvent.COLLECTED, ReportEvent.FAILED)


class Direction(StrEnum):
    """Which way a message went."""

    RECEIVED = "received"
    LEFT = "left"


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A message for this user, or one that this device has left for somebody."""

    message: str  # C in hexadecimal
    direction: Direction
    caller: str
    callee: str
    left_at: int | None  # as the mailbox says, until it is fetched; seconds since 1970 UTC
    kept_until: int | None
    packets: int | None
    collected: bool  # by this device, though the mailbox still has it

    def line(self) -> str:
        """For a terminal."""
        received = self.direction is Direction.RECEIVED
        who = f"from {self.caller}" if received else f"left for {self.callee}"
        left = "" if self.left_at is None else f"  {utc(self.left_at)}"
        size = "" if self.packets is None else f"  {self.packets} packets"
        until = "" if self.kept_until is None else f"  until {utc(self.kept_until)}"
        until += "  (collected)" if self.collected else ""
        return f"{self.message[:8]}  {who}{left}{size}{until}"


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message that was asked for."""

    message: str
    caller: str
    callee: str
    heard: bool
    whole: bool | None  # None: it was not heard
    left_at: int | None  # as the KMS says
    packets: int | None
    deleted: bool
    problem: str | None

    def line(self) -> str:
        """For a terminal."""
        said = [f"message {self.message[:8]} of {self.caller}"]
        if self.heard:
            said.append(f"heard, {self.packets} packets, left {utc(self.left_at or 0)}")
        if self.whole is False:
            said.append("perhaps not to its end, so it stays in the mailbox")
        if self.deleted:
            said.append("deleted")
        if self.problem:
            said.append(f"problem: {self.problem}")
        return ": ".join((said[0], "; ".join(said[1:])))


@dataclass(frozen=True, slots=True)
class Mailboxes:
    """The mailbox of one user, as one device of hers sees it."""

    device: Device
    settings: Settings
    random: Random

    async def listed(self) -> list[Listed]:
        """All messages, the oldest first. Raises NotDone, BusUnavailable, BusRefused."""
        async with switchboard(self.settings.kafka_settings, [REPORTS], _nothing) as board:
            return await self._list(board)

    async def play(self, message: str | None, *, keep: bool) -> tuple[Played, Pcm | None]:
        """The message whose name begins so, the oldest if none is named; and its sound.

        Raises Mistake, NotDone, BusUnavailable, BusRefused.
        """
        topics = [REPORTS, ue_sounds(self.device.host)]
        async with switchboard(self.settings.kafka_settings, topics, _nothing) as board:
            found = _choose(await self._list(board), message, received=True)
            request, call = self.random(16), bytes.fromhex(found.message)
            wish = PlayMessage(
                request=request, to=self.device.impi, caller=found.caller, call=call, keep=keep
            )
            await board.say(ue_inbox(self.device.host), self.device.impi, wish)
            over = _OVER if not keep else (*_OVER, ReportEvent.HEARD)
            played = await self._done(board, found, request, over)
            if played.heard:
                await board.until(lambda: (self.device.impi, call) in board.heard, _SOUND_WITHIN_S)
            return played, board.heard.get((self.device.impi, call))

    async def delete(self, message: str) -> Played:
        """Have a message deleted, one for this user or one that this device has left.

        Raises Mistake, NotDone, BusUnavailable, BusRefused.
        """
        async with switchboard(self.settings.kafka_settings, [REPORTS], _nothing) as board:
            found = _choose(await self._list(board), message, received=False)
            request, call = self.random(16), bytes.fromhex(found.message)
            wish = DeleteMessage(request=request, to=self.device.impi, caller=found.caller, call=call)
            await board.say(ue_inbox(self.device.host), self.device.impi, wish)
            return await self._done(board, found, request, _OVER)

    async def _list(self, board: Switchboard) -> list[Listed]:
        request = self.random(16)
        question = ListMessages(request=request, to=self.device.impi)
        await board.say(ue_inbox(self.device.host), self.device.impi, question)
        if not await board.until(lambda: _reports(board, request, ReportEvent.LISTED), _LISTED_WITHIN_S):
            problem = "is it running, and is the mailbox? `otway status` tells"
            raise NotDone(f"the UE host {self.device.host} does not say what there is: {problem}")
        [listed, *_] = _reports(board, request, ReportEvent.LISTED)
        if listed.reason is not None:
            raise NotDone(f"the mailbox does not say what it has for {self.device.identity}: {listed.reason}")
        told = _reports(board, request, ReportEvent.WAITING, ReportEvent.LEFT)
        by_name = {report.call: _listed(report) for report in told if report.call is not None}
        return sorted(by_name.values(), key=lambda each: each.left_at or 0)

    async def _done(
        self, board: Switchboard, found: Listed, request: bytes, over: tuple[ReportEvent, ...]
    ) -> Played:
        """What the reports say of it, once it is over."""

        def is_over() -> bool:
            heard = _reports(board, request, ReportEvent.HEARD)
            cut_short = any(report.whole is False for report in heard)  # such a message stays where it is
            return cut_short or bool(_reports(board, request, *over))

        if not await board.until(is_over, _DONE_WITHIN_S):
            raise NotDone(f"message {found.message[:8]} was neither heard nor deleted: see `otway status`")
        heard = next(iter(_reports(board, request, ReportEvent.HEARD)), None)
        failed = next(iter(_reports(board, request, ReportEvent.FAILED)), None)
        return Played(
            message=found.message,
            caller=found.caller,
            callee=found.callee,
            heard=heard is not None,
            whole=heard.whole if heard else None,
            left_at=heard.left_at if heard else None,
            packets=heard.packets if heard else None,
            deleted=bool(_reports(board, request, ReportEvent.COLLECTED)),
            problem=(failed.reason or "failed") if failed else None,
        )


def _choose(listed: list[Listed], message: str | None, *, received: bool) -> Listed:
    """The one message that is meant. Raises Mistake."""
    there = [each for each in listed if each.direction is Direction.RECEIVED or not received]
    if message is None:
        found = [each for each in there if not each.collected]
    else:
        found = [each for each in there if each.message.startswith(message.lower())]
    if not found:
        raise Mistake("there is no message" if message is None else f"there is no message {message!r}")
    if message is not None and len(found) > 1:
        raise Mistake(f"{len(found)} messages begin with {message!r}: give more of the name")
    return found[0]


def _listed(report: Report) -> Listed:
    assert report.call is not None
    return Listed(
        message=report.call.hex(),
        direction=Direction.LEFT if report.event is ReportEvent.LEFT else Direction.RECEIVED,
        caller=report.caller or "",
        callee=report.callee or "",
        left_at=report.left_at,
        kept_until=report.until,
        packets=report.packets,
        collected=report.reason == "collected",
    )


def _reports(board: Switchboard, request: bytes, *events: ReportEvent) -> list[Report]:
    return [report for report in board.reports if report.request == request and report.event in events]


def _nothing(_topic: str, _message: Message) -> None:
    """Reports and sounds are all that is wanted."""
