"""What an operator orders, and what agents tell of themselves."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from protocol.checks import Check, RefusalCode
from protocol.limits import MEMBERS_MAX
from protocol.names import (
    CallId,
    Epoch,
    ForkName,
    GroupId,
    Hash,
    Identity,
    Impi,
    KeyId,
    Nonce,
    RunNumber,
    Time,
)
from topics.messages.form import Text, Wire


class Revoke(Wire, tag="revoke", frozen=True, kw_only=True):
    """Command line -> custodian: nothing is granted with this key id from now on."""

    key_id: KeyId
    order: Nonce  # names the order, so that its audit record can be found


class RevokeRelease(Wire, tag="revoke-release", frozen=True, kw_only=True):
    """Command line -> custodian: what was released to transcoders of this call ends, and nothing is again."""

    caller: Identity
    call: CallId
    order: Nonce


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
    RELEASED = "released"  # leg keys, to a transcoder
    RELEASE_REVOKED = "release-revoked"
    WITHDRAWN = "withdrawn"  # a key was destroyed before its time, and both sides were told
    EPOCH = "epoch"  # a key for all of `roster`


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
    transcoder: Identity | None = None
    group: GroupId | None = None
    focus: Identity | None = None
    epoch: Epoch | None = None
    roster: Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX + 1)] = ()
