"""The user equipment: the handsets of one host, each with its key, its registration and its calls.

This file finds the handset and the call that a message is for; what follows from it stands in
`agents/handset.py` (keys and registration), `agents/caller.py`, `agents/callee.py` and
`agents/hanging_up.py`. What may come when is a table: `agents/call_states.py`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from agents import callee, caller, handset, hanging_up, leaving
from agents.alarms import CallAlarm, HandsetAlarm
from agents.call_states import EXPECTED
from agents.decision import NOTHING, Decision, Input, Keys, Records
from agents.ue_call import Terms, UeSettings, device_of, session_of
from media.leg import MediaClosed, MediaSilent
from protocol.checks import RefusalCode
from protocol.profile import Profile
from protocol.sealing import Random
from storage.ue_records import Handset, Lines, Outbox, UeCall
from topics.catalogue import Party
from topics.messages import (
    Ack,
    Attached,
    AttachRefusal,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Decline,
    DeclineReason,
    Dial,
    HangUp,
    Invite,
    KeyResponse,
    MailboxOk,
    OfRun,
    Ok,
    Refusal,
    Registered,
    Ringing,
    SettledOk,
)

_OF_HANDSET: Final = (
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    Attached,
    AttachRefusal,
    Registered,
)
_OF_CALL: Final = (
    Invite,
    Ringing,
    KeyResponse,
    Refusal,
    Ok,
    MailboxOk,
    Ack,
    SettledOk,
    Decline,
    Cancel,
    Cancelled,
    Bye,
    ByeOk,
)


class Ue:
    """All handsets of one host."""

    party: ClassVar[Party] = Party.UE
    accepts: ClassVar[frozenset[type]] = frozenset({*_OF_HANDSET, *_OF_CALL, Dial, HangUp})

    def __init__(self, profile: Profile, settings: UeSettings) -> None:
        self._terms = Terms(profile, settings)

    def reads(self, message: Input) -> Keys:
        match message:
            case HandsetAlarm():
                return (Handset.key_for(message.device),)
            case CallAlarm() | MediaClosed() | MediaSilent():
                return self._call_keys(message.session)
            case HangUp() if message.to:
                return self._call_keys(session_of(message.to, message.caller, message.call))
            case MailboxOk() if message.to:
                session = session_of(message.to, message.caller, message.call)
                return (*self._call_keys(session), Outbox.key_for(message.to))
            case OfRun() if _to(message):
                return self._call_keys(session_of(_to(message), message.caller, message.call))
            case Dial():
                return (Handset.key_for(message.to), Lines.key())
            case (
                BootstrapChallenge()
                | BootstrapDone()
                | BootstrapRefusal()
                | Attached()
                | AttachRefusal()
                | Registered()
            ):
                return (Handset.key_for(message.to),)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        keys = self.reads(message)
        device = next((records.get(key) for key in keys if key.kind is Handset), None)
        if not isinstance(device, Handset):  # no such device on this host
            return NOTHING
        settings = self._terms.settings
        match message:
            case HandsetAlarm():
                return handset.see_to(settings, device, now, random)
            case BootstrapChallenge():
                return handset.challenged(settings, device, message, now, random)
            case BootstrapDone():
                return handset.bootstrapped(settings, device, message, now, random)
            case Attached():
                return handset.attached(settings, device, message, now, random)
            case Registered():
                return handset.registered(settings, device, message, now, random)
            case BootstrapRefusal() | AttachRefusal():
                return NOTHING  # hints: the handset's alarm asks again
            case Dial():
                return caller.dial(self._terms, message, device, records.get(Lines.key()), now, random)
            case _:
                return self._of_call(message, device, records, now, random)

    def _of_call(
        self, message: Input, device: Handset, records: Records, now: int, random: Random
    ) -> Decision:
        """A message, an alarm or a media event of one call."""
        terms, lines = self._terms, records.get(Lines.key())
        call = next(
            (records.get(key) for key in self.reads(message) if key.kind is UeCall),
            None,
        )
        if not isinstance(call, UeCall):
            if isinstance(message, Invite):
                return callee.ring(terms, message, device, lines, now, random)
            return NOTHING
        if type(message) not in EXPECTED[call.role, call.state]:  # OR-26
            return NOTHING
        if isinstance(message, OfRun) and (message.run, message.callee) != (call.run.n, call.run.callee):
            return NOTHING  # OR-22: another run's
        match message:
            case CallAlarm():
                return hanging_up.look_again(terms, call, lines, now)
            case MediaClosed():
                return hanging_up.media_closed(terms, call, lines, message, now)
            case MediaSilent():
                return hanging_up.hang_up(terms, call, lines, "silent", now)
            case HangUp():
                return hanging_up.hang_up(terms, call, lines, "hung-up", now)
            case Bye():
                return hanging_up.take_bye(terms, call, lines, message, now)
            case ByeOk():
                return hanging_up.take_bye_ok(call, lines, message, now)
            case MailboxOk():
                outbox = records.get(Outbox.key_for(call.device))
                return leaving.answered(terms, call, outbox, message, now, random)
            case Invite() | KeyResponse() | Refusal() | Ack() | Cancel():
                return callee.take(terms, call, lines, message, now) + self._hinted(
                    message, device, now, random
                )
            case Ringing() | Ok() | SettledOk() | Decline() | Cancelled():
                return caller.take(terms, call, lines, message, now, random) + self._hinted(
                    message, device, now, random
                )
            case _:
                return NOTHING

    def _hinted(self, message: OfRun, device: Handset, now: int, random: Random) -> Decision:
        """A hint that the KMS does not hold this device's key: it is fetched again, at no cost if untrue."""
        match message:
            case Refusal(code=RefusalCode.DENIED, sealed=None) | Decline(reason=DeclineReason.NO_KEY):
                return handset.attach_again(self._terms.settings, device, now, random)
            case _:
                return NOTHING

    def _call_keys(self, session: str) -> Keys:
        return (Handset.key_for(device_of(session)), UeCall.key_for(session), Lines.key())


def _to(message: OfRun) -> str:
    to = getattr(message, "to", None)
    return to if isinstance(to, str) else ""
