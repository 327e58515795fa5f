"""What the parties prove to each other, as values: the bodies of tokens and grants (sections 4 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.names import CallId, ForkName, Hash, Identity, Kind, Nonce, Permit, Role, RunNumber, Time
from protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class Holder:
    """One party of a run with its long-term key, as that party and the KMS both know it."""

    role: Role  # CALLER, CALLEE or MAILBOX
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
