"""What the parties prove to each other, as values: bodies of tokens, grants and notices (sections 4 to 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.limits import MEMBERS_MAX
from protocol.names import (
    CallId,
    Epoch,
    ForkName,
    GroupId,
    Hash,
    Identity,
    Kind,
    Nonce,
    NoticeKind,
    Permit,
    Role,
    RunNumber,
    Time,
)
from protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class Holder:
    """One party of a run with its long-term key, as that party and the KMS both know it."""

    role: Role
    key_id: str
    key: Secret  # K_x, 32 octets


class Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_a and token_b; the literal profile carries the two identities and I only."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    nonce: Nonce
    time: Time
    permits: Annotated[tuple[Permit, ...], Meta(max_length=3)]
    offer_hash: Hash


class Grant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_a and grant_b; the literal profile carries the key only."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    nonce: Nonce
    key: Secret  # K, 32 octets
    now: Time
    not_before: Time
    not_after: Time
    fork: ForkName
    kind: Kind


# Deferred delivery (section 6).


class MailboxToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_v: a mailbox asks for a key that it will not get itself."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    mailbox: Identity
    nonce: Nonce
    time: Time
    keep_s: Annotated[int, Meta(ge=1, lt=2**32)]
    offer_hash: Hash
    answer_hash: Hash


class MailboxGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_m: the caller may leave a message under K in this mailbox, with this answer."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    nonce: Nonce
    key: Secret  # K, 32 octets
    now: Time
    not_before: Time
    not_after: Time
    kind: Kind  # MAILBOX
    mailbox: Identity
    answer_hash: Hash


class Receipt(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of receipt_v: until when to keep the message, and how to know a holder of its key."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    mailbox: Identity
    nonce: Nonce
    not_before: Time
    not_after: Time
    proof_hash: Hash


class FetchToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_f: a device of the callee asks for the key of a stored message."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    nonce: Nonce
    time: Time


class FetchGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_f: K of a stored message, with what was offered and answered when it was left."""

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    nonce: Nonce
    key: Secret  # K, 32 octets
    now: Time
    not_before: Time
    not_after: Time
    kind: Kind  # MAILBOX
    mailbox: Identity
    offer_hash: Hash
    answer_hash: Hash


# Transcoders (section 7).


class TranscoderToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_t: a transcoder asks for the two leg keys of a call."""

    call: CallId
    n: RunNumber
    fork: ForkName
    caller: Identity
    callee: Identity
    transcoder: Identity
    nonce: Nonce
    time: Time


class LegGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_t: one key for each leg, and no K."""

    call: CallId
    n: RunNumber
    fork: ForkName
    caller: Identity
    callee: Identity
    nonce: Nonce
    leg_a: Secret  # L_A, 32 octets
    leg_b: Secret  # L_B, 32 octets
    now: Time
    not_before: Time
    not_after: Time


class Notice(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of notice_a and notice_b. fork: None for a mailbox's run. transcoder: None where none is.
    nonce: the run's own, Na or Nb."""

    call: CallId
    n: RunNumber
    fork: ForkName | None
    caller: Identity
    callee: Identity
    transcoder: Identity | None
    nonce: Nonce
    serial: Annotated[int, Meta(ge=1, lt=2**32)]
    kind: NoticeKind


# Conferences (section 8).

Roster = Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX + 1)]
"""The identities that hold an epoch's key, sorted; with the focus, where it mixes."""


class MemberToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_g: a member asks to be let into one conference."""

    call: CallId
    n: RunNumber
    member: Identity
    focus: Identity
    nonce: Nonce
    time: Time
    permits: Annotated[tuple[Permit, ...], Meta(max_length=3)]
    offer_hash: Hash
    group: GroupId


class FocusToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of token_c: a focus asks for the next epoch."""

    group: GroupId
    epoch: Epoch
    nonce: Nonce
    time: Time


class FocusGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_c. key: None for a focus that does not mix."""

    group: GroupId
    epoch: Epoch
    nonce: Nonce
    key: Secret | None  # K_e, 32 octets
    now: Time
    not_before: Time
    not_after: Time
    roster: Roster


class EpochGrant(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of grant_i: K_e for one member."""

    group: GroupId
    epoch: Epoch
    nonce: Nonce
    key: Secret  # K_e, 32 octets
    now: Time
    not_before: Time
    not_after: Time
    roster: Roster


class Departure(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The body of a leave. epoch: the last that the member took."""

    nonce: Nonce
    epoch: Epoch
