"""Conferences, section 8: one key for all who are in, and another as soon as somebody comes or goes.

    1  i   -> C    INVITE   C, n, ID-i, ID-C, KID-i, suite, offer, G, token_g
    2  C   -> KMS  GROUP    G, e, ID-C, KID-C, suite, changes, token_c
    3  KMS -> C             grant_c, and for each member grant_i
    4  C   -> i    200 OK, or REKEY with grant_i

The KMS decides who is in, and each grant names them. A change is enc("join", token_g), enc("leave", the
sealed leave), enc("remove", ID), enc("absent", ID) or enc("refresh"); token_c binds H of each, in their
order. In the hardened profile only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc, enc_body
from protocol.evidence import Departure, EpochGrant, FocusGrant, FocusToken, Holder, MemberToken
from protocol.limits import SKEW_S, TOKEN_AGE_S
from protocol.names import Epoch, GroupId, Identity, Role, Run, Suite
from protocol.opening import opened
from protocol.sealing import Channel, Random, down, up
from protocol.secret import Secret


class EpochName(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of one conference, and the suite that the focus has named."""

    group: GroupId
    epoch: Epoch
    focus: Identity
    suite: Suite


REFRESH: Final = enc("refresh")


def join_change(token_g: bytes) -> bytes:
    """change of a join: what token_c binds the hash of."""
    return enc("join", token_g)


def leave_change(sealed: bytes) -> bytes:
    """change of a leave. sealed: the member's own, as it came."""
    return enc("leave", sealed)


def remove_change(identity: str) -> bytes:
    """change of a removal."""
    return enc("remove", identity)


def absent_change(identity: str) -> bytes:
    """change of one who takes no epoch any more: out, and free to come back."""
    return enc("absent", identity)


# What a member asks, and the KMS judges. `run` is (C, n, ID-i, ID-C) with the member's suite.


def seal_member_token(holder: Holder, run: Run, token: MemberToken, *, random: Random) -> bytes:
    """token_g. holder: the member with its own key."""
    context = (*run.clear, holder.key_id, token.group)
    return up(holder.key, run.suite, Role.MEMBER).seal("token-g", context, enc_body(token), random)


def open_member_token(holder: Holder, run: Run, group: bytes, sealed: bytes) -> MemberToken:
    """The body of token_g under the member's up key. Raises Refused(OR-04)."""
    context = (*run.clear, holder.key_id, group)
    channel = up(holder.key, run.suite, Role.MEMBER)
    return opened(channel, "token-g", context, sealed, MemberToken, Check.OR_04)  # OR-04


def compare_join(run: Run, group: bytes, token: MemberToken, now: int) -> None:
    """What token_g says against the clear values. Raises Refused(OR-06) or (OR-09)."""
    if (token.call, token.n, token.member, token.focus, token.group) != (*run.clear, group):  # OR-06
        raise Refused(Check.OR_06)
    if not now - TOKEN_AGE_S <= token.time <= now + SKEW_S:  # OR-09
        raise Refused(Check.OR_09, RefusalCode.STALE)


def seal_leave(
    holder: Holder, suite: Suite, group: bytes, member: str, departure: Departure, *, random: Random
) -> bytes:
    """A member's leave. suite: the one of its token_g."""
    context = (group, departure.epoch, member, holder.key_id)
    return up(holder.key, suite, Role.MEMBER).seal("leave", context, enc_body(departure), random)


def open_leave(
    holder: Holder, suite: Suite, group: bytes, epoch: int, member: str, sealed: bytes, *, nonce: bytes
) -> None:
    """A leave that this member has sealed since its join. epoch: as it came in clear. nonce: N_i, of the
    joining token. Raises Refused(OR-05) or (OR-07)."""
    context = (group, epoch, member, holder.key_id)
    channel = up(holder.key, suite, Role.MEMBER)
    departure = opened(channel, "leave", context, sealed, Departure, Check.OR_05)  # OR-05
    if (departure.nonce, departure.epoch) != (nonce, epoch):  # OR-07
        raise Refused(Check.OR_07)


# What the focus asks, and the KMS judges.


def seal_focus_token(
    holder: Holder, name: EpochName, token: FocusToken, *, changes: Sequence[bytes], random: Random
) -> bytes:
    """token_c. changes: as enc() of each, in their order."""
    context = _focus_context(holder, name, changes)
    return up(holder.key, name.suite, Role.FOCUS).seal("token-c", context, enc_body(token), random)


def open_focus_token(
    holder: Holder, name: EpochName, sealed: bytes, *, changes: Sequence[bytes]
) -> FocusToken:
    """The body of token_c under the focus's up key, bound to these changes. Raises Refused(OR-05)."""
    channel = up(holder.key, name.suite, Role.FOCUS)
    context = _focus_context(holder, name, changes)
    return opened(channel, "token-c", context, sealed, FocusToken, Check.OR_05)  # OR-05


def compare_group(name: EpochName, token: FocusToken, now: int) -> None:
    """What token_c says against the clear values. Raises Refused(OR-07) or (OR-09)."""
    if (token.group, token.epoch) != (name.group, name.epoch):  # OR-07
        raise Refused(Check.OR_07)
    if not now - TOKEN_AGE_S <= token.time <= now + SKEW_S:  # OR-09
        raise Refused(Check.OR_09, RefusalCode.STALE)


# What the KMS answers, and the focus and each member check.


def seal_focus_grant(
    holder: Holder, name: EpochName, grant: FocusGrant, *, token_c: bytes, random: Random
) -> bytes:
    """grant_c, for the focus."""
    context = (name.group, name.epoch, name.focus, holder.key_id, digest(token_c))
    return down(holder.key, name.suite, Role.FOCUS).seal("grant-c", context, enc_body(grant), random)


def open_focus_grant(
    holder: Holder, name: EpochName, sealed: bytes, *, token_c: bytes, nonce: bytes, now: int
) -> FocusGrant:
    """grant_c, if it is for this focus's own token_c. nonce: Nc. Raises Refused(OR-20 to OR-23)."""
    context = (name.group, name.epoch, name.focus, holder.key_id, digest(token_c))
    channel = down(holder.key, name.suite, Role.FOCUS)
    grant = opened(channel, "grant-c", context, sealed, FocusGrant, Check.OR_20)  # OR-20
    if grant.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    if (grant.group, grant.epoch) != (name.group, name.epoch):  # OR-22
        raise Refused(Check.OR_22)
    if not grant.not_before <= now <= grant.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    return grant


def seal_epoch_grant(
    down_key: Secret,
    suite: Suite,
    grant: EpochGrant,
    *,
    focus: str,
    member: str,
    key_id: str,
    token_hash: bytes,
    random: Random,
) -> bytes:
    """grant_i. down_key: down(K_i, member), 32 octets. suite: of its token_g. token_hash: H(token_g)."""
    context = (grant.group, grant.epoch, focus, member, key_id, token_hash)
    return Channel(down_key, suite).seal("grant-g", context, enc_body(grant), random)


def open_epoch_grant(
    holder: Holder,
    suite: Suite,
    sealed: bytes,
    *,
    group: bytes,
    epoch: int,
    focus: str,
    member: str,
    token_g: bytes,
    nonce: bytes,
    epoch_taken: int,
    now: int,
) -> EpochGrant:
    """grant_i, if it is for this member's own token_g, lists it, and is of a later epoch than the last.

    group, epoch, focus: as they came in clear. nonce: N_i. epoch_taken: the last one that this member took,
    0 before the first. Raises Refused(OR-20 to OR-23) or (OR-29).
    """
    context = (group, epoch, focus, member, holder.key_id, digest(token_g))
    channel = down(holder.key, suite, Role.MEMBER)
    grant = opened(channel, "grant-g", context, sealed, EpochGrant, Check.OR_20)  # OR-20
    if grant.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    if (grant.group, grant.epoch) != (group, epoch) or member not in grant.roster:  # OR-22
        raise Refused(Check.OR_22)
    if not grant.not_before <= now <= grant.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    if grant.epoch <= epoch_taken:  # OR-29
        raise Refused(Check.OR_29, RefusalCode.REPLAY)
    return grant


# Refusals of a GROUP, sealed where token_c has opened.


class _RefusalBody(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    nonce: bytes
    code: RefusalCode


def seal_group_refusal(
    holder: Holder, name: EpochName, code: RefusalCode, *, token_c: bytes, nonce: bytes, random: Random
) -> bytes:
    """The sealed part of a refusal, for the focus. nonce: Nc."""
    context = (name.group, name.epoch, holder.key_id, digest(token_c))
    body = enc_body(_RefusalBody(nonce, code))
    return down(holder.key, name.suite, Role.FOCUS).seal("refuse", context, body, random)


def open_group_refusal(
    holder: Holder, name: EpochName, sealed: bytes, *, token_c: bytes, nonce: bytes
) -> RefusalCode:
    """The code that the KMS sealed for this token_c. Raises Refused(OR-20) or (OR-21)."""
    context = (name.group, name.epoch, holder.key_id, digest(token_c))
    channel = down(holder.key, name.suite, Role.FOCUS)
    refusal = opened(channel, "refuse", context, sealed, _RefusalBody, Check.OR_20)  # OR-20
    if refusal.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    return refusal.code


def _focus_context(holder: Holder, name: EpochName, changes: Sequence[bytes]) -> tuple[object, ...]:
    return (name.group, name.epoch, name.focus, holder.key_id, *map(digest, changes))
