"""The mailbox: V in deferred delivery (section 6). It keeps what it cannot read for who can.

    1  CSCF -> V   INVITE                    agents/mailbox/depositing.py
    2  V -> KMS    DEPOSIT
    3  KMS -> V    grant_m, receipt_v        or REFUSAL
    4  V -> CSCF   200 OK                    or DECLINE
    5  A -> V      SRTP under K, BYE         agents/mailbox/recording.py
    6  V -> B      MESSAGE WAITING           agents/mailbox/handing_out.py
    9  B <-> V     RETRIEVE, COLLECTED

It never holds K. All of one user's mailbox is in one partition, that of ID-B. Each process has a recorder of
its own, and a message is recorded by the process that got the KMS's answer.
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec

from agents.alarms import ForgetParts, MessageAlarm
from agents.decision import NOTHING, Decision, Input, Keys, Records
from agents.mailbox import depositing, handing_out, recording
from agents.mailbox.stored_message import (
    VoicemailSettings,
    call_of,
    forget,
    keep,
    repeated,
    to_cscf,
)
from media.leg import Recorded, RecordingClosed
from protocol.limits import STORED_WINDOW
from protocol.names import Role
from protocol.sealing import Random
from storage.voicemail_records import (
    Announcements,
    MailboxOf,
    MessageState,
    Part,
    RecorderLines,
    StoredMessage,
)
from topics.catalogue import Party
from topics.messages import (
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Collected,
    DeclineReason,
    DepositResponse,
    Invite,
    Mailbox,
    OfRun,
    Present,
    Refusal,
    Retrieve,
    named,
)

__all__ = ["EXPECTED", "Voicemail", "VoicemailSettings"]

_ALWAYS: Final = frozenset({MessageAlarm, Cancel, Bye, Retrieve, Collected, RecordingClosed})

EXPECTED: Final[dict[MessageState, frozenset[type]]] = {
    MessageState.ASKING: _ALWAYS | {DepositResponse, Refusal},
    MessageState.RECORDING: _ALWAYS | {Invite, DepositResponse, Recorded},
    MessageState.CLOSING: _ALWAYS | {Recorded},
    MessageState.LEFT: _ALWAYS | {Recorded},
    MessageState.ENDED: _ALWAYS | {Invite, Recorded},
}
"""What may come in each state of a message: all else changes nothing (OR-26)."""


class Voicemail:
    """All mailboxes, as one process of it sees them."""

    party: ClassVar[Party] = Party.VOICEMAIL
    accepts: ClassVar[frozenset[type]] = frozenset(
        {Invite, Cancel, Bye, DepositResponse, Refusal, Present, Mailbox, Retrieve, Collected}
    )

    def __init__(self, settings: VoicemailSettings) -> None:
        self._settings = settings
        self._lines = RecorderLines.key_for(settings.instance)

    def reads(self, message: Input) -> Keys:
        match message:
            case Present() | Mailbox():
                return (MailboxOf.key_for(message.identity), Announcements.key_for(message.identity))
            case ForgetParts():
                return handing_out.forgotten_now(message)
            case Recorded():
                part = Part.key_for(*call_of(message.session), message.part)
                return (*_keys(*call_of(message.session)), part)
            case RecordingClosed():
                _, callee, _ = about = call_of(message.session)
                return (*_keys(*about), Announcements.key_for(callee), self._lines)
            case Invite() | DepositResponse():
                return (*_keys(message.caller, message.callee, message.call), self._lines)
            case Retrieve():
                about = (message.caller, message.callee, message.call)
                first = message.part
                return (*_keys(*about), *handing_out.parts_of(*about, first, first + STORED_WINDOW))
            case Collected() | MessageAlarm():
                about = (message.caller, message.callee, message.call)
                return (*_keys(*about), Announcements.key_for(message.callee))
            case OfRun():
                return _keys(message.caller, message.callee, message.call)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        match message:
            case Present() | Mailbox():
                return self._of_user(message, records, now)
            case ForgetParts():
                return handing_out.forget_parts(message, now)
            case Recorded() | RecordingClosed():
                return self._of_recorder(message, records, now)
            case MessageAlarm():
                return self._look_again(message, records, now)
            case OfRun():
                return self._of_message(message, records, now, random)
            case _:
                return NOTHING

    def _of_user(self, message: Present | Mailbox, records: Records, now: int) -> Decision:
        """What concerns all messages of one user."""
        mailbox = _mailbox(records, message.identity)
        announcements = _announcements(records, message.identity)
        match message:
            case Present():
                return handing_out.present(self._settings, mailbox, announcements, message, now)
            case Mailbox():
                return handing_out.tell(self._settings, mailbox, announcements, message, now)

    def _of_recorder(self, event: Recorded | RecordingClosed, records: Records, now: int) -> Decision:
        """What the recorder of this process tells."""
        caller, callee, call = call_of(event.session)
        message = records.get(StoredMessage.key_for(caller, callee, call))
        mailbox = _mailbox(records, callee)
        if message is not None and type(event) not in EXPECTED[message.state]:  # OR-26
            return NOTHING
        match event:
            case RecordingClosed():
                announcements = _announcements(records, callee)
                lines = records.get(self._lines) or RecorderLines()
                return recording.recorder_closed(
                    self._settings, message, mailbox, announcements, lines, event.session, now
                )
            case Recorded():
                return recording.take(self._settings, message, mailbox, event, now)

    def _of_message(self, message: OfRun, records: Records, now: int, random: Random) -> Decision:
        """What came on the bus for one message."""
        known = records.get(StoredMessage.key_for(message.caller, message.callee, message.call))
        mailbox = _mailbox(records, message.callee)
        if known is None:
            return self._of_unknown(message, mailbox, records, now, random)
        if type(message) not in EXPECTED[known.state] or message.run != known.run.n:  # OR-26, OR-22
            return NOTHING
        settings = self._settings
        match message:
            case Invite():
                return depositing.invited_again(settings, known)
            case DepositResponse():
                lines = records.get(self._lines) or RecorderLines()
                return depositing.granted(settings, known, mailbox, lines, message, now)
            case Refusal():
                return depositing.refused(settings, known, mailbox, message, now)
            case Cancel():
                return recording.cancelled(settings, known, mailbox, now)
            case Bye() if _of_caller(message):
                return recording.hung_up(settings, known, mailbox, now)
            case Retrieve():
                return handing_out.retrieve(settings, known, mailbox, message, records, now)
            case Collected():
                announcements = _announcements(records, message.callee)
                return handing_out.collected(known, mailbox, announcements, message, now)
            case _:
                return NOTHING

    def _of_unknown(
        self, message: OfRun, mailbox: MailboxOf, records: Records, now: int, random: Random
    ) -> Decision:
        """Of a message that never was, or that was forgotten."""
        match message:
            case Invite():
                lines = records.get(self._lines) or RecorderLines()
                return depositing.ask(self._settings, message, mailbox, lines, now, random)
            case Cancel():
                return to_cscf(Cancelled(**named(message)))
            case Bye() if _of_caller(message):
                return to_cscf(ByeOk(fork=None, by=Role.MAILBOX, kept=0, **named(message)))
            case Retrieve():
                return handing_out.retrieve(self._settings, None, mailbox, message, records, now)
            case Collected():
                announcements = _announcements(records, message.callee)
                return handing_out.collected(None, mailbox, announcements, message, now)
            case _:
                return NOTHING

    def _look_again(self, alarm: MessageAlarm, records: Records, now: int) -> Decision:
        """Repeat what was not answered, end what has lasted too long."""
        known = records.get(StoredMessage.key_for(alarm.caller, alarm.callee, alarm.call))
        if known is None:
            return NOTHING
        if now >= known.give_up_at:
            mailbox = _mailbox(records, alarm.callee)
            return self._give_up(known, mailbox, _announcements(records, alarm.callee), now)
        if known.repeat_at is None or now < known.repeat_at:
            return keep(known)
        if known.state is MessageState.ASKING:
            return keep(repeated(known, now)) + depositing.say_deposit(self._settings, known)
        if known.state is MessageState.LEFT and not known.repeats:
            mailbox = _mailbox(records, alarm.callee)
            told = handing_out.announce_again(known, mailbox, _announcements(records, alarm.callee), now)
        else:
            told = NOTHING
        if not known.farewell:
            return keep(msgspec.structs.replace(known, repeats=1, repeat_at=None)) + told
        return keep(repeated(known, now)) + told + recording.say_farewell(known)

    def _give_up(
        self, known: StoredMessage, mailbox: MailboxOf, announcements: Announcements, now: int
    ) -> Decision:
        match known.state:
            case MessageState.ASKING:
                return depositing.give_up(known, mailbox, DeclineReason.NO_KEY, now)
            case MessageState.RECORDING:
                return recording.listen_again(self._settings, known, mailbox, announcements, now)
            case MessageState.CLOSING:
                return recording.close_again(self._settings, known, mailbox, announcements, now)
            case MessageState.LEFT:  # OR-30: not_after has passed
                return handing_out.delete(known, mailbox, announcements, now)
            case MessageState.ENDED:
                return forget(known)


def _keys(caller: str, callee: str, call: bytes) -> Keys:
    """What everything about one message needs."""
    return (StoredMessage.key_for(caller, callee, call), MailboxOf.key_for(callee))


def _mailbox(records: Records, callee: str) -> MailboxOf:
    return records.get(MailboxOf.key_for(callee)) or MailboxOf()


def _announcements(records: Records, callee: str) -> Announcements:
    return records.get(Announcements.key_for(callee)) or Announcements()


def _of_caller(bye: Bye) -> bool:
    """A BYE to a mailbox names no device."""
    return bye.by is Role.CALLER and bye.fork is None
