"""`otway demo voicemail`: bob is away, alice leaves a message in a mailbox that cannot listen, everything is
started anew, and bob hears the message on another device.

dial -> the mailbox answers -> leave -> restart all -> MESSAGE WAITING -> fetch -> hear -> gone
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import HEARD_WELL, NOTES, Access, Voice, table, tried
from console.scenarios.telling import Telling
from media.likeness import likeness
from media.pcm import SAMPLE_HZ, Pcm
from media.samples import callee_sample, caller_sample
from protocol.sealing import Random
from protocol.secret import Secret
from topics.messages import PlayMessage, Report, ReportEvent, Retrieve

CALLER: Final = "alice"
AWAY: Final = "bob"
LISTENER: Final = "bob-2"
_TAIL_S: Final = 0.3
_DELETED_WITHIN_S: Final = 5.0
_NOTES: Final = {
    **NOTES,
    "voicemail": "has all packets, and all that passed it",
    "kms": "it made K, and kept it wrapped",
}


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: what `--json` prints and voicemail.json holds."""

    call: str
    kept_until: int  # seconds since 1970 UTC
    packets_kept: int
    packets_heard: int
    whole: bool
    likeness: float  # of what bob heard to what alice said, 0 to 1
    collected: bool
    left_in_the_mailbox: int  # records with packets of it
    access: list[Access]

    @property
    def good(self) -> bool:
        """Heard by bob, by nobody else, and gone."""
        insiders = {CALLER, LISTENER, "kms"}
        return (
            self.whole
            and self.collected
            and self.likeness > HEARD_WELL
            and self.left_in_the_mailbox == 0
            and all(all(each.voices.values()) is (each.party in insiders) for each in self.access)
        )


class VoicemailDemo:
    """One message from alice to bob."""

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        random: Random,
        show: Callable[[str], None],
        sound: Pcm | None = None,
    ) -> None:
        """show: takes each line of the account as it happens. sound: what alice says."""
        self._random = random
        self._telling = Telling(show, (CALLER, "cscf", "voicemail", LISTENER, "kms"))
        self._said = caller_sample() if sound is None else sound
        sounds = {CALLER: self._said, AWAY: callee_sample(), LISTENER: callee_sample()}
        self._town = Town(
            TownSettings(sounds=sounds, absent=frozenset({AWAY, LISTENER})),
            clock=clock,
            random=random,
            on_hop=self._happened,
        )
        self._held: dict[str, list[Secret]] = {}
        self.heard: dict[str, Pcm] = {}
        """What bob heard, as `voicemail`, once it is over."""

    async def run(self) -> Delivered:
        """Raises OSError without UDP sockets on loopback, TimeoutError when it comes to nothing."""
        town = self._town
        try:
            await town.start()
            await town.registered()
            self._telling.begin("bob's devices are off; alice calls him\n")
            call = await self._leave()
            self._telling.note(
                "KMS, BSF, CSCF and mailbox are stopped and started anew; alice is switched off"
            )
            self._telling.pause()
            await town.restart_network()
            await town.switch_off(CALLER)
            await town.switch_on(LISTENER)
            await town.registered(LISTENER)
            self._telling.go_on()
            self._telling.note("another device of bob's is switched on")
            await self._collect(call)
            return self._outcome(call)
        finally:
            await town.stop()

    async def _leave(self) -> bytes:
        """Alice's message, until the mailbox has confirmed it. Returns C."""
        town = self._town
        town.wishes.dial(CALLER, AWAY)
        await town.until(lambda: self._report(ReportEvent.MAILBOX) is not None)
        await asyncio.sleep(self._said.size / SAMPLE_HZ + _TAIL_S)
        answered = self._report(ReportEvent.MAILBOX)
        assert answered is not None
        assert answered.call is not None
        town.hang_up(CALLER)
        await town.until(lambda: self._report(ReportEvent.LEFT) is not None)
        return answered.call

    async def _collect(self, call: bytes) -> None:
        town = self._town
        await town.until(lambda: self._report(ReportEvent.WAITING) is not None)
        device = town.devices[LISTENER]
        play = PlayMessage(
            request=self._random(16), to=device.impi, caller=town.devices[CALLER].identity, call=call
        )
        town.wishes.tell(LISTENER, play)
        over = (ReportEvent.COLLECTED, ReportEvent.FAILED)
        await town.until(lambda: any(self._report(event) is not None for event in over))
        async with asyncio.timeout(_DELETED_WITHIN_S):
            while town.remembered.stored_parts(call):  # noqa: ASYNC110  (an alarm deletes them, and tells nobody)
                await asyncio.sleep(0.1)

    def _happened(self, hop: Hop) -> None:
        match hop.message:
            case Report() as report:
                self._told(report)
                return
            case Retrieve() if LISTENER not in self._held:
                self._held[LISTENER] = self._town.holdings(LISTENER)
            case _:
                pass
        self._telling.draw(hop)

    def _told(self, report: Report) -> None:
        match report.event:
            case ReportEvent.MAILBOX:
                parties = (CALLER, "voicemail", "kms", "bsf", "cscf")
                self._held = {party: self._town.holdings(party) for party in parties}
                self._telling.note(f"alice is told: a mailbox answers ({report.reason}); she speaks")
            case ReportEvent.LEFT:
                self._telling.note(f"alice is told: the message is kept, {report.packets} packets")
            case ReportEvent.WAITING:
                self._telling.note("bob is told: a message of alice's is waiting")
            case ReportEvent.HEARD:
                self._held["voicemail"] = [*self._held["voicemail"], *self._town.holdings("voicemail")]
                self._telling.note(
                    f"bob has heard it, {'whole' if report.whole else 'perhaps not to its end'}"
                )
            case ReportEvent.COLLECTED:
                self._telling.note("the mailbox has deleted it")
            case _:
                pass

    def _outcome(self, call: bytes) -> Delivered:
        town = self._town
        answered, left, heard = (
            self._report(event) for event in (ReportEvent.MAILBOX, ReportEvent.LEFT, ReportEvent.HEARD)
        )
        assert answered is not None
        assert left is not None
        self.heard["voicemail"] = np.concatenate(town.heard(LISTENER) or [np.zeros(0, np.int16)])
        alice, bob = town.devices[CALLER].identity, town.devices[LISTENER].identity
        voices = {"alice's message": Voice(town.wiretap.srtp("voicemail"), alice, bob)}
        order = (CALLER, LISTENER, "voicemail", "kms", "bsf", "cscf")
        held = {party: self._held.get(party, []) for party in order}
        return Delivered(
            call=call.hex(),
            kept_until=answered.until or 0,
            packets_kept=left.packets or 0,
            packets_heard=(heard.packets or 0) if heard else 0,
            whole=bool(heard and heard.whole),
            likeness=round(likeness(self.heard["voicemail"], self._said), 3),
            collected=self._report(ReportEvent.COLLECTED) is not None,
            left_in_the_mailbox=town.remembered.stored_parts(call),
            access=tried({**held, "wiretap": []}, voices, _NOTES),
        )

    def _report(self, event: ReportEvent) -> Report | None:
        return next((report for report in self._town.reports if report.event is event), None)


def account(outcome: Delivered) -> list[str]:
    """The outcome in sentences, as the demo ends with."""
    return [
        f"\nmessage {outcome.call[:4]}: {outcome.packets_kept} packets kept, {outcome.packets_heard} heard",
        *table(outcome.access),
        f"bob heard alice {outcome.likeness:.2f}; {outcome.left_in_the_mailbox} records of packets are left",
    ]
