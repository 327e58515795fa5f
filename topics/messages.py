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
from protocol.limits import SEAL_OCTETS_MAX, SOUND_PART_OCTETS, SOUND_PARTS_MAX
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


class Invite(OfRun, tag="invite", frozen=True, kw_only=True):
    """1  A -> CSCF -> B."""

    caller_key: KeyId
    suite: Suite
    offer: DescriptionOctets
    token_a: Sealed
    media: MediaAddress
    sender: Contact | None = None
    to: Impi | None = None


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
    """3' KMS -> B, or to A for a SETTLED. sealed: where the requester's token has opened, else a hint."""

    code: RefusalCode
    sealed: Sealed | None
    to: Impi


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


class DeclineReason(StrEnum):
    """Why a call did not come up."""

    BUSY = "busy"  # no free line
    DECLINED = "declined"  # the user said no
    NO_ANSWER = "no-answer"
    NOT_REGISTERED = "not-registered"
    NOTHING_IN_COMMON = "nothing-in-common"  # no SRTP suite or codec of the offer
    NO_KEY = "no-key"  # the KMS refused, or this device has no key


class Decline(OfRun, tag="decline", frozen=True, kw_only=True):
    """B -> CSCF -> A, or CSCF -> A: the call will not come up. A hint as all call control is: it ends a call,
    it never weakens one."""

    reason: DeclineReason
    to: Impi | None = None


class Cancel(OfRun, tag="cancel", frozen=True, kw_only=True):
    """A -> CSCF -> B: stop ringing; repeated until Cancelled comes."""

    to: Impi | None = None


class Cancelled(OfRun, tag="cancelled", frozen=True, kw_only=True):
    """B -> CSCF -> A."""

    to: Impi | None = None


class Bye(OfRun, tag="bye", frozen=True, kw_only=True):
    """Either end -> CSCF -> the other; repeated until ByeOk comes. by: CALLER or CALLEE."""

    fork: ForkName
    by: Role
    proof: Hash
    to: Impi | None = None


class ByeOk(OfRun, tag="bye-ok", frozen=True, kw_only=True):
    """The other end's answer. by: who answers."""

    by: Role
    to: Impi | None = None


# What a user says to a handset, and what handsets tell the world.


class Dial(Wire, tag="dial", frozen=True, kw_only=True):
    """Command line -> UE: call this identity. request: names the wish; its repeat is no second call.
    sound: which one to say, of those that the host was given (see Sound); the host's own when None."""

    request: Nonce
    to: Impi
    callee: Identity
    sound: Nonce | None = None


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
    | Dial
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
