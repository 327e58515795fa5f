"""`otway call`: asks a UE host to call, shows the ladder as it happens, and brings back what each side heard.

    command -> caller's host   the sound to say (console/hosting/sound_desk.py), Dial, HangUp
    hosts   -> command         reports, and the sounds that were heard

When nobody answers and a mailbox does, what is said is a message left there. The command holds no key: it
needs an operator's rights, and the names of those who live there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from console.calls.ladder import Ladder, sender_of
from console.calls.switchboard import NotDone, Switchboard, switchboard
from console.operating.showing import utc
from console.settings import Settings
from media.pcm import Pcm
from protocol.sealing import Random
from protocol.transport import Statistics
from storage.users_file import Device
from topics.catalogue import CSCF, KMS, REPORTS, TRANSCODER, VOICEMAIL, ue_inbox, ue_sounds
from topics.messages import Dial, HangUp, Message, OfRun, Report, ReportEvent

DIALLED_WITHIN_S: Final = 10.0
SET_UP_WITHIN_S: Final = 130.0  # ringing, no-answer timer, the mailbox, and the end of the last repeat
END_WITHIN_S: Final = 5.0
CLEAR_WITHIN_S: Final = 40.0
_CAME_UP: Final = (ReportEvent.UP, ReportEvent.MAILBOX)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWish:
    """Who calls whom with what."""

    caller: Device
    callees: tuple[Device, ...]
    """The devices of the one who is called."""
    sound: Pcm
    """What the caller says."""
    seconds: float
    """How long to talk."""


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the call went, from the reports of both ends."""

    call: str
    caller: str
    callee: str
    set_up_ms: float  # from the wish to dial until the caller's report of it was read from the bus
    confirmed: bool  # by both ends
    transcoder: str | None  # that has listened in
    answered_by: str | None  # the device that confirmed it; None: a mailbox
    kept: int | None  # packets of a message that the mailbox has confirmed to have
    kept_until: int | None  # seconds since 1970 UTC
    ended: str
    statistics: dict[str, Statistics]  # by identity

    @property
    def good(self) -> bool:
        """It was up and confirmed by both ends, or a message was left."""
        return self.confirmed or bool(self.kept)


class Calling:
    """One call between two UE hosts that run somewhere."""

    def __init__(
        self, wish: CallWish, settings: Settings, *, random: Random, show: Callable[[str], None]
    ) -> None:
        """show: takes each line of the account as it happens."""
        self._wish = wish
        self._settings = settings.kafka_settings
        self._show = show
        self._request = random(16)
        self._sound = random(16)
        self._call: bytes | None = None
        self._passed: list[tuple[str, OfRun]] = []  # of these two users, before our call's name is known
        hosts = [wish.caller.host, "cscf", *(device.host for device in wish.callees), "kms"]
        hosts += ["voicemail", "transcoder"]
        self._ladder = Ladder(tuple(dict.fromkeys(hosts)))
        self.heard: dict[str, Pcm] = {}
        """What each device has heard, once the call is over."""

    async def run(self) -> CallOutcome:
        """Raises NotDone, BusUnavailable, BusRefused."""
        hosts = list(dict.fromkeys(device.host for device in (self._wish.caller, *self._wish.callees)))
        network = [CSCF, KMS, VOICEMAIL, TRANSCODER]
        topics = [REPORTS, *network, *map(ue_inbox, hosts), *map(ue_sounds, hosts)]
        async with switchboard(self._settings, topics, self._read) as board:
            return await self._talk(board)

    async def _talk(self, board: Switchboard) -> CallOutcome:
        wish, caller = self._wish, self._wish.caller
        await board.hand_over(caller.host, self._sound, wish.sound)
        self._show(self._ladder.head())
        began = time.perf_counter()
        callee = wish.callees[0].identity
        dial = Dial(request=self._request, to=caller.impi, callee=callee, sound=self._sound)
        await board.say(ue_inbox(caller.host), caller.impi, dial)
        if not await board.until(
            lambda: self._call or self._mine(board, ReportEvent.ENDED), DIALLED_WITHIN_S
        ):
            raise NotDone(f"the UE host {caller.host} does not answer: is it running? `otway status` tells")
        if not await board.until(lambda: self._mine(board, *_CAME_UP, ReportEvent.ENDED), SET_UP_WITHIN_S):
            raise NotDone("the call neither came up nor ended")
        up = self._mine(board, *_CAME_UP)
        if up is None or up.call is None or up.caller is None:
            ended = self._mine(board, ReportEvent.ENDED)
            raise NotDone(f"the call did not come up: {ended.reason if ended else 'no answer'}")
        set_up_ms = 1000 * (time.perf_counter() - began)
        answered = "up" if up.event is ReportEvent.UP else _mailbox_says(up)
        self._show(self._ladder.note(f"{answered} after {set_up_ms:.0f} ms"))
        await board.until(lambda: self._mine(board, ReportEvent.ENDED), wish.seconds)
        hang_up = HangUp(to=caller.impi, caller=up.caller, call=up.call)
        await board.say(ue_inbox(caller.host), caller.impi, hang_up)
        over = (ReportEvent.ENDED, ReportEvent.MEDIA)
        if not await board.until(
            lambda: all(self._told(board, event, caller.impi) for event in over), CLEAR_WITHIN_S
        ):
            raise NotDone("the call did not end")
        await self._last_words(board)
        return self._outcome(board, up, set_up_ms)

    async def _last_words(self, board: Switchboard) -> None:
        """What the ends hand back when all is over; without it the call was one all the same."""
        assert self._call is not None
        call, caller, callee = self._call, self._wish.caller.impi, self._answered_by(board)
        awaited: list[tuple[str, str, Callable[[], object]]] = [
            (caller, "handed back what it heard", lambda: (caller, call) in board.heard)
        ]
        if callee is not None:
            awaited += [
                (callee, "reported how it went", lambda: self._told(board, ReportEvent.MEDIA, callee)),
                (callee, "handed back what it heard", lambda: (callee, call) in board.heard),
            ]
        for device, what, there in awaited:
            if not await board.until(there, END_WITHIN_S):
                self._show(f"{device} has not {what}")
        self.heard = {device: pcm for (device, about), pcm in board.heard.items() if about == call}

    def _outcome(self, board: Switchboard, up: Report, set_up_ms: float) -> CallOutcome:
        ended, left = (self._mine(board, event) for event in (ReportEvent.ENDED, ReportEvent.LEFT))
        callee = self._answered_by(board)
        transcoded = self._told(board, ReportEvent.TRANSCODED, self._wish.caller.impi)
        assert up.call is not None
        return CallOutcome(
            call=up.call.hex(),
            caller=self._wish.caller.identity,
            callee=self._wish.callees[0].identity,
            set_up_ms=round(set_up_ms, 1),
            confirmed=callee is not None,
            transcoder=transcoded.transcoder if transcoded else None,
            answered_by=callee,
            kept=left.packets if left else None,
            kept_until=up.until,
            ended=(ended.reason if ended else None) or "",
            statistics={
                identity: report.statistics
                for identity, device in (
                    (self._wish.caller.identity, self._wish.caller.impi),
                    (self._wish.callees[0].identity, callee),
                )
                if device is not None
                and (report := self._told(board, ReportEvent.MEDIA, device))
                and report.statistics
            },
        )

    def _read(self, topic: str, message: Message) -> None:
        """Shows this call's messages as they come by."""
        match message:
            case Report() if message.request == self._request and message.call and self._call is None:
                self._call = message.call
                passed, self._passed = self._passed, []
                for earlier, of_run in passed:
                    self._pass(earlier, of_run)
            case OfRun() if self._is_of_these_two(message):
                self._pass(topic, message)
            case _:
                pass

    def _pass(self, topic: str, message: OfRun) -> None:
        """A message of these two users: drawn, once it is known to be of this call."""
        if self._call is None:
            self._passed.append((topic, message))
        elif message.call == self._call:
            receiver = topic.removeprefix("ims.").removeprefix("ue.")
            assert isinstance(message, Message)
            caller, callee = self._wish.caller.host, self._wish.callees[0].host
            sender = sender_of(receiver, message, caller=caller, callee=callee)
            line = self._ladder.hop(sender, receiver, message)
            if line is not None:
                self._show(line)

    def _is_of_these_two(self, message: OfRun) -> bool:
        wish = self._wish
        return (message.caller, message.callee) == (wish.caller.identity, wish.callees[0].identity)

    def _answered_by(self, board: Switchboard) -> str | None:
        """The device that has confirmed this call."""
        confirmed = (r for r in board.reports if r.event is ReportEvent.CONFIRMED and r.call == self._call)
        return next((report.device for report in confirmed), None)

    def _told(self, board: Switchboard, event: ReportEvent, device: str) -> Report | None:
        """The device's last report of this event in this call."""
        for report in reversed(board.reports):
            if (report.event, report.device, report.call) == (event, device, self._call):
                return report
        return None

    def _mine(self, board: Switchboard, *events: ReportEvent) -> Report | None:
        """The caller's first report of one of these events."""
        mine = (report for report in board.reports if report.request == self._request)
        return next((report for report in mine if report.event in events), None)


def _mailbox_says(report: Report) -> str:
    until = "" if report.until is None else f", and keeps it until {utc(report.until)}"
    return f"a mailbox takes a message ({report.reason}{until})"
