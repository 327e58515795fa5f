"""What a mailbox takes in: packets as they came, unread, until the caller hangs up or there are too many.

    5  A -> V      SRTP under K, told by the recorder about once a second
       A <-> V     BYE       no MAC: it only closes the message      answered by BYE-OK, with what is stored
    6  V -> B      MESSAGE WAITING, to each device that is registered

What BYE-OK has confirmed is stored. Who records may die: whoever has the partition then closes the message
with what there is, and tells the caller by BYE.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.decision import NOTHING, Decision, Put
from agents.mailbox.depositing import put_lines
from agents.mailbox.handing_out import announce
from agents.mailbox.stored_message import (
    REPEAT_S,
    VoicemailSettings,
    about,
    end,
    hold,
    keep,
    own_session,
    put_mailbox,
    to_cscf,
    wake,
    write,
)
from media.leg import NOTHING_S, SILENT_S, CloseRecording, Recorded
from protocol.limits import STORED_PACKETS_MAX
from protocol.names import Role
from storage.voicemail_records import (
    Announcements,
    MailboxOf,
    MessageState,
    Part,
    RecorderLines,
    StoredMessage,
)
from topics.messages import Bye, ByeOk, Cancelled

CLOSING_S: Final = 3  # for the last packets; what is told later by another process is lost
CUT_SHORT: Final = "cut-short"  # why this end hangs up when nothing more comes
_OPEN: Final = frozenset({MessageState.RECORDING, MessageState.CLOSING})


def take(
    settings: VoicemailSettings,
    message: StoredMessage | None,
    mailbox: MailboxOf,
    recorded: Recorded,
    now: int,
) -> Decision:
    """Some packets. Of a message that is closed or gone they come too late: the recorder is to stop."""
    if message is None or message.state not in _OPEN or message.instance != settings.instance:
        return Decision(media=(CloseRecording(recorded.session),))
    if recorded.part != message.parts:  # a repeat of what is stored
        return NOTHING
    run = message.run
    longer = msgspec.structs.replace(
        message,
        parts=message.parts + 1,
        packets=message.packets + len(recorded.packets),
        octets=message.octets + sum(map(len, recorded.packets)),
        last_at=now,
    )
    fuller = hold(longer, mailbox, message.not_after, now)
    part = Part.key_for(run.caller, run.callee, run.call, recorded.part)
    stored = Decision(
        puts=(
            Put(part, Part(packets=recorded.packets), message.not_after),
            put_mailbox(run.callee, fuller, now),
        )
    )
    if longer.state is MessageState.CLOSING:  # perhaps by another process, which cannot tell the recorder
        return stored + Decision(puts=(write(longer),), media=(CloseRecording(recorded.session),))
    too_much = _too_much(settings, longer, fuller, now)
    if not too_much:
        return stored + Decision(puts=(write(longer),))
    cut = msgspec.structs.replace(longer, farewell=too_much)
    return stored + _close(settings, cut, now) + say_farewell(cut)


def hung_up(settings: VoicemailSettings, message: StoredMessage, mailbox: MailboxOf, now: int) -> Decision:
    """The caller's BYE: BYE-OK follows when all is stored, and once more for each repeat."""
    heard = msgspec.structs.replace(message, hung_up=True, farewell="", repeat_at=None)
    match message.state:
        case MessageState.ASKING:
            return end(heard, mailbox, now) + say_kept(heard)
        case MessageState.RECORDING:
            return _close(settings, heard, now)
        case MessageState.CLOSING:
            return keep(heard) if heard != message else NOTHING
        case MessageState.LEFT | MessageState.ENDED:
            return (keep(heard) if heard != message else NOTHING) + say_kept(heard)


def cancelled(settings: VoicemailSettings, message: StoredMessage, mailbox: MailboxOf, now: int) -> Decision:
    """The caller's CANCEL: it ends what has no packets yet, and closes what has some."""
    told = to_cscf(Cancelled(**about(message)))
    match message.state:
        case MessageState.ASKING:
            return end(message, mailbox, now) + told
        case MessageState.RECORDING:
            return _close(settings, message, now) + told
        case _:
            return told


def closed(
    settings: VoicemailSettings,
    message: StoredMessage,
    mailbox: MailboxOf,
    announcements: Announcements,
    now: int,
) -> Decision:
    """Nothing more will come: the message is left, or nothing was. A caller who has not hung up is told."""
    if message.state is MessageState.RECORDING:
        message = msgspec.structs.replace(message, farewell=CUT_SHORT)
        told = say_farewell(message)
    else:
        told = say_kept(message) if message.hung_up else NOTHING
    if not message.packets:
        return end(message, mailbox, now) + told
    left = msgspec.structs.replace(
        message,
        state=MessageState.LEFT,
        grant_m=b"",
        repeats=0,
        repeat_at=now + REPEAT_S,  # MESSAGE WAITING once more, and the farewell
        give_up_at=message.not_after + 1,
    )
    return keep(left) + told + announce(settings, left, mailbox, announcements, now)


def recorder_closed(
    settings: VoicemailSettings,
    message: StoredMessage | None,
    mailbox: MailboxOf,
    announcements: Announcements,
    lines: RecorderLines,
    session: str,
    now: int,
) -> Decision:
    """The recorder of this process has told all of a session: its line is free."""
    freed = RecorderLines(sessions=tuple(None if user == session else user for user in lines.sessions))
    decision = Decision(puts=(put_lines(settings, freed, now),)) if freed != lines else NOTHING
    if message is None or message.state not in _OPEN or message.instance != settings.instance:
        return decision
    return decision + closed(settings, message, mailbox, announcements, now)


def listen_again(
    settings: VoicemailSettings,
    message: StoredMessage,
    mailbox: MailboxOf,
    announcements: Announcements,
    now: int,
) -> Decision:
    """RECORDING for a while: the caller may be gone, or the process that records.

    An own recorder closes what is silent by itself; it is told to when it seems to have lost the session.
    """
    own = message.instance == settings.instance
    silent_at = message.last_at + SILENT_S if message.packets else message.opened + NOTHING_S
    over_at = silent_at + SILENT_S if own else silent_at
    if now < over_at:
        return Decision(wakes=(wake(message, min(over_at, now + SILENT_S)),))
    if not own:
        return closed(settings, message, mailbox, announcements, now)
    return Decision(wakes=(wake(message, now + CLOSING_S),), media=(CloseRecording(own_session(message)),))


def close_again(
    settings: VoicemailSettings,
    message: StoredMessage,
    mailbox: MailboxOf,
    announcements: Announcements,
    now: int,
) -> Decision:
    """CLOSING for long enough. An own recorder always says when it has; another process may be dead."""
    if message.instance != settings.instance:
        return closed(settings, message, mailbox, announcements, now)
    waiting = msgspec.structs.replace(message, give_up_at=now + CLOSING_S)
    return keep(waiting) + Decision(media=(CloseRecording(own_session(message)),))


def say_farewell(message: StoredMessage) -> Decision:
    """BYE of the mailbox, repeated until the caller's comes."""
    return to_cscf(Bye(fork=None, by=Role.MAILBOX, proof=None, reason=message.farewell, **about(message)))


def say_kept(message: StoredMessage) -> Decision:
    """BYE-OK: so many packets are stored for good."""
    return to_cscf(ByeOk(fork=None, by=Role.MAILBOX, kept=message.packets, **about(message)))


def _close(settings: VoicemailSettings, message: StoredMessage, now: int) -> Decision:
    """No more is taken. What the recorder has comes before its RecordingClosed."""
    closing = msgspec.structs.replace(
        message,
        state=MessageState.CLOSING,
        repeat_at=now + REPEAT_S if message.farewell else None,
        give_up_at=now + CLOSING_S,
    )
    own = message.instance == settings.instance
    return keep(closing) + Decision(media=(CloseRecording(own_session(message)),) if own else ())


def _too_much(settings: VoicemailSettings, message: StoredMessage, mailbox: MailboxOf, now: int) -> str:
    """Why no more is taken; empty: there is room."""
    if (
        now - message.opened >= settings.message_s
        or message.octets >= settings.message_octets
        or message.packets >= settings.message_s * STORED_PACKETS_MAX
    ):
        return "too-long"
    if sum(each.octets for each in mailbox.held) >= settings.octets_max:
        return "mailbox-full"
    return ""
