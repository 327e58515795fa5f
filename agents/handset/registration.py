"""A device's long-term key and registration: the UE's side of section 3.

    UE -> BSF  IMPI ;  RAND, AUTN <- BSF ;  UE -> BSF  response or AUTS ;  B-TID <- BSF
    UE -> KMS  ATTACH B-TID ;  ATTACHED <- KMS
    UE -> CSCF REGISTER ;  REGISTERED <- CSCF

One alarm sees to all of it: whatever is missing, or about to end, is asked for, and asked for again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agents.alarms import HandsetAlarm
from agents.decision import NOTHING, Decision, Put, Send, Wake
from agents.handset.ue_call import GIVE_UP_S, REPEAT_S, UeSettings
from protocol import aka, digest_aka, gba
from protocol.checks import Check, Refused
from protocol.encoding import enc
from protocol.handover import open_attachment
from protocol.sealing import Random
from storage.ue_records import Bootstrapping, Handset, HandsetKey
from topics.catalogue import BSF, CSCF, KMS, REPORTS, Topic
from topics.messages import (
    Attach,
    Attached,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRequest,
    Contact,
    Register,
    Registered,
    Report,
    ReportEvent,
    Wire,
)

RENEW_S: Final = 600  # a key or a registration is renewed so long before its end
REGISTER_S: Final = 3600
ATTACH_S: Final = 90  # a key that the KMS does not confirm in this time is given up


def see_to(settings: UeSettings, handset: Handset, now: int, random: Random) -> Decision:
    """What this device needs next, if anything, and when to look again."""
    key = handset.key
    if key is not None and not key.attached and handset.usim and now > key.obtained + ATTACH_S:
        key = None  # the KMS does not get it from the BSF: start anew
    contact = Contact(settings.host, handset.impi)
    if handset.usim is not None and (key is None or now >= key.not_after - RENEW_S):
        return _bootstrap(contact, msgspec.structs.replace(handset, key=key), now, random)
    if key is None:
        return NOTHING  # no subscription and no pre-shared key: nothing to be had
    again = keep(handset, now, at=now + REPEAT_S)
    if not key.attached:
        return again + _ask(KMS, key.key_id, Attach(btid=key.key_id, sender=contact))
    if now >= handset.registered_until - RENEW_S:
        register = Register(identity=handset.identity, expires_s=REGISTER_S, sender=contact)
        return again + _ask(CSCF, handset.identity, register)
    return keep(handset, now, at=min(handset.registered_until, key.not_after) - RENEW_S)


def challenged(
    settings: UeSettings, handset: Handset, challenge: BootstrapChallenge, now: int, random: Random
) -> Decision:
    """RAND and AUTN: answer, if the network has proved itself; else ask for resynchronisation."""
    state, usim = handset.bootstrapping, handset.usim
    if state is None or usim is None or state.attempt != challenge.attempt:  # OR-26
        return NOTHING
    if state.nonce and state.nonce == challenge.nonce:  # the same once more: the same answer
        return _ask(BSF, handset.impi, _answer(Contact(settings.host, handset.impi), handset.impi, state))
    cnonce = random(16).hex()
    try:
        rand, autn = digest_aka.read_nonce(challenge.nonce)
        answer = aka.answer(usim.k, usim.opc, sqn_ms=usim.sqn, rand=rand, autn=autn)  # OR-32
    except Refused as refused:
        return _told(handset, ReportEvent.REFUSED, now, refused=refused)
    except ValueError:
        return _told(handset, ReportEvent.REFUSED, now, refused=Refused(Check.OR_01))
    except aka.OutOfStep as out_of_step:
        state = msgspec.structs.replace(
            state,
            realm=challenge.realm,
            nonce=challenge.nonce,
            cnonce=cnonce,
            auts=out_of_step.auts,
            res=None,
            response="0" * 32,
        )
    else:
        exchange = digest_aka.Exchange(handset.impi, challenge.realm, challenge.nonce, digest_aka.URI, cnonce)
        response = digest_aka.response(answer.res, exchange, method=digest_aka.METHOD, body=b"")
        state = msgspec.structs.replace(
            state,
            realm=challenge.realm,
            nonce=challenge.nonce,
            cnonce=cnonce,
            response=response,
            auts=None,
            rand=rand,
            res=answer.res,
            ks=gba.ks(answer.ck, answer.ik),
        )
        usim = msgspec.structs.replace(usim, sqn=answer.sqn)
    handset = msgspec.structs.replace(handset, bootstrapping=state, usim=usim)
    message = _answer(Contact(settings.host, handset.impi), handset.impi, state)
    return keep(handset, now, at=now + REPEAT_S) + _ask(BSF, handset.impi, message)


def bootstrapped(
    settings: UeSettings, handset: Handset, done: BootstrapDone, now: int, random: Random
) -> Decision:
    """B-TID, if the BSF has shown that it knows RES: K_x is ours; let the KMS fetch it."""
    state = handset.bootstrapping
    if state is None or state.attempt != done.attempt or state.res is None or state.ks is None:  # OR-26
        return NOTHING
    try:
        exchange = digest_aka.Exchange(handset.impi, state.realm, state.nonce, digest_aka.URI, state.cnonce)
        digest_aka.verify_server_digest(
            state.res, exchange, done.server_digest, body=enc(done.btid, done.not_after)
        )  # OR-32
    except Refused as refused:
        return _told(handset, ReportEvent.REFUSED, now, refused=refused)
    naf_id = gba.naf_id(gba.KMS_HOST)
    ka = gba.ks_naf(state.ks, rand=state.rand, impi=handset.impi, naf_id=naf_id)
    key = HandsetKey(key_id=done.btid, key=ka, not_after=done.not_after, obtained=now)
    return see_to(settings, msgspec.structs.replace(handset, key=key, bootstrapping=None), now, random)


def attached(settings: UeSettings, handset: Handset, message: Attached, now: int, random: Random) -> Decision:
    """The KMS holds the same key for this device."""
    key = handset.key
    if key is None or key.attached or key.key_id != message.btid:  # OR-26
        return NOTHING
    try:
        attachment = open_attachment(
            key.key, btid=key.key_id, impi=handset.impi, sealed=message.sealed
        )  # OR-20, OR-22
        if handset.identity not in attachment.identities:  # OR-22
            raise Refused(Check.OR_22)
        if now > attachment.not_after:  # OR-23
            raise Refused(Check.OR_23)
    except Refused as refused:
        return _told(handset, ReportEvent.REFUSED, now, refused=refused)
    handset = msgspec.structs.replace(handset, key=msgspec.structs.replace(key, attached=True))
    return see_to(settings, handset, now, random) + _told(handset, ReportEvent.ATTACHED, now)


def registered(
    settings: UeSettings, handset: Handset, message: Registered, now: int, random: Random
) -> Decision:
    """Calls for this identity now reach this device."""
    until = min(message.not_after, now + REGISTER_S)  # nothing seals this message: it buys no more than asked
    if message.identity != handset.identity or until <= handset.registered_until:
        return NOTHING
    handset = msgspec.structs.replace(handset, registered_until=until)
    return see_to(settings, handset, now, random) + _told(handset, ReportEvent.REGISTERED, now)


def attach_again(settings: UeSettings, handset: Handset, now: int, random: Random) -> Decision:
    """A peer or the KMS hints that the KMS does not hold our key: have it fetched again."""
    if handset.key is None or not handset.key.attached:
        return NOTHING
    key = msgspec.structs.replace(handset.key, attached=False, obtained=now)
    return see_to(settings, msgspec.structs.replace(handset, key=key), now, random)


def keep(handset: Handset, now: int, *, at: int) -> Decision:
    """Remember the device, and look at it again at `at`."""
    wake = Wake(f"handset {handset.impi}", "", max(at, now + 1), HandsetAlarm(handset.impi))
    return Decision(puts=(Put(Handset.key_for(handset.impi), handset),), wakes=(wake,))


def _bootstrap(contact: Contact, handset: Handset, now: int, random: Random) -> Decision:
    state = handset.bootstrapping
    if state is None or now > state.started + GIVE_UP_S:
        state = Bootstrapping(attempt=random(16), started=now)
    again = keep(msgspec.structs.replace(handset, bootstrapping=state), now, at=now + REPEAT_S)
    if state.nonce:
        return again + _ask(BSF, handset.impi, _answer(contact, handset.impi, state))
    request = BootstrapRequest(attempt=state.attempt, impi=handset.impi, sender=contact)
    return again + _ask(BSF, handset.impi, request)


def _answer(contact: Contact, impi: str, state: Bootstrapping) -> BootstrapAnswer:
    return BootstrapAnswer(
        attempt=state.attempt,
        impi=impi,
        nonce=state.nonce,
        cnonce=state.cnonce,
        response=state.response,
        auts=state.auts,
        sender=contact,
    )


def _ask(topic: Topic, key: str, message: Wire) -> Decision:
    return Decision(sends=(Send(topic, key, message),))


def _told(handset: Handset, event: ReportEvent, now: int, *, refused: Refused | None = None) -> Decision:
    told = Report(
        event=event,
        device=handset.impi,
        at=now,
        check=refused.check if refused else None,
        reason=refused.code if refused else None,
    )
    return _ask(REPORTS, handset.impi, told)
