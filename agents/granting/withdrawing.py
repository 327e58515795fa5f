"""What ends before its time: keys that were made with a revoked key id, and releases (section 10).

    custodian -> KMS     WITHDRAW  C, ID-A, ID-B, KID or nil: look at this call again
    KMS -> CSCF -> A, B  NOTICE    C, n, F, ID-A, ID-B, ID-T, kind, notice_x

What was revoked the records say; WITHDRAW only says where to look, and who forges one changes nothing. A
repeat gets the same notices with the same serials, so that a handset takes them once: the bus repeats what a
crash has kept from being done, and a run that was withdrawn is remembered for it.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from agents.decision import NOTHING, Decision, Records, Send
from agents.granting.settling import keep, made_in
from protocol.encoding import digest, enc
from protocol.evidence import Notice as NoticeBody
from protocol.names import NoticeKind, Role, Run
from protocol.sealing import Random
from protocol.sharding import call_key
from protocol.transcoding import seal_notice
from storage.kms_records import AgreedRun, Agreement, Deposited, Fork, Subscriber
from topics.catalogue import CSCF
from topics.messages import Audit, AuditEvent, Notice, Settled, Withdraw, clear

Made = TypeVar("Made", Fork, Deposited)


def withdraw(message: Withdraw, records: Records, now: int, random: Random) -> Decision:
    """Destroy what this key id was given, and tell both sides; where a transcoder's release is over, which is
    all that is looked for without a key id, they are told to renew."""
    caller, call, key_id = message.caller, message.call, message.key_id
    agreement = records.get(Agreement.key_for(caller, call))
    if agreement is None:
        return NOTHING
    runs, revoked_at = agreement.runs, 0
    if key_id is not None:
        subscriber = records.get(Subscriber.key_for(key_id))
        if subscriber is None or not subscriber.revoked_at:
            return NOTHING
        revoked_at = subscriber.revoked_at
        runs = tuple(_without(agreed, key_id, revoked_at, now) for agreed in runs)
    runs = tuple(_counted(agreed) for agreed in runs)
    told = NOTHING
    for agreed in runs:
        for made in made_in(agreed):
            if key_id is not None and made.withdrawn and _is_of(agreed, made, key_id):
                told += _note(caller, call, agreed, made, key_id)
                told += _tell(caller, call, agreed, made, NoticeKind.END, random)
            elif isinstance(made, Fork) and _is_barred(made):
                told += _note_release(caller, call, agreed, made, key_id, revoked_at)
                told += _tell(caller, call, agreed, made, NoticeKind.RENEW, random)
    if told == NOTHING:
        return NOTHING
    return keep(caller, call, msgspec.structs.replace(agreement, runs=runs), now) + told


def settled_too_late(settled: Settled, agreed: AgreedRun, random: Random) -> Decision:
    """The caller itself says that it has taken an answer. Perhaps the key was destroyed when that was on its
    way, and neither end could hear of it."""
    told = NOTHING
    for made in made_in(agreed):
        if made.withdrawn:
            told += _tell(settled.caller, settled.call, agreed, made, NoticeKind.END, random)
    return told


def _is_of(agreed: AgreedRun, made: Fork | Deposited, key_id: str) -> bool:
    """Whether this key id's holder has been given the key."""
    return key_id in {agreed.caller_key, made.callee_key if isinstance(made, Fork) else None}


def _without(agreed: AgreedRun, key_id: str, revoked_at: int, now: int) -> AgreedRun:
    """The run without the keys and releases that this key id was given until it was revoked."""

    def end(made: Made) -> Made:
        if made.key is None or made.granted > revoked_at or not _is_of(agreed, made, key_id):
            return made
        ended = msgspec.structs.replace(made, key=None, withdrawn=now, serial_a=made.serial_a + 1)
        if isinstance(ended, Fork):
            ended = msgspec.structs.replace(ended, serial_b=ended.serial_b + 1)
        return ended

    def bar(fork: Fork) -> Fork:
        released = fork.released
        if released is None or released.transcoder_key != key_id or released.granted > revoked_at:
            return fork
        return msgspec.structs.replace(fork, released=msgspec.structs.replace(released, revoked=True))

    deposit = None if agreed.deposit is None else end(agreed.deposit)
    forks = tuple(bar(end(fork)) for fork in agreed.forks)
    return msgspec.structs.replace(agreed, forks=forks, deposit=deposit)


def _counted(agreed: AgreedRun) -> AgreedRun:
    """The run with one more notice to each side, for each release of which the end was not told yet."""

    def count(fork: Fork) -> Fork:
        if fork.released is None or fork.released.told or not _is_barred(fork):
            return fork
        return msgspec.structs.replace(
            fork,
            released=msgspec.structs.replace(fork.released, told=True),
            serial_a=fork.serial_a + 1,
            serial_b=fork.serial_b + 1,
        )

    return msgspec.structs.replace(agreed, forks=tuple(count(fork) for fork in agreed.forks))


def _is_barred(fork: Fork) -> bool:
    """Whether its call goes on, and a transcoder must not hear it any more."""
    return fork.key is not None and fork.released is not None and fork.released.revoked


def _note(caller: str, call: bytes, agreed: AgreedRun, made: Fork | Deposited, key_id: str) -> Decision:
    run = _run(caller, call, agreed)
    fork = made.name if isinstance(made, Fork) else None
    noted = Audit(
        id=digest(enc("withdrawn", *run.clear, fork)),
        event=AuditEvent.WITHDRAWN,
        at=made.withdrawn,
        key_id=key_id,
        caller_key=agreed.caller_key,
        callee_key=made.callee_key if isinstance(made, Fork) else None,
        mailbox=made.mailbox if isinstance(made, Deposited) else None,
        fork=fork,
        not_after=made.not_after,
        **clear(run),
    )
    return Decision(audit=(noted,))


def _note_release(
    caller: str, call: bytes, agreed: AgreedRun, fork: Fork, key_id: str | None, revoked_at: int
) -> Decision:
    """What was released to a revoked key id; an order about the release itself is noted by the custodian."""
    run, released = _run(caller, call, agreed), fork.released
    if released is None or released.transcoder_key != key_id:
        return NOTHING
    noted = Audit(
        id=digest(enc("release-withdrawn", *run.clear, fork.name, released.transcoder, key_id)),
        event=AuditEvent.RELEASE_REVOKED,
        at=revoked_at,
        key_id=key_id,
        fork=fork.name,
        transcoder=released.transcoder,
        **clear(run),
    )
    return Decision(audit=(noted,))


def _tell(
    caller: str, call: bytes, agreed: AgreedRun, made: Fork | Deposited, kind: NoticeKind, random: Random
) -> Decision:
    """A notice to the caller, and to the callee where there is one."""
    run = _run(caller, call, agreed)
    sends = []
    ends = [(Role.CALLER, run.caller, agreed.notify_a, agreed.nonce_a, made.serial_a)]
    if isinstance(made, Fork):
        ends.append((Role.CALLEE, run.callee, made.notify_b, made.nonce_b, made.serial_b))
    fork = made.name if isinstance(made, Fork) else None
    transcoder = made.released.transcoder if isinstance(made, Fork) and made.released is not None else None
    for whom, identity, down_key, nonce, serial in ends:
        if down_key is None:  # granted before there were notices
            continue
        body = NoticeBody(run.call, run.n, fork, run.caller, run.callee, transcoder, nonce, serial, kind)
        sealed = seal_notice(down_key, run.suite, identity, body, random=random)
        notice = Notice(fork=fork, transcoder=transcoder, kind=kind, whom=whom, sealed=sealed, **clear(run))
        sends.append(Send(CSCF, call_key(run.caller, run.call), notice))
    return Decision(sends=tuple(sends))


def _run(caller: str, call: bytes, agreed: AgreedRun) -> Run:
    return Run(call=call, n=agreed.n, caller=caller, callee=agreed.callee, suite=agreed.suite)
