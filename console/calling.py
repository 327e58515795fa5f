"""`otway call`: asks a UE host to call, shows the ladder as it happens, and brings back what each side heard.

    command -> caller's host   the sound to say (console/sound_desk.py), Dial, HangUp
    hosts   -> command         reports, and the sounds that were heard

The command holds no key: it needs an operator's rights, and the names of those who live there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from console.ladder import Ladder, sender_of
from console.settings import Settings
from media.pcm import Pcm
from protocol.checks import Refused
from protocol.sealing import Random
from protocol.transport import Statistics
from storage.users_file import Device, UsersBroken
from topics.bus import Inbound
from topics.catalogue import CSCF, KMS, REPORTS, Topic, ue_inbox, ue_sounds
from topics.codec import decode, encode
from topics.kafka_admin import tail
from topics.kafka_clients import make_producer, started, translated
from topics.messages import Dial, HangUp, Message, OfRun, Report, ReportEvent, Sound, SoundUse, Wire
from topics.sounds import Gathering, take_apart

TAKEN_WITHIN_S: Final = 10.0
DIALLED_WITHIN_S: Final = 10.0
SET_UP_WITHIN_S: Final = 100.0  # ringing, no-answer timer and the end of the last repeat
END_WITHIN_S: Final = 5.0
CLEAR_WITHIN_S: Final = 40.0


class CallFailed(Exception):  # noqa: N818
    """The call came to nothing; the message says where it stopped and what to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWish:
    """Who calls whom with what."""

    caller: Device
    callee: Device
    sound: Pcm
    """What the caller says."""
    seconds: float
    """How long to talk."""


class CallOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the call went, from the reports of both ends."""

    call: str
    caller: str
    callee: str
    set_up_ms: float  # from the wish to dial until the caller's report of UP was read from the bus
    confirmed: bool
    ended: str
    statistics: dict[str, Statistics]  # by identity


def find(devices: tuple[Device, ...], who: str) -> Device:
    """The first device of a user: `alice`, `sip:alice@ims.example`, or an IMPI. Raises UsersBroken."""
    for device in devices:
        if who in {device.impi, device.identity, device.identity.removeprefix("sip:").partition("@")[0]}:
            return device
    known = ", ".join(list(dict.fromkeys(device.identity for device in devices))[:8])
    raise UsersBroken(f"nobody is called {who!r} in the directory; it has {known}")


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
        self._reports: list[Report] = []
        self._sounds = Gathering()
        self._kept = False
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._producer: Any = None
        self._ladder = Ladder(tuple(dict.fromkeys((wish.caller.host, "cscf", wish.callee.host, "kms"))))
        self.heard: dict[str, Pcm] = {}
        """What each device has heard, once the call is over."""

    async def run(self) -> CallOutcome:
        """Raises CallFailed, BusUnavailable, BusRefused."""
        hosts = list(dict.fromkeys((self._wish.caller.host, self._wish.callee.host)))
        topics = [REPORTS, CSCF, KMS, *map(ue_inbox, hosts), *map(ue_sounds, hosts)]
        async with AsyncExitStack() as closing:
            records = await closing.enter_async_context(
                tail(self._settings, [topic.name for topic in topics])
            )
            self._producer = await closing.enter_async_context(
                started(self._settings, make_producer(self._settings))
            )
            self._watching = asyncio.create_task(self._watch(records))
            self._watching.add_done_callback(lambda _: self._news.set())
            try:
                return await self._talk()
            finally:
                self._watching.cancel()
                await asyncio.gather(self._watching, return_exceptions=True)

    async def _talk(self) -> CallOutcome:
        wish, caller = self._wish, self._wish.caller
        await self._hand_over()
        self._show(self._ladder.head())
        began = time.perf_counter()
        dial = Dial(request=self._request, to=caller.impi, callee=wish.callee.identity, sound=self._sound)
        await self._send(ue_inbox(caller.host), caller.impi, dial)
        await self._until(
            lambda: self._call or self._mine(ReportEvent.ENDED),
            DIALLED_WITHIN_S,
            f"the UE host {caller.host} does not answer: is it running? `otway status` tells",
        )
        await self._until(
            lambda: self._mine(ReportEvent.UP) or self._mine(ReportEvent.ENDED),
            SET_UP_WITHIN_S,
            "the call neither came up nor ended",
        )
        up = self._mine(ReportEvent.UP)
        if up is None or up.call is None or up.caller is None:
            ended = self._mine(ReportEvent.ENDED)
            raise CallFailed(f"the call did not come up: {ended.reason if ended else 'no answer'}")
        set_up_ms = 1000 * (time.perf_counter() - began)
        self._show(self._ladder.note(f"up after {set_up_ms:.0f} ms"))
        await self._unless_ended(wish.seconds)
        await self._send(
            ue_inbox(caller.host), caller.impi, HangUp(to=caller.impi, caller=up.caller, call=up.call)
        )
        await self._until(
            lambda: self._told(ReportEvent.ENDED, caller) and self._told(ReportEvent.MEDIA, caller),
            CLEAR_WITHIN_S,
            "the call did not end",
        )
        await self._last_words()
        return self._outcome(up, set_up_ms)

    async def _hand_over(self) -> None:
        """Give the caller's host what is to be said."""
        host = self._wish.caller.host
        samples = self._wish.sound.astype("<i2").tobytes()
        for part in take_apart(SoundUse.SAY, self._sound, samples):
            await self._send(ue_sounds(host), self._sound, part)
        problem = f"the UE host {host} does not take the sound: is it running? `otway status` tells"
        await self._until(lambda: self._kept, TAKEN_WITHIN_S, problem)

    async def _unless_ended(self, seconds: float) -> None:
        """Talk for so long; less when the other end hangs up."""
        try:
            await self._until(lambda: self._mine(ReportEvent.ENDED), seconds, "")
        except CallFailed:
            return

    async def _last_words(self) -> None:
        """What the ends hand back when all is over; without it the call was one all the same."""
        wish = self._wish
        awaited: tuple[tuple[Device, str, Callable[[], object]], ...] = (
            (wish.callee, "reported how it went", lambda: self._told(ReportEvent.MEDIA, wish.callee)),
            (wish.callee, "handed back what it heard", lambda: wish.callee.impi in self.heard),
            (wish.caller, "handed back what it heard", lambda: wish.caller.impi in self.heard),
        )
        for device, what, there in awaited:
            try:
                await self._until(there, END_WITHIN_S, "")
            except CallFailed:
                self._show(f"{device.impi} has not {what}")

    def _outcome(self, up: Report, set_up_ms: float) -> CallOutcome:
        ended = self._mine(ReportEvent.ENDED)
        assert up.call is not None
        return CallOutcome(
            call=up.call.hex(),
            caller=self._wish.caller.identity,
            callee=self._wish.callee.identity,
            set_up_ms=round(set_up_ms, 1),
            confirmed=self._told(ReportEvent.CONFIRMED, self._wish.callee) is not None,
            ended=(ended.reason if ended else None) or "",
            statistics={
                device.identity: report.statistics
                for device in (self._wish.caller, self._wish.callee)
                if (report := self._told(ReportEvent.MEDIA, device)) and report.statistics
            },
        )

    async def _send(self, topic: Topic, key: str | bytes, message: Wire) -> None:
        octets = key.encode() if isinstance(key, str) else key
        with translated(self._settings):
            async with asyncio.timeout(self._settings.deadline_s):
                await self._producer.send_and_wait(topic.name, encode(message), key=octets, partition=0)

    async def _watch(self, records: AsyncIterator[Inbound]) -> None:
        """Shows this call's messages as they come by, and remembers reports and sounds."""
        async for record in records:
            try:
                message = decode(record.value)
            except Refused:
                continue
            match message:
                case Report():
                    self._note(message)
                case Sound(use=SoundUse.KEPT):
                    self._kept = self._kept or message.about == self._sound
                case Sound(use=SoundUse.HEARD) if message.about == self._call and message.device:
                    samples = self._sounds.add(message)
                    if samples is not None:
                        self.heard[message.device] = np.frombuffer(samples, "<i2").astype(np.int16)
                case OfRun() if self._is_of_these_two(message):
                    self._pass(record.topic, message)
                case _:
                    continue
            self._news.set()

    def _note(self, report: Report) -> None:
        self._reports.append(report)
        if report.request == self._request and report.call and self._call is None:
            self._call = report.call
            passed, self._passed = self._passed, []
            for topic, message in passed:
                self._pass(topic, message)

    def _pass(self, topic: str, message: OfRun) -> None:
        """A message of these two users: drawn, once it is known to be of this call."""
        if self._call is None:
            self._passed.append((topic, message))
        elif message.call == self._call:
            receiver = topic.removeprefix("ims.").removeprefix("ue.")
            assert isinstance(message, Message)
            caller, callee = self._wish.caller.host, self._wish.callee.host
            sender = sender_of(receiver, message, caller=caller, callee=callee)
            line = self._ladder.hop(sender, receiver, message)
            if line is not None:
                self._show(line)

    def _is_of_these_two(self, message: OfRun) -> bool:
        wish = self._wish
        return (message.caller, message.callee) == (wish.caller.identity, wish.callee.identity)

    def _told(self, event: ReportEvent, device: Device) -> Report | None:
        """The device's last report of this event in this call."""
        for report in reversed(self._reports):
            if (report.event, report.device, report.call) == (event, device.impi, self._call):
                return report
        return None

    def _mine(self, event: ReportEvent) -> Report | None:
        return next((r for r in self._reports if r.request == self._request and r.event is event), None)

    async def _until(self, true: Callable[[], object], within_s: float, otherwise: str) -> None:
        assert self._watching is not None
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    if self._watching.done():
                        self._watching.result()  # raises what ended it
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise CallFailed(otherwise) from None
