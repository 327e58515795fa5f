"""The messages of a call as a ladder, one line for each, as they happen.

alice        cscf         bob          kms
  |--INVITE---->|            |            |   token_a
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from protocol.names import NoticeKind, Role
from topics.messages import (
    Ack,
    Attached,
    AttachRefusal,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    Bye,
    ByeOk,
    Cancelled,
    Change,
    Collected,
    CollectedOk,
    Decline,
    Deposit,
    DepositResponse,
    Fetch,
    FetchResponse,
    GroupGrant,
    GroupHint,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    Interpose,
    InUse,
    Invite,
    Join,
    Joined,
    JoinRefused,
    KeyRequest,
    KeyResponse,
    Leave,
    LeaveOk,
    Mailbox,
    MailboxOk,
    MailboxRefusal,
    MailboxSays,
    Message,
    NoLegs,
    Notice,
    Ok,
    PutOut,
    RefreshChange,
    Refusal,
    Registered,
    Rekey,
    Release,
    ReleaseResponse,
    Retrieve,
    Ringing,
    Settled,
    SettledOk,
    Stored,
    Trying,
    Waiting,
    ZnRequest,
    ZnResponse,
)

_WIDTH: Final = 13  # from one party's line to the next
_MARGIN: Final = 4
_NAMES: Final[dict[type, str]] = {
    KeyRequest: "REQUEST",
    KeyResponse: "RESPONSE",
    Ok: "200 OK",
    DepositResponse: "DEPOSITED",
    ReleaseResponse: "RELEASED",
    GroupRequest: "GROUP",
    GroupResponse: "GRANTED",
    GroupGrant: "GRANT",
    GroupRefusal: "REFUSAL",
    GroupHint: "HINT",
    JoinRefused: "REFUSED",
    MailboxOk: "200 OK",
    FetchResponse: "FETCHED",
    CollectedOk: "DELETED",
    BootstrapChallenge: "CHALLENGE",
    BootstrapAnswer: "RESPONSE",
    BootstrapDone: "B-TID",
    ZnRequest: "ZN-REQ",
    ZnResponse: "ZN-RSP",
}


class Ladder:
    """Draws with one column for each party, in the order given."""

    def __init__(self, parties: Sequence[str]) -> None:
        self._columns = {party: _MARGIN + _WIDTH * index for index, party in enumerate(parties)}

    def head(self) -> str:
        """The parties' names over their lines."""
        line = ""
        for party, column in self._columns.items():
            line = line.ljust(max(0, column - (len(party) - 1) // 2)) + party
        return line

    def hop(self, sender: str, receiver: str, message: Message) -> str | None:
        """An arrow with the message's name, and what is in it; None when a party has no column."""
        if sender not in self._columns or receiver not in self._columns:
            return None
        left, right = sorted((self._columns[sender], self._columns[receiver]))
        body = f"--{name_of(message)}".ljust(right - left - 1, "-")
        body = body[:-1] + ">" if self._columns[sender] == left else "<" + body[1:]
        line = self._lifelines()
        return self._noted(line[: left + 1] + body + line[right:], note_of(message))

    def note(self, text: str) -> str:
        """Something that happened at one party."""
        return self._noted(self._lifelines(), text)

    def _lifelines(self) -> str:
        line = ""
        for column in self._columns.values():
            line = line.ljust(column) + "|"
        return line

    def _noted(self, line: str, note: str) -> str:
        return f"{line}   {note}".rstrip()


def sender_of(receiver: str, message: Message, *, caller: str, callee: str) -> str:
    """Who sent a message of a call that was found in an inbox; caller, callee: their hosts' names."""
    match message:
        case (
            KeyResponse() | SettledOk() | FetchResponse() | DepositResponse() | ReleaseResponse() | Refusal()
        ):
            return "kms"
        case Release():
            return "transcoder"
        case Notice() | NoLegs() if receiver == "cscf":
            of_transcoder = isinstance(message, NoLegs) or message.kind is NoticeKind.LEG
            return "transcoder" if of_transcoder else "kms"
        case Waiting() | MailboxSays() | Stored() | CollectedOk() | MailboxRefusal() | Deposit():
            return "voicemail"
        case Fetch() | KeyRequest():
            return message.sender.host
        case Retrieve() | Collected() | Mailbox() if receiver == "cscf":
            return message.sender.host
        case _ if receiver not in {"cscf", "kms"}:
            return "cscf"
        case MailboxOk() | Bye(by=Role.MAILBOX) | ByeOk(by=Role.MAILBOX) | Decline(sender=None):
            return "voicemail"
        case Trying():
            return message.sender.host
        case Ringing() | Ok() | Decline() | Cancelled():
            return callee if message.sender is None else message.sender.host
        case Bye() | ByeOk():
            return caller if message.by is Role.CALLER else callee
        case _:
            return caller


def name_of(message: Message) -> str:
    """The message's name as the protocol's text has it."""
    known = _NAMES.get(type(message))
    return known or str(message.__struct_config__.tag).upper()


def note_of(message: Message) -> str:
    """What is sealed in it, and what can be read by anybody."""
    match message:
        case Invite():
            return "token_a"
        case KeyRequest():
            return "token_a token_b"
        case KeyResponse():
            return f"F {message.fork.hex()[:4]}  grant_a grant_b"
        case Ok():
            return "grant_a confirm_b"
        case Ack():
            return "confirm_a"
        case Settled():
            return "sealed: F, Na"
        case Deposit():
            return "token_a token_v"
        case DepositResponse():
            return "grant_m receipt_v"
        case MailboxOk():
            return f"grant_m, answered by {message.mailbox}"
        case Fetch():
            return "token_f"
        case FetchResponse():
            return "grant_f"
        case Interpose():
            return "offer and answer share no codec"
        case Release():
            return "token_t"
        case ReleaseResponse():
            return "grant_t notice_a notice_b"
        case Notice():
            return f"{message.kind}, sealed for the {message.whom}"
        case NoLegs():
            return message.code
        case Join():
            return f"{_user(message.member)}: token_g"
        case GroupRequest():
            return f"epoch {message.epoch}: {', '.join(map(_change, message.changes))}; token_c"
        case GroupResponse():
            return f"epoch {message.epoch}: grant_c"
        case GroupGrant() | Joined() | Rekey():
            return f"{_user(message.member)}: grant of epoch {message.epoch}"
        case InUse():
            return f"{_user(message.member)}: epoch {message.epoch}"
        case Leave():
            return f"{_user(message.member)}: sealed, after epoch {message.epoch}"
        case LeaveOk():
            return _user(message.member)
        case PutOut():
            return f"{_user(message.member)}: {message.reason}"
        case JoinRefused():
            return f"{_user(message.member)}: {message.code}, a hint"
        case GroupRefusal():
            return f"{message.code}, {'sealed' if message.sealed else 'not sealed: a hint'}"
        case Waiting():
            return f"{message.packets} packets"
        case Stored():
            return f"part {message.part}: {len(message.packets)} packets"
        case Collected():
            return "proof of K"
        case ByeOk() if message.kept is not None:
            return f"{message.kept} packets kept"
        case Refusal():
            return f"{message.code}, {'sealed' if message.sealed else 'not sealed: a hint'}"
        case Decline():
            return message.reason
        case Bye():
            return "proof of K" if message.proof else (message.reason or "")
        case BootstrapChallenge():
            return "RAND AUTN"
        case BootstrapAnswer():
            return "AUTS" if message.auts else "digest of RES"
        case BootstrapDone():
            return message.btid
        case ZnRequest():
            return "sealed under K_zn: which B-TID"
        case ZnResponse():
            return "sealed under K_zn: Ks_NAF, IMPI, identities"
        case Attached():
            return "sealed under Ks_NAF: both hold it"
        case AttachRefusal() | BootstrapRefusal():
            return message.code
        case Registered():
            return message.identity
        case _:
            return ""


def _user(identity: str) -> str:
    """`alice` of `sip:alice@ims.example`."""
    return identity.removeprefix("sip:").partition("@")[0]


def _change(change: Change) -> str:
    """One change of a GROUP in words."""
    match change:
        case RefreshChange():
            return "refresh"
        case _:
            return f"{change.__struct_config__.tag} {_user(change.member)}"
