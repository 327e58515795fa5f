"""What may come in each state of a call at one end (OR-26): all else changes nothing there.

A caller goes CALLING, CALLED, UP, or LEAVING when a mailbox answers; a callee ASKING, ALERTING, ANSWERED, UP;
both end through HANGING_UP or at once in ENDED. Repeats of messages that were dealt with are expected: they
get the same answer. A renewal (renewing.py) is a call of its own in CALLING, ASKING or ANSWERED; a notice
that ends its run is taken in each of them.
"""

from __future__ import annotations

from typing import Final

from agents.alarms import CallAlarm
from media.leg import MediaClosed, MediaSilent
from protocol.names import Role
from storage.ue_records import CallState
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Cancel,
    Cancelled,
    Decline,
    HangUp,
    Invite,
    KeyResponse,
    MailboxOk,
    NoLegs,
    Notice,
    Ok,
    Refusal,
    Ringing,
    SettledOk,
)

_ALWAYS: Final = frozenset({CallAlarm, MediaClosed})

EXPECTED: Final[dict[tuple[Role, CallState], frozenset[type]]] = {
    (Role.CALLER, CallState.CALLING): _ALWAYS | {Ringing, Ok, MailboxOk, Decline, HangUp},
    (Role.CALLER, CallState.CALLED): _ALWAYS | {Ok, MailboxOk, Decline, HangUp},
    (Role.CALLER, CallState.CANCELLING): _ALWAYS | {Cancelled, Decline},
    (Role.CALLER, CallState.UP): _ALWAYS | {Ok, SettledOk, Bye, HangUp, MediaSilent, Notice, NoLegs},
    (Role.CALLER, CallState.LEAVING): _ALWAYS | {Ok, SettledOk, Bye, HangUp, Notice},
    (Role.CALLER, CallState.HANGING_UP): _ALWAYS | {Ok, SettledOk, Bye, ByeOk},
    (Role.CALLER, CallState.ENDED): _ALWAYS | {Ok, SettledOk, Bye},
    (Role.CALLEE, CallState.ASKING): _ALWAYS | {Invite, KeyResponse, Refusal, Cancel, HangUp},
    (Role.CALLEE, CallState.ALERTING): _ALWAYS | {Invite, Cancel, HangUp},
    (Role.CALLEE, CallState.ANSWERED): _ALWAYS
    | {Invite, Ack, Cancel, Bye, HangUp, MediaSilent, Notice, NoLegs},
    (Role.CALLEE, CallState.UP): _ALWAYS | {Invite, Bye, HangUp, MediaSilent, Notice, NoLegs},
    (Role.CALLEE, CallState.HANGING_UP): _ALWAYS | {Bye, ByeOk},
    (Role.CALLEE, CallState.ENDED): _ALWAYS | {Invite, Cancel, Bye},
}
