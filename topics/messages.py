"""Every message on the bus, as a frozen struct: the union `Message` is the whole language.

Names on the wire are short and apart from the names in the code: `WIRE_NAMES` is the one table of both.
A message that travels from end to end passes the CSCF: towards it `sender` says where answers go, from it
`to` says for which device of the host it is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from protocol.checks import Check, RefusalCode
from protocol.limits import (
    PACKET_OCTETS_MAX,
    SEAL_OCTETS_MAX,
    SOUND_PART_OCTETS,
    SOUND_PARTS_MAX,
    STORED_PACKETS_MAX,
)
from protocol.names import (
    CallId,
    ForkName,
    Hash,
    Host,
    Identity,
    Impi,
    KeyId,
    Nonce,
    Role,
    Run,
    RunNumber,
    Suite,
    Time,
)
from protocol.transport import MediaAddress, Statistics

WIRE_NAMES: Final = {
    "version": "v",
    "sender": "from",
    "to": "to",
    "call": "c",
    "run": "n",
    "caller": "a",
    "callee": "b",
    "caller_key": "kid_a",
    "callee_key": "kid_b",
    "mailbox": "m",
    "mailbox_key": "kid_m",
    "fork": "f",
    "nonce_b": "nb",
    "media": "at",
    "not_after": "until",
}

Sealed = Annotated[bytes, Meta(min_length=28, max_length=SEAL_OCTETS_MAX)]
DescriptionOctets = Annotated[bytes, Meta(min_length=1, max_length=512)]
Text = Annotated[str, Meta(max_length=255)]
HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Contact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a device is reached: the UE host whose inbox it reads, and its private identity there."""

    host: Host
    device: Impi


class Wire(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    rename=lambda name: WIRE_NAMES.get(name, name),
):
    """The form that all messages have: a map with `type` and `v`."""

    version: Literal[1] = 1


# Bootstrapping (section 3): UE and BSF.


class BootstrapRequest(Wire, tag="bootstrap", frozen=True, kw_only=True):
    """UE -> BSF. attempt: drawn by the UE, the same in all four messages of one bootstrapping."""

    attempt: Nonce
    impi: Impi
    sender: Contact


class BootstrapChallenge(Wire, tag="bootstrap-challenge", frozen=True, kw_only=True):
    """BSF -> UE. nonce: base64(RAND || AUTN), as RFC 3310 has it."""

    attempt: Nonce
    to: Impi
    realm: Text
    nonce: Text


class BootstrapAnswer(Wire, tag="bootstrap-answer", frozen=True, kw_only=True):
    """UE -> BSF: the Digest AKA response, or AUTS when the SQN is out of step (response over no password)."""

    attempt: Nonce
    impi: Impi
    nonce: Text
    cnonce: HexDigest
    response: HexDigest
    auts: Annotated[bytes, Meta(min_length=14, max_length=14)] | None
    sender: Contact


class BootstrapDone(Wire, tag="bootstrap-done", frozen=True, kw_only=True):
    """BSF -> UE. server_digest covers B-TID and not_after."""

    attempt: Nonce
    to: Impi
    btid: KeyId
    not_after: Time
    server_digest: HexDigest


class BootstrapRefusal(Wire, tag="bootstrap-refusal", frozen=True, kw_only=True):
    """BSF -> UE; a hint, since nothing seals it."""

    attempt: Nonce
    to: Impi
    code: RefusalCode


# Bootstrapping (section 3): UE, KMS and BSF.


class Attach(Wire, tag="attach", frozen=True, kw_only=True):
    """UE -> KMS: fetch my key now, before the first call."""

    btid: KeyId
    sender: Contact


class ZnRequest(Wire, tag="zn-request", frozen=True, kw_only=True):
    """KMS -> BSF."""

    btid: KeyId
    naf_id: Annotated[bytes, Meta(min_length=6, max_length=255)]
    sealed: Sealed


class ZnResponse(Wire, tag="zn-response", frozen=True, kw_only=True):
    """BSF -> KMS."""

    btid: KeyId
    sealed: Sealed


class Attached(Wire, tag="attached", frozen=True, kw_only=True):
    """KMS -> UE."""

    btid: KeyId
    to: Impi
    sealed: Sealed


class AttachRefusal(Wire, tag="attach-refusal", frozen=True, kw_only=True):
    """KMS -> UE; a hint, since nothing seals it."""

    btid: KeyId
    to: Impi
    code: RefusalCode


# Registration: UE and CSCF.


class Register(Wire, tag="register", frozen=True, kw_only=True):
    """UE -> CSCF: this device takes calls for this identity, for so long."""

    identity: Identity
    expires_s: Annotated[int, Meta(ge=0, le=86_400)]
    sender: Contact


class Registered(Wire, tag="registered", frozen=True, kw_only=True):
    """CSCF -> UE."""

    identity: Identity
    to: Impi
    not_after: Time


# A call (section 4).


class OfRun(Wire, frozen=True, kw_only=True):
    """C, n, ID-A, ID-B in clear, which every message of a call carries."""

    call: CallId
    run: RunNumber
    caller: Identity
    callee: Identity


class DeclineReason(StrEnum):
    """Why a call did not come up, or where no message could be left."""

    BUSY = "busy"  # no free line
    DECLINED = "declined"  # the user said no
    NO_ANSWER = "no-answer"
    NOT_REGISTERED = "not-registered"
    NOTHING_IN_COMMON = "nothing-in-common"  # no SRTP suite or codec of the offer
    NO_KEY = "no-key"  # the KMS refused, or this device has no key
    NOT_PERMITTED = "not-permitted"  # no message may be left: its caller or the KMS's policy says so
    TOO_MANY = "too-many"  # the mailbox has as many messages as it takes, of this caller or in all
    MAILBOX_FULL = "mailbox-full"  # its messages take as many octets as it may keep


class Invite(OfRun, tag="invite", frozen=True, kw_only=True):
    """1  A -> CSCF -> B, to each device; or to the mailbox, with the reason why."""

    caller_key: KeyId
    suite: Suite
    offer: DescriptionOctets
    token_a: Sealed
    media: MediaAddress
    sender: Contact | None = None
    to: Impi | None = None
    diverted: DeclineReason | None = None


class Trying(OfRun, tag="trying", frozen=True, kw_only=True):
    """B -> CSCF, for a repeated INVITE: the device waits for the KMS. No mailbox need be asked yet."""

    sender: Contact


class Ringing(OfRun, tag="ringing", frozen=True, kw_only=True):
    """B -> CSCF -> A: the KMS has granted K, the user is called."""

    sender: Contact | None = None
    to: Impi | None = None


class KeyRequest(OfRun, tag="key-request", frozen=True, kw_only=True):
    """2  B -> KMS."""

    caller_key: KeyId
    callee_key: KeyId
    suite: Suite
    token_a: Sealed
    token_b: Sealed
    sender: Contact


class KeyResponse(OfRun, tag="key-response", frozen=True, kw_only=True):
    """3  KMS -> B."""

    fork: ForkName
    grant_a: Sealed
    grant_b: Sealed
    to: Impi


class Refusal(OfRun, tag="refusal", frozen=True, kw_only=True):
    """3' KMS -> B, to A for a SETTLED, to the mailbox (no `to`) for a DEPOSIT. sealed: where the requester's
    token has opened, else a hint."""

    code: RefusalCode
    sealed: Sealed | None
    to: Impi | None


class Ok(OfRun, tag="ok", frozen=True, kw_only=True):
    """4  B -> CSCF -> A."""

    fork: ForkName
    nonce_b: Nonce
    answer: DescriptionOctets
    grant_a: Sealed
    confirm_b: Hash
    media: MediaAddress
    sender: Contact | None = None
    to: Impi | None = None


class Ack(OfRun, tag="ack", frozen=True, kw_only=True):
    """5  A -> CSCF -> B."""

    fork: ForkName
    confirm_a: Hash
    to: Impi | None = None


class Settled(OfRun, tag="settled", frozen=True, kw_only=True):
    """A -> KMS, repeated until it is answered (section 5)."""

    caller_key: KeyId
    suite: Suite
    sealed: Sealed
    sender: Contact


class SettledOk(OfRun, tag="settled-ok", frozen=True, kw_only=True):
    """KMS -> A."""

    to: Impi


class Decline(OfRun, tag="decline", frozen=True, kw_only=True):
    """B -> CSCF, and CSCF -> A once no device is left: the call will not come up. A hint as all call control
    is: it ends a call, it never weakens one."""

    reason: DeclineReason
    sender: Contact | None = None
    to: Impi | None = None


class Cancel(OfRun, tag="cancel", frozen=True, kw_only=True):
    """A -> CSCF, CSCF -> B: stop ringing. Each hop repeats its own until Cancelled comes; towards a mailbox,
    which gives up by itself, it goes once."""

    to: Impi | None = None


class Cancelled(OfRun, tag="cancelled", frozen=True, kw_only=True):
    """B -> CSCF, CSCF -> A."""

    sender: Contact | None = None
    to: Impi | None = None


class Bye(OfRun, tag="bye", frozen=True, kw_only=True):
    """Either end -> CSCF -> the other; repeated until ByeOk comes. by: CALLER, CALLEE or MAILBOX.
    fork, proof: None between a caller and a mailbox, which does not hold K."""

    fork: ForkName | None
    by: Role
    proof: Hash | None
    reason: Text | None = None  # why a mailbox takes no more
    to: Impi | None = None


class ByeOk(OfRun, tag="bye-ok", frozen=True, kw_only=True):
    """The other end's answer. by: who answers. kept: packets that a mailbox has stored, for good."""

    fork: ForkName | None
    by: Role
    kept: int | None = None
    to: Impi | None = None


# Deferred delivery (section 6): caller, mailbox, KMS and the callee's devices.


class Deposit(OfRun, tag="deposit", frozen=True, kw_only=True):
    """2  V -> KMS."""

    mailbox: Identity
    caller_key: KeyId
    mailbox_key: KeyId
    suite: Suite
    token_a: Sealed
    token_v: Sealed


class DepositResponse(OfRun, tag="deposit-response", frozen=True, kw_only=True):
    """3  KMS -> V."""

    grant_m: Sealed
    receipt_v: Sealed


class MailboxOk(OfRun, tag="mailbox-ok", frozen=True, kw_only=True):
    """4  V -> CSCF -> A: the 200 OK of a mailbox. It is repeated for each repeated INVITE."""

    mailbox: Identity
    answer: DescriptionOctets
    grant_m: Sealed
    media: MediaAddress
    diverted: DeclineReason
    to: Impi | None = None


class Present(Wire, tag="present", frozen=True, kw_only=True):
    """CSCF -> V: this device is registered for this identity until then (6: REGISTERED ID-B)."""

    identity: Identity
    device: Contact
    not_after: Time


class Waiting(OfRun, tag="waiting", frozen=True, kw_only=True):
    """6  V -> B: MESSAGE WAITING. What it says is the mailbox's word until the key is fetched."""

    mailbox: Identity
    caller_key: KeyId
    offer: DescriptionOctets
    answer: DescriptionOctets
    packets: Annotated[int, Meta(ge=0)]  # SRTP and SRTCP
    parts: Annotated[int, Meta(ge=0)]  # in which they are handed out
    left_at: Time
    not_after: Time
    request: Nonce | None = None  # of the Mailbox question that this answers
    to: Impi


class Mailbox(Wire, tag="mailbox", frozen=True, kw_only=True):
    """B -> V: what is there for me? Answered by a Waiting for each message, then by MailboxSays."""

    identity: Identity
    request: Nonce
    sender: Contact


class MailboxSays(Wire, tag="mailbox-says", frozen=True, kw_only=True):
    """V -> B: that was all. messages: how many there are. code: why there is no answer."""

    identity: Identity
    request: Nonce
    messages: Annotated[int, Meta(ge=0)]
    code: RefusalCode | None = None
    to: Impi


class Fetch(OfRun, tag="fetch", frozen=True, kw_only=True):
    """7  B -> KMS. caller_key: as the mailbox has told it; the KMS compares it with its record."""

    caller_key: KeyId
    callee_key: KeyId
    suite: Suite
    token_f: Sealed
    sender: Contact


class FetchResponse(OfRun, tag="fetch-response", frozen=True, kw_only=True):
    """8  KMS -> B."""

    grant_f: Sealed
    to: Impi


class Retrieve(OfRun, tag="retrieve", frozen=True, kw_only=True):
    """9  B -> V: so many parts of the message from this one on."""

    part: Annotated[int, Meta(ge=0)]
    sender: Contact


class Stored(OfRun, tag="stored", frozen=True, kw_only=True):
    """9  V -> B: one part, its packets as they came."""

    part: Annotated[int, Meta(ge=0)]
    packets: Annotated[
        tuple[Annotated[bytes, Meta(max_length=PACKET_OCTETS_MAX)], ...], Meta(max_length=STORED_PACKETS_MAX)
    ]
    to: Impi


class Collected(OfRun, tag="collected", frozen=True, kw_only=True):
    """9  B -> V, or A -> V who takes her message back: it may be deleted."""

    proof: Hash
    sender: Contact


class CollectedOk(OfRun, tag="collected-ok", frozen=True, kw_only=True):
    """V -> B: the message is not there, or no longer."""

    to: Impi


class MailboxRefusal(OfRun, tag="mailbox-refusal", frozen=True, kw_only=True):
    """V -> B, for a Retrieve or Collected; a hint, since nothing seals it."""

    code: RefusalCode
    to: Impi


# What a user says to a handset, and what handsets tell the world.


class Dial(Wire, tag="dial", frozen=True, kw_only=True):
    """Command line -> UE: call this identity. request: names the wish; its repeat is no second call.
    sound: which one to say, of those that the host was given (see Sound); the host's own when None."""

    request: Nonce
    to: Impi
    callee: Identity
    sound: Nonce | None = None


class ListMessages(Wire, tag="list-messages", frozen=True, kw_only=True):
    """Command line -> UE: tell, by reports that carry the request, what is in this user's mailbox, and which
    messages this device has left in others'."""

    request: Nonce
    to: Impi


class PlayMessage(Wire, tag="play-message", frozen=True, kw_only=True):
    """Command line -> UE: fetch this message, play it, and have it deleted if it was whole."""

    request: Nonce
    to: Impi
    caller: Identity
    call: CallId
    keep: bool = False  # leave it in the mailbox, whole or not


class DeleteMessage(Wire, tag="delete-message", frozen=True, kw_only=True):
    """Command line -> UE: have this message deleted, unheard; one for this user, or one that she has left."""

    request: Nonce
    to: Impi
    caller: Identity
    call: CallId


class HangUp(Wire, tag="hang-up", frozen=True, kw_only=True):
    """Command line -> UE."""

    to: Impi
    caller: Identity
    call: CallId


class SoundUse(StrEnum):
    """What a sound is to its UE host."""

    SAY = "say"  # the command's, to be played into a call
    KEPT = "kept"  # the host's answer: it has the whole sound
    HEARD = "heard"  # the host's: what a handset heard of a call


class Sound(Wire, tag="sound", frozen=True, kw_only=True):
    """One second, at most, of a sound between the command line and a UE host; topics/sounds.py takes a sound
    apart and puts it together. about: the sound's own name, or C of the call that was heard."""

    use: SoundUse
    about: Nonce
    device: Impi | None = None  # who heard it
    part: Annotated[int, Meta(ge=0)] = 0
    parts: Annotated[int, Meta(ge=0, le=SOUND_PARTS_MAX)] = 0
    samples: Annotated[bytes, Meta(max_length=SOUND_PART_OCTETS)] = b""  # 16 bits each, little-endian, 8 kHz


class ReportEvent(StrEnum):
    """What a UE tells the world."""

    ATTACHED = "attached"  # the KMS holds this device's key
    REGISTERED = "registered"
    CALLING = "calling"
    RINGING = "ringing"
    UP = "up"  # grant and confirmation verified, media flows
    CONFIRMED = "confirmed"  # the callee saw confirm_a
    REFUSED = "refused"  # a message failed a check of this device's
    MEDIA = "media"  # how the media of a call went
    ENDED = "ended"
    MAILBOX = "mailbox"  # no device answered; a mailbox does, and keeps messages until `until`
    LEFT = "left"  # the mailbox has confirmed that it has stored the message; of a list: one left before
    WAITING = "waiting"  # a message for this device's user is in the mailbox
    LISTED = "listed"  # what was asked for by ListMessages has been told
    HEARD = "heard"  # a message was fetched, decrypted and played
    COLLECTED = "collected"  # the mailbox has deleted a message
    FAILED = "failed"  # a message was not fetched, or not deleted


class Report(Wire, tag="report", frozen=True, kw_only=True):
    """UE -> ims.reports."""

    event: ReportEvent
    device: Impi
    at: Time
    call: CallId | None = None
    run: RunNumber | None = None
    caller: Identity | None = None
    callee: Identity | None = None
    fork: ForkName | None = None
    request: Nonce | None = None  # of the Dial
    check: Check | None = None
    reason: Text | None = None
    statistics: Statistics | None = None
    until: Time | None = None  # not_after of a message's key
    left_at: Time | None = None  # when a message was left: not_before + SKEW_S once its key is fetched
    packets: int | None = None  # that a mailbox has of it
    whole: bool | None = None  # heard to its end, the sender's own; else cut short, or perhaps


# What an operator orders, and what agents tell of themselves.


class Revoke(Wire, tag="revoke", frozen=True, kw_only=True):
    """Command line -> custodian: nothing is granted with this key id from now on."""

    key_id: KeyId
    order: Nonce  # names the order, so that its audit record can be found


class Status(Wire, tag="status", frozen=True, kw_only=True):
    """An agent -> ims.status, every few seconds: how it stands."""

    role: Text
    instance: Text
    at: Time
    started: Time
    waiting_for: Text | None = None  # what keeps it from being ready
    partitions: Annotated[tuple[int, ...], Meta(max_length=64)] = ()
    lag: int = 0  # records of its partitions that it has not dealt with
    handled: int = 0  # inputs since it started


class AuditEvent(StrEnum):
    """What the KMS, its custodian and the BSF write down."""

    BOOTSTRAPPED = "bootstrapped"
    ATTACHED = "attached"
    GRANTED = "granted"
    SETTLED = "settled"
    REFUSED = "refused"
    REVOKED = "revoked"
    DEPOSITED = "deposited"  # a key for a message that was left
    FETCHED = "fetched"  # the same key, by a device of the callee


class Audit(Wire, tag="audit", frozen=True, kw_only=True):
    """KMS, BSF -> ims.audit. id: the same for a repeat of the same fact, so that auditors count it once."""

    id: Hash
    event: AuditEvent
    at: Time
    key_id: KeyId | None = None  # for what concerns one key only
    impi: Impi | None = None
    call: CallId | None = None
    run: RunNumber | None = None
    caller: Identity | None = None
    callee: Identity | None = None
    caller_key: KeyId | None = None
    callee_key: KeyId | None = None
    mailbox: Identity | None = None
    fork: ForkName | None = None
    not_after: Time | None = None
    check: Check | None = None  # the true reason of a refusal
    code: RefusalCode | None = None  # what the peer heard
    order: Nonce | None = None  # of the operator who wanted it


Message = (
    BootstrapRequest
    | BootstrapChallenge
    | BootstrapAnswer
    | BootstrapDone
    | BootstrapRefusal
    | Attach
    | ZnRequest
    | ZnResponse
    | Attached
    | AttachRefusal
    | Register
    | Registered
    | Invite
    | Trying
    | Ringing
    | KeyRequest
    | KeyResponse
    | Refusal
    | Ok
    | Ack
    | Settled
    | SettledOk
    | Decline
    | Cancel
    | Cancelled
    | Bye
    | ByeOk
    | Deposit
    | DepositResponse
    | MailboxOk
    | Present
    | Waiting
    | Mailbox
    | MailboxSays
    | Fetch
    | FetchResponse
    | Retrieve
    | Stored
    | Collected
    | CollectedOk
    | MailboxRefusal
    | Dial
    | ListMessages
    | PlayMessage
    | DeleteMessage
    | HangUp
    | Sound
    | Revoke
    | Status
    | Report
    | Audit
)


def run_of(message: OfRun, suite: Suite) -> Run:
    """The run that a message of a call belongs to, as seals and records name it."""
    return Run(call=message.call, n=message.run, caller=message.caller, callee=message.callee, suite=suite)


def clear(run: Run) -> dict[str, Any]:
    """C, n, ID-A, ID-B as the fields that every message of the run has."""
    return {"call": run.call, "run": run.n, "caller": run.caller, "callee": run.callee}


def named(message: OfRun) -> dict[str, Any]:
    """The same fields, for an answer to a message of the run."""
    return {"call": message.call, "run": message.run, "caller": message.caller, "callee": message.callee}
