"""How the KMS comes to know a bootstrapped key (section 3).

UE  -> KMS  ATTACH    B-TID
KMS -> BSF  zn-req                    BSF -> KMS  zn-rsp
KMS -> UE   ATTACHED  B-TID, sealed under the key: both hold it
"""

from __future__ import annotations

import msgspec

from agents.decision import NOTHING, Decision, Put, Records, Send, to_device
from agents.granting.rates import Rates
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.handover import Attachment, Question, open_handover, seal_attachment, seal_question
from protocol.limits import FORKS_MAX, KEEP_S_MAX, SEEN_S, SKEW_S, ZN_RETRY_S
from protocol.sealing import Random
from storage.kms_records import PendingAttach, Site, Subscriber
from storage.provisioning import FOREVER
from topics.catalogue import BSF
from topics.messages import Attach, Attached, AttachRefusal, Audit, AuditEvent, Contact, ZnRequest, ZnResponse


def attach(attach: Attach, records: Records, now: int, random: Random, *, most: int) -> Decision:
    """A device asks to be known. most: questions a second that one UE host may cause."""
    rates = Rates(records, now)
    host = f"host {attach.sender.host}"
    subscriber = records.get(Subscriber.key_for(attach.btid))
    pending = records.get(PendingAttach.key_for(attach.btid))
    site = records.get(Site.key())
    try:
        rates.admit(host, most)  # OR-11
        if subscriber is not None and not subscriber.revoked and now <= subscriber.not_after:
            return _attached(subscriber, attach.sender, now, random)
        rates.count(host)
        if subscriber is not None:  # OR-02: revoked, or over: the handset gives it up, and bootstraps another
            raise Refused(Check.OR_02, RefusalCode.DENIED if subscriber.revoked else RefusalCode.EXPIRED_KEY)
        if site is None:  # nothing was provisioned: no BSF can be asked
            raise Refused(Check.OR_02, RefusalCode.NOT_FOUND)
        if pending is not None and pending.unknown and now < pending.asked + ZN_RETRY_S:  # OR-02
            raise Refused(Check.OR_02, RefusalCode.NOT_FOUND)
    except Refused as refused:
        refusal = AttachRefusal(btid=attach.btid, to=attach.sender.device, code=refused.code)
        return Decision(puts=rates.puts(), sends=(to_device(attach.sender, refusal),))
    if pending is None or now >= pending.asked + ZN_RETRY_S:
        question = Question(attach.btid, site.naf_id, random(16), now)
        pending = PendingAttach(
            request=seal_question(site.zn_key, question, random),
            nonce=question.nonce,
            asked=now,
            waiting=pending.waiting if pending else (),
        )
    waiting = dict.fromkeys((*pending.waiting, (attach.sender.host, attach.sender.device)))
    pending = msgspec.structs.replace(pending, waiting=tuple(waiting)[-FORKS_MAX:])
    request = ZnRequest(btid=attach.btid, naf_id=site.naf_id, sealed=pending.request)
    return Decision(
        puts=(
            Put(PendingAttach.key_for(attach.btid), pending, now + 2 * ZN_RETRY_S),
            *rates.puts(),
        ),
        sends=(Send(BSF, attach.btid, request),),
    )


def handed_over(response: ZnResponse, records: Records, now: int, random: Random) -> Decision:
    """The BSF has answered: with a key, or that it knows none."""
    pending = records.get(PendingAttach.key_for(response.btid))
    site = records.get(Site.key())
    if pending is None or pending.unknown or site is None:  # answered already, or never asked
        return NOTHING
    subscriber = records.get(Subscriber.key_for(response.btid))
    if subscriber is not None and subscriber.revoked:  # OR-02: a late answer makes nobody live again
        return Decision(puts=(Put(PendingAttach.key_for(response.btid), None),))
    asked = Question(response.btid, site.naf_id, pending.nonce, pending.asked)
    try:
        handover = open_handover(site.zn_key, asked, response.sealed, request=pending.request)  # OR-33
    except Refused as refused:
        return Decision(audit=(_attach_refused(response.btid, refused, now),))
    waiting = [Contact(host, device) for host, device in pending.waiting]
    key = PendingAttach.key_for(response.btid)
    if (
        handover.ks_naf is None
        or handover.impi is None
        or handover.identities is None
        or handover.not_after is None
    ):
        nobody = Refused(Check.OR_02, RefusalCode.NOT_FOUND)
        unknown = msgspec.structs.replace(pending, unknown=True, asked=now, waiting=())
        refusals = [AttachRefusal(btid=response.btid, to=to.device, code=nobody.code) for to in waiting]
        return Decision(
            puts=(Put(key, unknown, now + 2 * ZN_RETRY_S),),
            audit=(_attach_refused(response.btid, nobody, now),),
            sends=tuple(to_device(to, refusal) for to, refusal in zip(waiting, refusals, strict=True)),
        )
    subscriber = Subscriber(
        key_id=response.btid,
        key=handover.ks_naf,
        impi=handover.impi,
        identities=handover.identities,
        not_before=now - SKEW_S,
        not_after=handover.not_after,
    )
    known = Audit(
        id=digest(enc("attached", response.btid)),
        event=AuditEvent.ATTACHED,
        at=now,
        key_id=response.btid,
        impi=handover.impi,
        not_after=handover.not_after,
    )
    attached = NOTHING
    for contact in waiting:
        attached += _attached(subscriber, contact, now, random)
    return attached + Decision(
        puts=(
            Put(Subscriber.key_for(response.btid), subscriber, kept_until(subscriber)),
            Put(key, None),
        ),
        audit=(known,),
    )


def kept_until(subscriber: Subscriber) -> int | None:
    """How long the KMS remembers a key id: until the last message that may have been left under it is over,
    so that a revocation can end that message's key too. None: for ever."""
    return None if subscriber.not_after == FOREVER else subscriber.not_after + KEEP_S_MAX + SEEN_S


def _attached(subscriber: Subscriber, contact: Contact, now: int, random: Random) -> Decision:
    attachment = Attachment(
        btid=subscriber.key_id,
        impi=subscriber.impi,
        identities=subscriber.identities,
        now=now,
        not_after=subscriber.not_after,
    )
    sealed = seal_attachment(subscriber.key, attachment, random)
    attached = Attached(btid=subscriber.key_id, to=contact.device, sealed=sealed)
    return Decision(sends=(to_device(contact, attached),))


def _attach_refused(btid: str, refused: Refused, now: int) -> Audit:
    return Audit(
        id=digest(enc("attach-refused", btid, refused.check, now)),
        event=AuditEvent.REFUSED,
        at=now,
        key_id=btid,
        check=refused.check,
        code=refused.code,
    )
