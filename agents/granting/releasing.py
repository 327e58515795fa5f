"""Leg keys for a transcoder (section 7): it hears both ends of a call, and never gets the call's K.

    T   -> KMS  RELEASE           C, n, F, ID-A, ID-B, ID-T, KID-T, suite, token_t
    KMS -> T    RELEASE-RESPONSE  grant_t, notice_a, notice_b        or REFUSAL

    L_x = KDF(K, enc("leg", C, n, F, ID-T, ID-x), 32)                x = A, B

Both ends have said in their own tokens whether they permit it. What the notices need of each end the run's
record keeps: its nonce, and the key under which alone a notice to it is sealed.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from agents.decision import Decision, Send
from agents.granting.hearing import Hearing
from agents.granting.settling import ends_at, keep, with_run
from agents.granting.uses import note_call
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.evidence import Holder, LegGrant, Notice, TranscoderToken
from protocol.names import NoticeKind, Permit, Role
from protocol.sealing import Random
from protocol.sharding import call_key
from protocol.transcoding import (
    compare_release,
    leg_key,
    open_transcoder_token,
    seal_leg_grant,
    seal_notice,
)
from storage.kms_records import AgreedRun, Agreement, Fork, Released
from topics.catalogue import TRANSCODER
from topics.messages import Audit, AuditEvent, Release, ReleaseResponse, clear


@dataclass(frozen=True, slots=True)
class _Judged:
    """A RELEASE that may be answered: from whom, and for which fork of which run, as they then stand."""

    transcoder: Holder
    token_t: TranscoderToken
    agreement: Agreement
    agreed: AgreedRun
    fork: Fork


def release(hearing: Hearing, message: Release, random: Random) -> Decision:
    """A transcoder asks for the two keys of a call that the caller has settled."""
    try:
        judged = _judge(hearing, message)
    except Refused as refused:
        named = {"key_id": message.transcoder_key, "transcoder": message.transcoder, "fork": message.fork}
        return hearing.refuse(refused, random, to=TRANSCODER, named=named)
    run, agreed, fork = hearing.run, judged.agreed, judged.fork
    noted = Audit(
        id=digest(enc("released", *run.clear, fork.name, digest(message.token_t))),
        event=AuditEvent.RELEASED,
        at=hearing.now,
        key_id=judged.transcoder.key_id,
        caller_key=agreed.caller_key,
        callee_key=fork.callee_key,
        fork=fork.name,
        transcoder=message.transcoder,
        not_after=fork.not_after,
        **clear(run),
    )
    response = _response(hearing, message, judged, random)
    in_use = note_call(hearing.records, run, (judged.transcoder.key_id,), fork.not_after, hearing.now)
    return (
        keep(run.caller, run.call, judged.agreement, hearing.now)
        + in_use
        + Decision(
            puts=hearing.rates.puts(),
            audit=(noted,),  # OR-16
            sends=(Send(TRANSCODER, call_key(run.caller, run.call), response),),
        )
    )


def _judge(hearing: Hearing, message: Release) -> _Judged:
    """What answers it. Raises Refused."""
    run = hearing.run
    with hearing.opening(f"transcoder {message.transcoder}"):
        transcoder, function = hearing.holder(message.transcoder_key, message.transcoder, Role.TRANSCODER)
        token_t = open_transcoder_token(
            transcoder, run, message.fork, message.transcoder, message.token_t
        )  # OR-05
    hearing.opened(transcoder, token_t.nonce)
    if hearing.profile.lab_only:  # OR-14: the ten steps have no transcoder
        raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
    if len({run.caller, run.callee, message.transcoder}) < 3:  # OR-08
        raise Refused(Check.OR_08)
    compare_release(run, message.fork, message.transcoder, token_t, hearing.now)  # OR-07, OR-09
    if not function.may_serve(run.caller, run.callee):  # OR-14
        raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
    hearing.site(token_t.time)
    agreement, agreed, fork = _live(hearing, message.fork)
    if Permit.TRANSCODE not in agreed.permits_a or Permit.TRANSCODE not in fork.permits_b:  # OR-13
        raise Refused(Check.OR_13, RefusalCode.NOT_PERMITTED)
    if message.transcoder in agreement.barred:  # OR-10: what was revoked is not released anew
        raise Refused(Check.OR_10, RefusalCode.NOT_PERMITTED)
    released = None if fork.released is None or fork.released.revoked else fork.released
    if released is not None and released.transcoder != message.transcoder:  # OR-10: one at a time
        raise Refused(Check.OR_10, RefusalCode.REPLAY)
    if released is None or released.transcoder_key != transcoder.key_id:
        released = Released(
            transcoder=message.transcoder, transcoder_key=transcoder.key_id, granted=hearing.now
        )
    fork = msgspec.structs.replace(
        fork, released=released, serial_a=fork.serial_a + 1, serial_b=fork.serial_b + 1
    )
    forks = tuple(fork if each.name == fork.name else each for each in agreed.forks)
    agreed = msgspec.structs.replace(agreed, forks=forks)
    return _Judged(transcoder, token_t, with_run(agreement, agreed), agreed, fork)


def _live(hearing: Hearing, name: bytes) -> tuple[Agreement, AgreedRun, Fork]:
    """The device that the caller has taken, with its K. Raises Refused(OR-15)."""
    run = hearing.run
    agreement = hearing.records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
    agreed = next((known for known in agreement.runs if known.n == run.n), None)
    if agreed is None or agreed.callee != run.callee:  # OR-15
        raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
    fork = next((known for known in agreed.forks if known.name == name), None)
    if fork is None:  # OR-15: also what a mailbox has
        raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
    if agreed.settled is None:  # OR-15: SETTLED may be on its way
        raise Refused(Check.OR_15, RefusalCode.BUSY)
    if agreed.settled != name:  # OR-15: a device that has lost
        raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
    if fork.key is None or hearing.now > ends_at(agreed, fork):  # OR-15
        raise Refused(Check.OR_15, RefusalCode.EXPIRED)
    return agreement, agreed, fork


def _response(hearing: Hearing, message: Release, judged: _Judged, random: Random) -> ReleaseResponse:
    run, agreed, fork, transcoder = hearing.run, judged.agreed, judged.fork, message.transcoder
    assert fork.key is not None  # _live refuses what was destroyed
    assert agreed.notify_a is not None  # a run that permits anything has both
    assert fork.notify_b is not None
    grant = LegGrant(
        call=run.call,
        n=run.n,
        fork=fork.name,
        caller=run.caller,
        callee=run.callee,
        nonce=judged.token_t.nonce,
        leg_a=leg_key(fork.key, run, fork.name, transcoder, run.caller),
        leg_b=leg_key(fork.key, run, fork.name, transcoder, run.callee),
        now=hearing.now,
        not_before=fork.not_before,
        not_after=fork.not_after,
    )
    notice_a, notice_b = (
        seal_notice(
            notify,
            agreed.suite,
            identity,
            Notice(
                call=run.call,
                n=run.n,
                fork=fork.name,
                caller=run.caller,
                callee=run.callee,
                transcoder=transcoder,
                nonce=nonce,
                serial=serial,
                kind=NoticeKind.LEG,
            ),
            random=random,
        )
        for notify, identity, nonce, serial in (
            (agreed.notify_a, run.caller, agreed.nonce_a, fork.serial_a),
            (fork.notify_b, run.callee, fork.nonce_b, fork.serial_b),
        )
    )
    return ReleaseResponse(
        fork=fork.name,
        grant_t=seal_leg_grant(
            judged.transcoder, run, grant, transcoder=transcoder, token_t=message.token_t, random=random
        ),
        notice_a=notice_a,
        notice_b=notice_b,
        **clear(run),
    )
