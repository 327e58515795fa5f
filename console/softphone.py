"""`otway call`: the caller's handset in this process, on real servers, with the ladder as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import msgspec

from console.ladder import Ladder, sender_of
from console.roles import engine_settings
from console.settings import Settings
from console.ue_host import UeHost, UeHostSettings
from media.leg import Leg
from media.pcm import Pcm
from protocol.checks import Refused
from protocol.names import Suite
from protocol.profile import Profile
from protocol.sealing import Random
from protocol.transport import Statistics
from storage.users_file import Device, UsersBroken
from topics.bus import Inbound, Outbound
from topics.catalogue import CSCF, KMS, REPORTS, ue_inbox
from topics.codec import decode, encode
from topics.kafka import KafkaBus
from topics.kafka_admin import tail
from topics.messages import Dial, HangUp, Invite, Message, OfRun, Report, ReportEvent

REGISTER_WITHIN_S: Final = 30.0
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
    seconds: float
    suite: Suite = Suite.AES_256_GCM


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
    known = ", ".join(dict.fromkeys(device.identity for device in devices))
    raise UsersBroken(f"nobody is called {who!r} in the users file; it has {known}")


class Softphone:
    """One call by one handset."""

    def __init__(
        self,
        wish: CallWish,
        settings: Settings,
        profile: Profile,
        *,
        clock: Callable[[], int],
        random: Random,
        show: Callable[[str], None],
    ) -> None:
        """show: takes each line of the account as it happens."""
        self._wish = wish
        self._settings = settings
        self._random = random
        self._show = show
        self._request = random(16)
        self._reports: list[Report] = []
        self._news = asyncio.Event()
        self._call: bytes | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._ladder = Ladder((wish.caller.host, "cscf", wish.callee.host, "kms"))
        self.heard: list[Pcm] = []
        """What the caller has heard, once the call is over."""
        self._bus = KafkaBus(
            settings.kafka_settings, f"ue.{wish.caller.host}", ue_inbox(wish.caller.host).name
        )
        self._phone = UeHost(
            UeHostSettings(
                host=wish.caller.host,
                devices=(wish.caller,),
                engine=engine_settings(settings),
                profile=profile,
                suite=wish.suite,
            ),
            self._bus,
            clock=clock,
            random=random,
            source=lambda _leg: wish.sound,
            sink=self._hear,
        )

    async def run(self) -> CallOutcome:
        """Raises CallFailed, BusUnavailable, BusRefused, OSError, GaveUp."""
        wish = self._wish
        inboxes = [ue_inbox(host).name for host in dict.fromkeys((wish.caller.host, wish.callee.host))]
        async with AsyncExitStack() as closing:
            records = await closing.enter_async_context(
                tail(self._settings.kafka_settings, [REPORTS.name, CSCF.name, KMS.name, *inboxes])
            )
            await self._bus.start()
            await self._phone.start()
            closing.push_async_callback(self._phone.stop)
            stopping = asyncio.Event()
            watching = asyncio.create_task(self._watch(records))
            serving = asyncio.create_task(self._phone.loop.run(stopping))
            self._tasks = (watching, serving)
            for task in self._tasks:
                task.add_done_callback(lambda _: self._news.set())
            try:
                return await self._talk()
            finally:
                stopping.set()
                await asyncio.gather(serving, return_exceptions=True)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _talk(self) -> CallOutcome:
        wish = self._wish
        await self._until(
            lambda: self._told(ReportEvent.REGISTERED, wish.caller),
            REGISTER_WITHIN_S,
            f"{wish.caller.impi} is not registered: are a BSF, a KMS and a CSCF running, is it provisioned, "
            f"and is no other process the UE host {wish.caller.host}?",
        )
        self._show(self._ladder.head())
        began = time.perf_counter()
        await self._say(Dial(request=self._request, to=wish.caller.impi, callee=wish.callee.identity))
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
        await asyncio.sleep(wish.seconds)
        await self._say(HangUp(to=wish.caller.impi, caller=up.caller, call=up.call))
        await self._until(
            lambda: self._told(ReportEvent.ENDED, wish.caller) and self._told(ReportEvent.MEDIA, wish.caller),
            CLEAR_WITHIN_S,
            "the call did not end",
        )
        try:
            await self._until(lambda: self._told(ReportEvent.MEDIA, wish.callee), END_WITHIN_S, "")
        except CallFailed:
            self._show(f"{wish.callee.impi} has not reported how it heard the call")
        return self._outcome(up, set_up_ms)

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

    async def _say(self, wish: Dial | HangUp) -> None:
        """What the user wants, by the handset's inbox as from anywhere else."""
        inbox = ue_inbox(self._wish.caller.host)
        await self._bus.send([Outbound(inbox.name, 0, wish.to.encode(), encode(wish))])

    async def _watch(self, records: AsyncIterator[Inbound]) -> None:
        """Shows this call's messages as they come by, and remembers the reports."""
        async for record in records:
            try:
                message = decode(record.value)
            except Refused:
                continue
            if isinstance(message, Report):
                self._reports.append(message)
                self._news.set()
            elif isinstance(message, OfRun) and self._is_of_this_call(message):
                self._draw(record.topic, message)

    def _draw(self, topic: str, message: OfRun) -> None:
        wish = self._wish
        receiver = topic.removeprefix("ims.").removeprefix("ue.")
        assert isinstance(message, Message)
        sender = sender_of(receiver, message, caller=wish.caller.host, callee=wish.callee.host)
        line = self._ladder.hop(sender, receiver, message)
        if line is not None:
            self._show(line)

    def _is_of_this_call(self, message: OfRun) -> bool:
        ours = (message.caller, message.callee) == (self._wish.caller.identity, self._wish.callee.identity)
        if ours and self._call is None and isinstance(message, Invite):
            self._call = message.call
        return ours and message.call == self._call

    def _told(self, event: ReportEvent, device: Device) -> Report | None:
        """The device's last report of this event; of this call, where it is about one."""
        for report in reversed(self._reports):
            if (report.event, report.device) == (event, device.impi) and report.call in {None, self._call}:
                return report
        return None

    def _mine(self, event: ReportEvent) -> Report | None:
        return next((r for r in self._reports if r.request == self._request and r.event is event), None)

    async def _until(self, true: Callable[[], object], within_s: float, otherwise: str) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    for task in self._tasks:
                        if task.done():
                            task.result()  # raises what ended it
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise CallFailed(otherwise) from None

    def _hear(self, _leg: Leg, pcm: Pcm) -> None:
        self.heard.append(pcm)
