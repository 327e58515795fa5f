"""The custodian of the KMS's keys: it carries out what an operator orders about a key id, or a transcoder.

    operator  -> custodian  REVOKE          KID, order       the audit has the outcome, with the order's name
                            REVOKE-RELEASE  ID-A, C, order
    custodian -> KMS        WITHDRAW        for each call in which the key id has a key; or for that call
                            WITHDRAW-MEMBER for each conference

It writes the records that the KMS reads: a revoked key id is refused from the next request on (OR-02), and
the key of a message that was left under it is fetched no more. The KMS destroys the keys that were made with
it, and tells who has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import msgspec

from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, Send
from agents.granting.attaching import kept_until
from agents.granting.settling import forgotten_at
from agents.granting.uses import put_uses
from protocol.checks import Check, RefusalCode
from protocol.encoding import digest, enc
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.kms_records import AgreedRun, Agreement, Fork, Subscriber, Uses
from topics.catalogue import KMS, Party
from topics.messages import Audit, AuditEvent, Revoke, RevokeRelease, Withdraw, WithdrawMember


class Custodian:
    """Revokes key ids and releases; what is revoked stays so, whatever is ordered."""

    party: ClassVar[Party] = Party.CUSTODIAN
    accepts: ClassVar[frozenset[type]] = frozenset({Revoke, RevokeRelease})

    def reads(self, message: Input) -> Keys:
        match message:
            case Revoke():
                return (Subscriber.key_for(message.key_id), *Uses.keys_for(message.key_id))
            case RevokeRelease():
                return (Agreement.key_for(message.caller, message.call),)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        del random  # nothing is drawn
        match message:
            case Revoke():
                return _revoke(message, records, now)
            case RevokeRelease():
                return _revoke_release(message, records, now)
            case _:
                return NOTHING


def _revoke(revoke: Revoke, records: Records, now: int) -> Decision:
    key = Subscriber.key_for(revoke.key_id)
    subscriber = records.get(key)
    if subscriber is None:  # OR-02
        unknown = Audit(
            id=digest(enc("revoke-refused", revoke.key_id, revoke.order)),
            event=AuditEvent.REFUSED,
            at=now,
            key_id=revoke.key_id,
            check=Check.OR_02,
            code=RefusalCode.NOT_FOUND,
            order=revoke.order,
        )
        return Decision(audit=(unknown,))
    done = Audit(
        id=digest(enc("revoked", revoke.key_id, revoke.order)),
        event=AuditEvent.REVOKED,
        at=now,
        key_id=revoke.key_id,
        impi=subscriber.impi,
        not_after=subscriber.not_after,
        order=revoke.order,
    )
    # Uses are written, also where there are none: a grant that did not know of the revocation is judged again
    looked = [put_uses(each, records.get(each) or Uses(), now) for each in Uses.keys_for(revoke.key_id)]
    told = Decision(audit=(done,), sends=tuple(_withdrawals(revoke.key_id, looked)))
    if subscriber.revoked:
        return told
    revoked = msgspec.structs.replace(subscriber, revoked=True, revoked_at=now)
    return Decision(puts=(Put(key, revoked, kept_until(subscriber)), *looked)) + told


def _withdrawals(key_id: str, looked: Iterable[Put[Uses]]) -> Iterator[Send]:
    """The KMS is to look at whatever the key id has a key of."""
    for put in looked:
        uses = put.record or Uses()
        for caller, callee, call, _ in uses.calls:
            message = Withdraw(key_id=key_id, call=call, run=0, caller=caller, callee=callee)
            yield Send(KMS, call_key(caller, call), message)
        for focus, group, _ in uses.conferences:
            yield Send(KMS, group.hex(), WithdrawMember(key_id=key_id, focus=focus, group=group))


def _revoke_release(revoke: RevokeRelease, records: Records, now: int) -> Decision:
    key = Agreement.key_for(revoke.caller, revoke.call)
    agreement = records.get(key)
    released = () if agreement is None else tuple(_released(agreement))
    if agreement is None or not released:  # OR-15
        unknown = Audit(
            id=digest(enc("revoke-release-refused", revoke.caller, revoke.call, revoke.order)),
            event=AuditEvent.REFUSED,
            at=now,
            call=revoke.call,
            caller=revoke.caller,
            check=Check.OR_15,
            code=RefusalCode.NOT_FOUND,
            order=revoke.order,
        )
        return Decision(audit=(unknown,))
    barred = tuple(sorted({*agreement.barred, *(transcoder for _, _, transcoder in released)}))
    revoked = msgspec.structs.replace(
        agreement, runs=tuple(map(_without_releases, agreement.runs)), barred=barred
    )
    callee = agreement.runs[0].callee
    audit = tuple(
        Audit(
            id=digest(enc("release-revoked", revoke.caller, revoke.call, n, fork, transcoder, revoke.order)),
            event=AuditEvent.RELEASE_REVOKED,
            at=now,
            call=revoke.call,
            run=n,
            caller=revoke.caller,
            callee=callee,
            fork=fork,
            transcoder=transcoder,
            order=revoke.order,
        )
        for n, fork, transcoder in released
    )
    look = Withdraw(key_id=None, call=revoke.call, run=0, caller=revoke.caller, callee=callee)
    return Decision(
        puts=(Put(key, revoked, forgotten_at(agreement)),),
        audit=audit,
        sends=(Send(KMS, call_key(revoke.caller, revoke.call), look),),
    )


def _released(agreement: Agreement) -> Iterator[tuple[int, bytes, str]]:
    """n, F and ID-T of what was released to transcoders of this call, revoked already or not."""
    for agreed in agreement.runs:
        for fork in agreed.forks:
            if fork.released is not None:
                yield agreed.n, fork.name, fork.released.transcoder


def _without_releases(agreed: AgreedRun) -> AgreedRun:
    return msgspec.structs.replace(agreed, forks=tuple(map(_without_release, agreed.forks)))


def _without_release(fork: Fork) -> Fork:
    if fork.released is None:
        return fork
    return msgspec.structs.replace(fork, released=msgspec.structs.replace(fork.released, revoked=True))
