"""The transcoder: T between two ends that share no codec (section 7). It hears both, and never holds K.

    1  CSCF -> T         INTERPOSE               agents/legs/asking.py
    2  T -> KMS          RELEASE                 repeated; `busy` before SETTLED
    3  KMS -> T          grant_t, notice_a, notice_b    or REFUSAL     agents/legs/flowing.py
    4  T -> CSCF -> A, B NOTICE, or NO-LEGS
       CSCF -> T         LEGS-OVER

A call is carried by the process that has its partition, so that load is spread over instances by call. Each
looks after its calls every two seconds: one that another instance has had is taken over, with leg keys and
notices of its own, and an address of its own to which both ends turn. The one that had it looks as often, by
itself, and closes what is not its own any more.
"""

from __future__ import annotations

from typing import ClassVar, Final

from agents.alarms import LegsAlarm, StillBetween
from agents.decision import NOTHING, Decision, Input, Keys, Records
from agents.legs import asking, flowing
from agents.legs.transcoded_call import (
    TranscoderSettings,
    bridge_of,
    call_of,
    close,
    end,
    forget,
    freed,
    put_lines,
    stay,
    watch,
)
from media.leg import MediaClosed, MediaSilent
from protocol.checks import RefusalCode
from protocol.sealing import Random
from storage.transcoder_records import Legs, LegsState, TranscoderLines
from topics.catalogue import Party
from topics.messages import Interpose, LegsOver, OfRun, Refusal, ReleaseResponse, run_of

__all__ = ["EXPECTED", "Transcoder", "TranscoderSettings"]

_ALWAYS: Final = frozenset({LegsAlarm, StillBetween, Interpose, MediaClosed, MediaSilent})

EXPECTED: Final[dict[LegsState, frozenset[type]]] = {
    LegsState.ASKING: _ALWAYS | {ReleaseResponse, Refusal, LegsOver},
    LegsState.RUNNING: _ALWAYS | {ReleaseResponse, LegsOver},
    LegsState.RENEWING: _ALWAYS | {ReleaseResponse, Refusal, LegsOver},
    LegsState.OVER: _ALWAYS,
}
"""What may come in each state of a call: all else changes nothing (OR-26). Of media events only those of the
legs as they stand mean the call; others are of legs that this process once had."""


class Transcoder:
    """All calls of its partitions, as one process of it sees them."""

    party: ClassVar[Party] = Party.TRANSCODER
    accepts: ClassVar[frozenset[type]] = frozenset({Interpose, ReleaseResponse, Refusal, LegsOver})

    def __init__(self, settings: TranscoderSettings) -> None:
        self._settings = settings
        self._lines = TranscoderLines.key_for(settings.instance)

    def reads(self, message: Input) -> Keys:
        match message:
            case MediaClosed() | MediaSilent():
                return (Legs.key_for(*call_of(message.session)), self._lines)
            case Interpose() | ReleaseResponse() | Refusal() | LegsOver() | LegsAlarm() | StillBetween():
                return (Legs.key_for(message.caller, message.call), self._lines)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        lines = records.get(self._lines) or TranscoderLines()
        match message:
            case MediaClosed() | MediaSilent():
                legs = records.get(Legs.key_for(*call_of(message.session)))
                return self._of_media(message, legs, lines, now)
            case StillBetween():
                legs = records.get(Legs.key_for(message.caller, message.call))
                return self._still_between(message.bridge, legs, lines, now)
            case Interpose() | ReleaseResponse() | Refusal() | LegsOver() | LegsAlarm():
                legs = records.get(Legs.key_for(message.caller, message.call))
                if legs is None:
                    return self._of_unknown(message, lines, now, random)
                if type(message) not in EXPECTED[legs.state]:  # OR-26
                    return NOTHING
                return self._of_call(legs, lines, message, now, random)
            case _:
                return NOTHING

    def _of_unknown(
        self, message: OfRun | LegsAlarm, lines: TranscoderLines, now: int, random: Random
    ) -> Decision:
        """Of a call that never was, or that was forgotten. What is over before it began does not begin."""
        settings = self._settings
        match message:
            case Interpose():
                return asking.interposed(settings, None, lines, message, now, random)
            case LegsOver() if message.fork is not None:
                run = run_of(message, settings.suite)
                over = Legs(run=run, fork=message.fork, state=LegsState.OVER, give_up_at=now)
                return end(settings, over, lines, now)
            case _:
                return NOTHING

    def _of_call(
        self, legs: Legs, lines: TranscoderLines, message: OfRun | LegsAlarm, now: int, random: Random
    ) -> Decision:
        settings = self._settings
        if isinstance(message, OfRun) and message.callee != legs.run.callee:  # OR-22
            return NOTHING
        match message:
            case LegsAlarm():
                return self._look_again(legs, lines, now, random)
            case Interpose():
                return asking.interposed(settings, legs, lines, message, now, random)
            case LegsOver() if message.run >= legs.run.n:
                return end(settings, legs, lines, now)
            case ReleaseResponse() | Refusal() if not self._is_own(legs) or message.run != legs.run.n:
                return NOTHING  # OR-22: for another instance, or of another run
            case ReleaseResponse():
                return flowing.granted(settings, legs, lines, message, now)
            case Refusal():
                return asking.refused(settings, legs, lines, message, now)
            case _:
                return NOTHING

    def _of_media(
        self, event: MediaClosed | MediaSilent, legs: Legs | None, lines: TranscoderLines, now: int
    ) -> Decision:
        """What the engine of this process tells. A leg on which nobody is heard ends both: the other end
        would hear the transcoder for ever, and never learn that it is alone."""
        bridge = bridge_of(event.session)
        if legs is not None and legs.bridge == bridge and legs.state in asking.FLOWING:
            if isinstance(event, MediaSilent) or event.expired:
                return end(self._settings, legs, lines, now)
            return NOTHING
        if legs is not None and legs.bridge == bridge and legs.state is LegsState.ASKING:
            return NOTHING  # nothing is open under its name yet
        # Legs that this process has had: of a call that is over, or is another instance's.
        if freed(lines, bridge) == lines and isinstance(event, MediaClosed):
            return NOTHING
        return self._leave(bridge, lines, now)

    def _still_between(self, bridge: str, legs: Legs | None, lines: TranscoderLines, now: int) -> Decision:
        """Look on while the call is this process's, and else close what of it is open here."""
        if legs is not None and legs.bridge == bridge and legs.state is not LegsState.OVER:
            return stay(legs, bridge)
        return self._leave(bridge, lines, now)

    def _leave(self, bridge: str, lines: TranscoderLines, now: int) -> Decision:
        return Decision(puts=(put_lines(self._settings, freed(lines, bridge), now),), media=close(bridge))

    def _look_again(self, legs: Legs, lines: TranscoderLines, now: int, random: Random) -> Decision:
        """End what has lasted too long, take over what is nobody's, repeat what may be lost."""
        settings = self._settings
        if now >= legs.give_up_at:
            return self._give_up(legs, lines, now, random)
        if legs.state is LegsState.OVER:
            return watch(legs, now)
        if not self._is_own(legs):
            return asking.taken_over(settings, legs, lines, now, random)
        if legs.repeat_at is None or now < legs.repeat_at:
            return watch(legs, now)
        if legs.state is LegsState.RUNNING:
            return flowing.tell_again(settings, legs, now)
        return asking.ask_again(settings, legs, now)

    def _give_up(self, legs: Legs, lines: TranscoderLines, now: int, random: Random) -> Decision:
        match legs.state:
            case LegsState.RENEWING if now < legs.until and self._is_own(legs):  # both ends count on it
                return asking.ask(self._settings, legs, now, random)
            case LegsState.ASKING | LegsState.RENEWING:
                return asking.give_up(self._settings, legs, lines, RefusalCode.BUSY, now)
            case LegsState.RUNNING:  # their keys are over
                return end(self._settings, legs, lines, now)
            case LegsState.OVER:
                return forget(legs)

    def _is_own(self, legs: Legs) -> bool:
        return legs.instance == self._settings.instance
