"""What the parties prove to each other, as values: the bodies of tokens and grants (section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.names import CallId, ForkName, Hash, Identity, Kind, Nonce, Permit, Role, RunNumber, Time
from protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class Holder:
    """One end of a run with its long-term key, as that end and the KMS both know it."""

    role: Role  # CALLER or CALLEE
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
