"""Transcoders, section 7: a call between two ends that share no codec, by way of one that never gets K.

    2  T   -> KMS  RELEASE   C, n, F, ID-A, ID-B, ID-T, KID-T, suite, token_t
    3  KMS -> T              grant_t, notice_a, notice_b
    4  T   -> A, B NOTICE    C, n, F, ID-A, ID-B, ID-T, kind, notice_x

Each side has a key of its own with T: L_x = KDF(K, enc("leg", C, n, F, ID-T, ID-x), 32). Notices are also how
the KMS ends a run, or a leg, of which it has destroyed the key (section 10). In the hardened profile only.
"""

from __future__ import annotations

from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc, enc_body
from protocol.evidence import Holder, LegGrant, Notice, TranscoderToken
from protocol.limits import SKEW_S, TOKEN_AGE_S
from protocol.names import Role, Run, Suite
from protocol.opening import opened
from protocol.sealing import Channel, Random, down, kdf, up
from protocol.secret import Secret


def leg_key(key: Secret, run: Run, fork: bytes, transcoder: str, identity: str) -> Secret:
    """L_x, 32 octets: what `identity`, ID-A or ID-B, shares with this transcoder. key: K of the run."""
    return kdf(key, enc("leg", run.call, run.n, fork, transcoder, identity), 32)


# What the transcoder asks, and the KMS judges. `run` names the transcoder's own suite.


def seal_transcoder_token(holder: Holder, run: Run, token: TranscoderToken, *, random: Random) -> bytes:
    """token_t. holder: the transcoder with its own key."""
    context = _context(holder, run, token.fork, token.transcoder)
    return up(holder.key, run.suite, Role.TRANSCODER).seal("token-t", context, enc_body(token), random)


def open_transcoder_token(
    holder: Holder, run: Run, fork: bytes, transcoder: str, sealed: bytes
) -> TranscoderToken:
    """The body of token_t under the transcoder's up key. Raises Refused(OR-05)."""
    channel = up(holder.key, run.suite, Role.TRANSCODER)
    context = _context(holder, run, fork, transcoder)
    return opened(channel, "token-t", context, sealed, TranscoderToken, Check.OR_05)  # OR-05


def compare_release(run: Run, fork: bytes, transcoder: str, token: TranscoderToken, now: int) -> None:
    """What token_t says against the clear values. Raises Refused(OR-07) or (OR-09)."""
    inside = (token.call, token.n, token.caller, token.callee, token.fork, token.transcoder)
    if inside != (*run.clear, fork, transcoder):  # OR-07
        raise Refused(Check.OR_07)
    if not now - TOKEN_AGE_S <= token.time <= now + SKEW_S:  # OR-09
        raise Refused(Check.OR_09, RefusalCode.STALE)


# What the KMS answers, and the transcoder checks.


def seal_leg_grant(
    holder: Holder, run: Run, grant: LegGrant, *, transcoder: str, token_t: bytes, random: Random
) -> bytes:
    """grant_t, for the transcoder."""
    context = (*_context(holder, run, grant.fork, transcoder), digest(token_t))
    return down(holder.key, run.suite, Role.TRANSCODER).seal("grant-t", context, enc_body(grant), random)


def open_leg_grant(
    holder: Holder,
    run: Run,
    fork: bytes,
    transcoder: str,
    sealed: bytes,
    *,
    token_t: bytes,
    nonce: bytes,
    now: int,
) -> LegGrant:
    """grant_t, if it is for this transcoder's own token_t. nonce: Nt. Raises Refused(OR-20 to OR-23)."""
    context = (*_context(holder, run, fork, transcoder), digest(token_t))
    channel = down(holder.key, run.suite, Role.TRANSCODER)
    grant = opened(channel, "grant-t", context, sealed, LegGrant, Check.OR_20)  # OR-20
    if grant.nonce != nonce:  # OR-21
        raise Refused(Check.OR_21)
    if (grant.call, grant.n, grant.caller, grant.callee, grant.fork) != (*run.clear, fork):  # OR-22
        raise Refused(Check.OR_22)
    if not grant.not_before <= now <= grant.not_after:  # OR-23
        raise Refused(Check.OR_23, RefusalCode.EXPIRED)
    return grant


# Notices: from the KMS to one side of a run, whoever carries them.


def seal_notice(down_key: Secret, suite: Suite, identity: str, notice: Notice, *, random: Random) -> bytes:
    """notice_x. down_key: down(K_x, caller or callee), 32 octets. suite: the run's. identity: ID-x."""
    context = (notice.call, notice.n, notice.fork, identity, notice.transcoder)
    return Channel(down_key, suite).seal("notice", context, enc_body(notice), random)


def open_notice(
    holder: Holder,
    run: Run,
    identity: str,
    sealed: bytes,
    *,
    fork: bytes | None,
    transcoder: str | None,
    nonce: bytes,
    serial_taken: int,
) -> Notice:
    """notice_x, if it is for this side of this run and newer than the last one taken.

    holder: this side, in its role. identity: its own. fork: of the run. transcoder: as it came in clear.
    nonce: Na or Nb. serial_taken: of the last notice of this run, 0 before the first. Whether the kind is
    allowed now is for the handset to say. Raises Refused(OR-27).
    """
    context = (run.call, run.n, fork, identity, transcoder)
    channel = down(holder.key, run.suite, holder.role)
    notice = opened(channel, "notice", context, sealed, Notice, Check.OR_27)  # OR-27
    inside = (notice.call, notice.n, notice.caller, notice.callee, notice.fork, notice.transcoder)
    if inside != (*run.clear, fork, transcoder) or notice.nonce != nonce:  # OR-27
        raise Refused(Check.OR_27)
    if notice.serial <= serial_taken:  # OR-27
        raise Refused(Check.OR_27, RefusalCode.REPLAY)
    return notice


def _context(holder: Holder, run: Run, fork: bytes, transcoder: str) -> tuple[object, ...]:
    return (run.call, run.n, fork, run.caller, run.callee, transcoder, holder.key_id)
