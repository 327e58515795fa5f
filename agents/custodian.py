"""The custodian of the KMS's keys: it carries out what an operator orders about one key id.

    operator -> custodian  REVOKE   KID, order           the audit has the outcome, with the order's name

It writes the records that the KMS reads: a revoked key id is refused from the next request on (OR-02), and
the key of a message that was left under it is fetched no more. The key of a call stays until it ends.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from agents.decision import NOTHING, Decision, Input, Keys, Put, Records
from agents.granting.attaching import kept_until
from protocol.checks import Check, RefusalCode
from protocol.encoding import digest, enc
from protocol.sealing import Random
from storage.kms_records import Subscriber
from topics.catalogue import Party
from topics.messages import Audit, AuditEvent, Revoke


class Custodian:
    """Revokes key ids; one that is revoked stays so, whatever is ordered."""

    party: ClassVar[Party] = Party.CUSTODIAN
    accepts: ClassVar[frozenset[type]] = frozenset({Revoke})

    def reads(self, message: Input) -> Keys:
        match message:
            case Revoke():
                return (Subscriber.key_for(message.key_id),)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        del random  # nothing is drawn
        match message:
            case Revoke():
                return _revoke(message, records, now)
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
    if subscriber.revoked:
        return Decision(audit=(done,))
    revoked = msgspec.structs.replace(subscriber, revoked=True, revoked_at=now)
    return Decision(puts=(Put(key, revoked, kept_until(subscriber)),), audit=(done,))
