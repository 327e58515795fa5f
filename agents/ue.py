"""The user equipment: the handsets of one host, each with its key, its registration and its calls.

This file finds the handset and the call or message that an input is for; what follows from it stands in
`agents/handset/`: `registration.py` (keys and registration), `caller.py`, `callee.py`, `leaving.py`,
`renewing.py`, `noticing.py` and `hanging_up.py` (calls), `inbox.py` and `collecting.py` (messages that were
left), `attending.py` (conferences). What may come when is a table: `call_states.py`, and one each in
`collecting.py` and `attending.py`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from agents.alarms import AttendanceAlarm, CallAlarm, CollectAlarm, HandsetAlarm
from agents.decision import NOTHING, Decision, Input, Keys, Records
from agents.handset import (
    attending,
    callee,
    caller,
    collecting,
    hanging_up,
    inbox,
    leaving,
    noticing,
    registration,
    renewing,
)
from agents.handset.call_states import EXPECTED
from agents.handset.ue_attendance import Kept
from agents.handset.ue_call import Terms, UeSettings, device_of, main_of, renewal_of, session_of
from media.leg import MediaClosed, MediaSilent, StoredHeard
from protocol.checks import RefusalCode
from protocol.profile import Profile
from protocol.sealing import Random
from storage.attendance_records import Attendances
from storage.ue_records import Collecting, CollectingState, Handset, Inbox, Lines, Outbox, UeCall
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
    CollectedOk,
    Decline,
    DeclineReason,
    DeleteMessage,
    Dial,
    FetchResponse,
    HangUp,
    Invite,
    JoinConference,
    Joined,
    JoinRefused,
    KeyResponse,
    LeaveConference,
    LeaveOk,
    ListMessages,
    MailboxOk,
    MailboxRefusal,
    MailboxSays,
    NoLegs,
    Notice,
    OfRun,
    Ok,
    PlayMessage,
    PutOut,
    Refusal,
    Registered,
    Rekey,
    Ringing,
    SettledOk,
    Stored,
    Waiting,
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
    Notice,
    NoLegs,
)
_OF_MESSAGE: Final = (Waiting, MailboxSays, FetchResponse, Stored, CollectedOk, MailboxRefusal)
_OF_CONFERENCE: Final = (Joined, JoinRefused, Rekey, LeaveOk, PutOut)
_OF_USER: Final = (
    Dial,
    HangUp,
    ListMessages,
    PlayMessage,
    DeleteMessage,
    JoinConference,
    LeaveConference,
)


class Ue:
    """All handsets of one host."""

    party: ClassVar[Party] = Party.UE
    accepts: ClassVar[frozenset[type]] = frozenset(
        {*_OF_HANDSET, *_OF_CALL, *_OF_MESSAGE, *_OF_CONFERENCE, *_OF_USER}
    )

    def __init__(self, profile: Profile, settings: UeSettings) -> None:
        self._terms = Terms(profile, settings)

    def reads(self, message: Input) -> Keys:
        match message:
            case HandsetAlarm():
                return (Handset.key_for(message.device),)
            case CallAlarm():
                return self._call_keys(message.session)
            case MediaClosed() | MediaSilent():  # of a call, or of a conference
                attendances = Attendances.key_for(device_of(message.session))
                return (*self._call_keys(message.session), attendances)
            case AttendanceAlarm():
                return self._conference_keys(device_of(message.session))
            case (
                JoinConference()
                | LeaveConference()
                | Joined()
                | JoinRefused()
                | Rekey()
                | LeaveOk()
                | PutOut()
            ):
                return self._conference_keys(message.to)
            case HangUp() if message.to:
                return self._call_keys(session_of(message.to, message.caller, message.call))
            case MailboxOk() | ByeOk() if message.to:
                session = session_of(message.to, message.caller, message.call)
                return (*self._call_keys(session), Outbox.key_for(message.to))
            case (
                PlayMessage()
                | DeleteMessage()
                | FetchResponse()
                | Stored()
                | CollectedOk()
                | MailboxRefusal()
            ):
                return self._message_keys(session_of(message.to, message.caller, message.call))
            case CollectAlarm() | StoredHeard():
                return self._message_keys(message.session)
            case Waiting():
                return (Handset.key_for(message.to), Inbox.key_for(message.to))
            case ListMessages():
                return (Handset.key_for(message.to), Outbox.key_for(message.to))
            case Refusal() if message.to:  # of a call's REQUEST, or of a FETCH
                session = session_of(message.to, message.caller, message.call)
                return (*self._call_keys(session), Collecting.key_for(session))
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
                | MailboxSays()
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
                return registration.see_to(settings, device, now, random)
            case BootstrapChallenge():
                return registration.challenged(settings, device, message, now, random)
            case BootstrapDone():
                return registration.bootstrapped(settings, device, message, now, random)
            case Attached():
                return registration.attached(settings, device, message, now, random)
            case Registered():
                return registration.registered(settings, device, message, now, random)
            case BootstrapRefusal() | AttachRefusal():
                return NOTHING  # hints: the handset's alarm asks again
            case Dial():
                return caller.dial(self._terms, message, device, records.get(Lines.key()), now, random)
            case Waiting():
                return inbox.waiting(
                    self._terms, device, records.get(Inbox.key_for(device.impi)), message, now
                )
            case ListMessages():
                outbox = records.get(Outbox.key_for(device.impi))
                return inbox.list_messages(self._terms, device, outbox, message, now)
            case MailboxSays():
                return inbox.listed(device, message, now)
            case (
                PlayMessage()
                | DeleteMessage()
                | FetchResponse()
                | Stored()
                | CollectedOk()
                | MailboxRefusal()
                | CollectAlarm()
                | StoredHeard()
            ):
                return self._of_message(message, device, records, now, random)
            case (
                JoinConference()
                | LeaveConference()
                | Joined()
                | JoinRefused()
                | Rekey()
                | LeaveOk()
                | PutOut()
                | AttendanceAlarm()
            ):
                return self._of_conference(message, device, records, now, random)
            case MediaClosed() | MediaSilent():
                of_conference = self._of_conference(message, device, records, now, random)
                return self._of_call(message, device, records, now, random) + of_conference
            case Refusal():
                of_message = self._of_message(message, device, records, now, random)
                return self._of_call(message, device, records, now, random) + of_message
            case _:
                return self._of_call(message, device, records, now, random)

    def _of_message(
        self, message: Input, device: Handset, records: Records, now: int, random: Random
    ) -> Decision:
        """A wish, a message, an alarm or a media event of one message that was left."""
        terms, keys = self._terms, self.reads(message)
        found = next((records.get(key) for key in keys if key.kind is Collecting), None)
        current = found if isinstance(found, Collecting) else None
        known = records.get(Inbox.key_for(device.impi))
        left = records.get(Outbox.key_for(device.impi))
        if isinstance(message, PlayMessage | DeleteMessage):
            return collecting.begin(terms, message, device, current, known, left, now, random)
        if current is None:
            return NOTHING
        decision = collecting.take(terms, current, message, known, left, now)
        if isinstance(message, Refusal) and current.state is CollectingState.FETCHING:
            return decision + self._hinted(message, device, now, random)
        return decision

    def _of_conference(
        self, message: Input, device: Handset, records: Records, now: int, random: Random
    ) -> Decision:
        """A wish, a message, an alarm or a media event of one conference."""
        terms = self._terms
        kept = Kept(records.get(Attendances.key_for(device.impi)), records.get(Lines.key()))
        match message:
            case JoinConference():
                return attending.join(terms, message, device, kept, now, random)
            case LeaveConference():
                return attending.leave(terms, message, device, kept, now, random)
            case AttendanceAlarm() | MediaClosed() | MediaSilent():
                attendance = kept.of_session(message.session)
            case Joined() | JoinRefused() | Rekey() | LeaveOk() | PutOut():
                attendance = kept.find(message.focus, message.group)
            case _:
                return NOTHING
        if attendance is None:
            return NOTHING
        return attending.take(terms, attendance, device, kept, message, now, random)

    def _of_call(
        self, message: Input, device: Handset, records: Records, now: int, random: Random
    ) -> Decision:
        """A message, an alarm or a media event of one call."""
        terms, lines = self._terms, records.get(Lines.key())
        call, renewal = (records.get(key) for key in self.reads(message) if key.kind is UeCall)
        if not isinstance(call, UeCall):
            if isinstance(message, Invite):
                return callee.ring(terms, message, device, lines, now, random)
            return NOTHING
        if renewing.concerns(call, message):
            next_run = renewal if isinstance(renewal, UeCall) else None
            if isinstance(message, Notice):
                return noticing.of_renewal(terms, call, next_run, lines, message, now)
            taken = renewing.take(terms, call, next_run, device, message, now, random)
            return taken + self._hinted(message, device, now, random)
        if type(message) not in EXPECTED[call.role, call.state]:  # OR-26
            return NOTHING
        if isinstance(message, OfRun) and not hanging_up.is_of(call, message):  # OR-22: another run's
            return NOTHING
        match message:
            case CallAlarm():
                return hanging_up.look_again(terms, call, device, lines, now, random)
            case MediaClosed():
                return hanging_up.media_closed(terms, call, lines, message, now)
            case MediaSilent():
                return noticing.silent(terms, call, lines, now)
            case Notice():
                return noticing.take(terms, call, device, lines, message, now, random)
            case NoLegs():
                return noticing.no_legs(terms, call, lines, message, now)
            case HangUp():
                return hanging_up.hang_up(terms, call, lines, "hung-up", now)
            case Bye():
                return hanging_up.take_bye(terms, call, lines, message, now)
            case ByeOk():
                outbox = records.get(Outbox.key_for(call.device))
                return hanging_up.take_bye_ok(call, lines, outbox, message, now)
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

    def _hinted(self, message: Input, device: Handset, now: int, random: Random) -> Decision:
        """A hint that the KMS does not hold this device's key: it is fetched again, at no cost if untrue."""
        match message:
            case Refusal(code=RefusalCode.DENIED, sealed=None) | Decline(reason=DeclineReason.NO_KEY):
                return registration.attach_again(self._terms.settings, device, now, random)
            case _:
                return NOTHING

    def _call_keys(self, session: str) -> Keys:
        """The handset, the call, its renewal, and the lines. session: of the call or of its renewal."""
        call = main_of(session)
        renewal = renewal_of(call)
        return (
            Handset.key_for(device_of(call)),
            UeCall.key_for(call),
            UeCall.key_for(renewal),
            Lines.key(),
        )

    def _conference_keys(self, device: str) -> Keys:
        return (Handset.key_for(device), Attendances.key_for(device), Lines.key())

    def _message_keys(self, session: str) -> Keys:
        device = device_of(session)
        return (
            Handset.key_for(device),
            Collecting.key_for(session),
            Inbox.key_for(device),
            Outbox.key_for(device),
        )


def _to(message: OfRun) -> str:
    to = getattr(message, "to", None)
    return to if isinstance(to, str) else ""
