"""A load on a deployment: one UE host whose handsets call each other at a steady rate, whatever breaks.

Calls arrive by the clock and wait for nothing: one that is late is dialled at once. The handsets are the real
ones (agents/ue.py); what they report is read as it leaves, so that the load needs no right but a UE host's:
to read its inbox, and to write to other inboxes and to the reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from agents.alarms import HandsetAlarm
from agents.handset.ue_call import UeSettings
from agents.runtime import Loop
from agents.ue import Ue
from chaos.lab import draw_codec
from chaos.load_account import CallAccount, CallResult, Outcome
from chaos.load_media import LoadMedia
from media.leg import MediaEvent
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets
from storage.users_file import Device
from topics.access import ue_group
from topics.bus import Outbound
from topics.catalogue import KMS, REPORTS, ue_inbox
from topics.codec import decode
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings
from topics.messages import Dial, HangUp, Message, Report, ReportEvent

REGISTER_WITHIN_S: Final = 60.0
LEAVE_WITHIN_S: Final = 5.0  # how long calls may take to end when somebody has stopped the load
_ENDING_S: Final = 40  # a call's line is in use for about so long after its time when the other end is lost
_NOWHERE: Final = "192.0.2.1"  # nobody has this address (RFC 5737): no packet is sent to it


class NotRegistered(Exception):  # noqa: N818
    """The load cannot begin; the message says how many handsets are not ready, and what to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """Who calls, how often, for how long."""

    host: str
    """Its inbox is ims.ue.<host>."""
    devices: Sequence[Device]
    """Two or more, each with an identity of its own: the first calls the second, the third the fourth ..."""
    rate: float
    """Calls a second."""
    seconds: float
    """How long calls are dialled."""
    hold_s: float
    """The caller hangs up so long after its call came up."""
    drain_s: float
    """How long to wait for the end of all calls after the last dial."""
    profile: Profile = HARDENED

    @property
    def lines(self) -> tuple[MediaAddress, ...]:
        """Two for each of the calls that may be open at a time, with the end of those that fail."""
        count = 2 * ceil(self.rate * (self.hold_s + _ENDING_S))
        return tuple(MediaAddress(_NOWHERE, 1 + number % 65_535) for number in range(count))


class WatchedBus(KafkaBus):
    """The bus of a UE host, which shows what the host tells the KMS and the world before it goes out.

    What a failed send leaves unsent is shown all the same, and again when it is sent.
    """

    def __init__(self, settings: KafkaSettings, host: str, show: Callable[[Message], None]) -> None:
        super().__init__(settings, ue_group(host), ue_inbox(host).name)
        self._show = show

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        """See Bus.send."""
        for record in records:
            if record.topic in {REPORTS.name, KMS.name}:
                self._show(decode(record.value))
        return await super().send(records)


class Load:
    """One load, to be run once."""

    def __init__(
        self, settings: LoadSettings, kafka: KafkaSettings, *, clock: Callable[[], int], random: Random
    ) -> None:
        """clock: whole seconds since 1970 UTC."""
        self.account: Final = CallAccount()
        self._settings = settings
        self._clock = clock
        self._random = random
        self._store = MemoryStore()
        self._codec = draw_codec(random)
        self._media = LoadMedia(self._told)
        self._bus = WatchedBus(kafka, settings.host, self._watch)
        self._handsets = Loop(
            Ue(settings.profile, UeSettings(host=settings.host, lines=settings.lines, permits=())),
            self._bus,
            self._store,
            self._codec,
            clock=clock,
            random=random,
            carry_out=self._media.carry_out,
        )
        self._devices = {device.identity: device.impi for device in settings.devices}
        self._pairs = list(zip(settings.devices[::2], settings.devices[1::2], strict=False))
        self._unregistered = set(self._devices.values())
        self._ready = asyncio.Event()  # all handsets are registered
        self._settled = asyncio.Event()  # all calls are accounted for
        self._start = 0.0  # by the event loop's clock
        self._began = 0

    def outcome(self) -> Outcome:
        """The account as it stands."""
        return self.account.outcome(self._media.openings, began=self._began)

    async def run(self, stopping: asyncio.Event) -> None:
        """Registers, dials, and waits for the end of all calls. stopping: dial no more, and be quick.

        Raises NotRegistered, BusUnavailable, BusRefused, GaveUp.
        """
        settings, leaving = self._settings, asyncio.Event()
        await self._bus.start()
        await provision_handsets(self._store, self._codec, settings.devices, self._clock(), self._random)
        for device in settings.devices:
            self._handsets.tell(HandsetAlarm(device.impi))
        serving = asyncio.create_task(self._handsets.run(leaving))
        driving = asyncio.create_task(self._drive(stopping))
        try:
            await asyncio.wait((serving, driving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.set()
            driving.cancel()
            await asyncio.wait((serving, driving))
        serving.result()
        driving.result()

    async def _drive(self, stopping: asyncio.Event) -> None:
        """Raises NotRegistered."""
        time = asyncio.get_running_loop().time
        await _any_set(stopping, self._ready, until=time() + REGISTER_WITHIN_S)
        if stopping.is_set():
            return
        if not self._ready.is_set():
            raise NotRegistered(self._who_is_missing())
        await self._new_second()
        self._start, self._began = time(), self._clock()
        for number in range(round(self._settings.rate * self._settings.seconds)):
            due = self._start + number / self._settings.rate
            if await _any_set(stopping, until=due):
                break
            self._dial(number, late_s=time() - due)
        await self._drain(stopping)

    def _who_is_missing(self) -> str:
        return (
            f"{len(self._unregistered)} of {len(self._devices)} handsets of the UE host "
            f"{self._settings.host} are not registered after {REGISTER_WITHIN_S:.0f} s, for instance "
            f"{min(self._unregistered)}: are a KMS, a CSCF and (for USIMs) a BSF running, are they "
            "provisioned, and is no other process this UE host?"
        )

    async def _new_second(self) -> None:
        """The load begins with a second of the clock, so that its offsets can be laid beside others' logs."""
        last = self._clock()
        while self._clock() == last:  # noqa: ASYNC110  (a clock has no event)
            await asyncio.sleep(0.002)

    def _dial(self, number: int, *, late_s: float) -> None:
        caller, callee = self._pairs[number % len(self._pairs)]
        request = self._random(16)
        self.account.dialled(request, caller.identity, callee.identity, at=self._since_start(), late_s=late_s)
        self._handsets.tell(Dial(request=request, to=caller.impi, callee=callee.identity))

    async def _drain(self, stopping: asyncio.Event) -> None:
        """Returns when all calls are over, or have had their time."""
        time = asyncio.get_running_loop().time
        if self.account.settled:
            return
        self._settled.clear()
        until = time() + self._settings.drain_s
        await _any_set(stopping, self._settled, until=until)
        if stopping.is_set():
            for call in self.account.open_calls():
                self._hang_up(call)
            await _any_set(self._settled, until=min(until, time() + LEAVE_WITHIN_S))

    def _watch(self, message: Message) -> None:
        """A message of a handset of this host."""
        self.account.sent(message, self._since_start())
        if self.account.settled:
            self._settled.set()
        match message:
            case Report(event=ReportEvent.REGISTERED):
                self._unregistered.discard(message.device)
                if not self._unregistered:
                    self._ready.set()
            case Report(event=ReportEvent.UP, caller=str(caller), call=bytes(call)):
                wish = HangUp(to=message.device, caller=caller, call=call)
                asyncio.get_running_loop().call_later(self._settings.hold_s, self._handsets.tell, wish)
            case _:
                pass

    def _hang_up(self, call: CallResult) -> None:
        if call.call is not None:
            to = self._devices[call.caller]
            self._handsets.tell(HangUp(to=to, caller=call.caller, call=bytes.fromhex(call.call)))

    def _told(self, event: MediaEvent) -> None:
        self._handsets.tell(event)

    def _since_start(self) -> float:
        return asyncio.get_running_loop().time() - self._start


async def _any_set(*events: asyncio.Event, until: float) -> bool:
    """Waits for one of the events until a time of the event loop's clock. Whether any is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    timeout_s = until - asyncio.get_running_loop().time()
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    return any(event.is_set() for event in events)
