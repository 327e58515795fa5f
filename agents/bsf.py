"""The bootstrapping server with the subscribers' data of an HSS (section 3, TS 33.220).

    UE  -> BSF  IMPI                                  BSF -> UE   RAND, AUTN, realm, nonce
    UE  -> BSF  Digest AKA response, or AUTS          BSF -> UE   B-TID, lifetime, server digest
    KMS -> BSF  zn-req                                BSF -> KMS  zn-rsp with Ks_NAF, or with nil

Each attempt has one challenge, of a single use; a repeat of the message that was accepted gets the same
answer, another message for the same challenge is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, Send, to_device
from protocol import aka, digest_aka, gba
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.handover import Handover, open_question, seal_handover
from protocol.limits import CHALLENGE_S
from protocol.sealing import Random
from storage.bsf_records import Bootstrapped, Challenge, Naf, Subscription
from topics.catalogue import KMS, Party
from topics.messages import (
    Audit,
    AuditEvent,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    BootstrapRequest,
    Contact,
    ZnRequest,
    ZnResponse,
)

AMF: Final = bytes.fromhex("8000")  # TS 33.102 Annex H: the separation bit


@dataclass(frozen=True, slots=True)
class BsfSettings:
    """What an operator may choose."""

    host: str = "bsf.ims.example"
    """The BSF's host name: the realm of its digests and the end of its B-TIDs."""
    lifetime_s: int = 12 * 3600
    """How long a bootstrapped key lives."""


class Bsf:
    """Challenges a USIM, and hands the key that follows to the one NAF that may have it."""

    party: ClassVar[Party] = Party.BSF
    accepts: ClassVar[frozenset[type]] = frozenset({BootstrapRequest, BootstrapAnswer, ZnRequest})

    def __init__(self, settings: BsfSettings = BsfSettings()) -> None:
        self._settings = settings

    def reads(self, message: Input) -> Keys:
        match message:
            case BootstrapRequest() | BootstrapAnswer():
                return (
                    Subscription.key_for(message.impi),
                    Challenge.key_for(message.impi, message.attempt),
                )
            case ZnRequest():
                return (Naf.key_for(message.naf_id), Bootstrapped.key_for(message.btid))
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        match message:
            case BootstrapRequest():
                return self._request(message, records, now, random)
            case BootstrapAnswer():
                return self._answer(message, records, now, random)
            case ZnRequest():
                return self._hand_over(message, records, now, random)
            case _:
                return NOTHING

    def _request(self, request: BootstrapRequest, records: Records, now: int, random: Random) -> Decision:
        challenge = records.get(Challenge.key_for(request.impi, request.attempt))
        if challenge is not None:
            return self._challenged(challenge, request.attempt, request.sender)
        subscription = records.get(Subscription.key_for(request.impi))
        if subscription is None:  # OR-31
            return _refused(request, Refused(Check.OR_31, RefusalCode.DENIED, "unknown IMPI"), now)
        return self._challenge(subscription, request, now, random)

    def _challenge(
        self,
        subscription: Subscription,
        request: BootstrapRequest | BootstrapAnswer,
        now: int,
        random: Random,
    ) -> Decision:
        """A fresh challenge under the next SQN."""
        sqn = subscription.sqn + 1
        vector = aka.challenge(subscription.k, subscription.opc, sqn=sqn, amf=AMF, rand=random(16))
        challenge = Challenge(
            rand=vector.rand,
            autn=vector.autn,
            xres=vector.xres,
            ks=gba.ks(vector.ck, vector.ik),
            made=now,
        )
        key = Challenge.key_for(request.impi, request.attempt)
        return Decision(
            puts=(
                Put(Subscription.key_for(request.impi), msgspec.structs.replace(subscription, sqn=sqn)),
                Put(key, challenge, now + 2 * CHALLENGE_S),
            ),
        ) + self._challenged(challenge, request.attempt, request.sender)

    def _challenged(self, challenge: Challenge, attempt: bytes, to: Contact) -> Decision:
        message = BootstrapChallenge(
            attempt=attempt,
            to=to.device,
            realm=self._settings.host,
            nonce=digest_aka.nonce(challenge.rand, challenge.autn),
        )
        return Decision(sends=(to_device(to, message),))

    def _answer(self, answer: BootstrapAnswer, records: Records, now: int, random: Random) -> Decision:
        subscription = records.get(Subscription.key_for(answer.impi))
        challenge = records.get(Challenge.key_for(answer.impi, answer.attempt))
        exchange = digest_aka.Exchange(
            answer.impi, self._settings.host, answer.nonce, digest_aka.URI, answer.cnonce
        )
        try:
            if subscription is None or challenge is None or now > challenge.made + CHALLENGE_S:  # OR-31
                raise Refused(Check.OR_31, RefusalCode.EXPIRED)
            if answer.nonce != digest_aka.nonce(challenge.rand, challenge.autn):  # OR-31
                raise Refused(Check.OR_31, RefusalCode.STALE)
            if challenge.answer_hash is not None:
                if challenge.answer_hash != _answer_hash(answer):  # OR-31: single use
                    raise Refused(Check.OR_31, RefusalCode.REPLAY)
                return self._done(challenge, answer)
            if answer.auts is not None:
                sqn = aka.resynchronise(
                    subscription.k, subscription.opc, rand=challenge.rand, auts=answer.auts
                )  # OR-31
                stepped = msgspec.structs.replace(subscription, sqn=max(sqn, subscription.sqn))
                return self._challenge(stepped, answer, now, random)
            digest_aka.verify_response(
                challenge.xres, exchange, answer.response, method=digest_aka.METHOD, body=b""
            )  # OR-31
        except Refused as refused:
            return _refused(answer, refused, now)
        btid = gba.btid(challenge.rand, self._settings.host)
        not_after = now + self._settings.lifetime_s
        done = msgspec.structs.replace(
            challenge,
            answer_hash=_answer_hash(answer),
            btid=btid,
            not_after=not_after,
            server_digest=digest_aka.server_digest(challenge.xres, exchange, body=enc(btid, not_after)),
        )
        bootstrapped = Bootstrapped(
            ks=challenge.ks,
            rand=challenge.rand,
            impi=answer.impi,
            identities=subscription.identities,
            not_after=not_after,
        )
        noted = Audit(
            id=digest(enc("bootstrapped", btid)),
            event=AuditEvent.BOOTSTRAPPED,
            at=now,
            key_id=btid,
            impi=answer.impi,
            not_after=not_after,
        )
        return Decision(
            puts=(
                Put(Challenge.key_for(answer.impi, answer.attempt), done, now + 2 * CHALLENGE_S),
                Put(Bootstrapped.key_for(btid), bootstrapped, not_after),
            ),
            audit=(noted,),
        ) + self._done(done, answer)

    def _done(self, challenge: Challenge, answer: BootstrapAnswer) -> Decision:
        message = BootstrapDone(
            attempt=answer.attempt,
            to=answer.sender.device,
            btid=challenge.btid,
            not_after=challenge.not_after,
            server_digest=challenge.server_digest,
        )
        return Decision(sends=(to_device(answer.sender, message),))

    def _hand_over(self, request: ZnRequest, records: Records, now: int, random: Random) -> Decision:
        naf = records.get(Naf.key_for(request.naf_id))
        try:
            if naf is None:  # OR-33: a NAF_Id is served under its own K_zn only
                raise Refused(Check.OR_33)
            question = open_question(naf.zn_key, request.naf_id, request.sealed, now)  # OR-33
            if question.btid != request.btid:  # OR-33
                raise Refused(Check.OR_33)
        except Refused as refused:
            noted = Audit(
                id=digest(enc("zn-refused", request.sealed, refused.check)),
                event=AuditEvent.REFUSED,
                at=now,
                key_id=request.btid,
                check=refused.check,
                code=refused.code,
            )
            return Decision(audit=(noted,))
        known = records.get(Bootstrapped.key_for(request.btid))
        live = known is not None and now <= known.not_after
        handover = Handover(
            btid=question.btid,
            naf_id=question.naf_id,
            nonce=question.nonce,
            ks_naf=gba.ks_naf(known.ks, rand=known.rand, impi=known.impi, naf_id=question.naf_id)
            if known and live
            else None,
            impi=known.impi if known and live else None,
            identities=known.identities if known and live else None,
            not_after=known.not_after if known and live else None,
        )
        sealed = seal_handover(naf.zn_key, handover, request=request.sealed, random=random)
        return Decision(sends=(Send(KMS, request.btid, ZnResponse(btid=request.btid, sealed=sealed)),))


def _answer_hash(answer: BootstrapAnswer) -> bytes:
    return digest(enc(answer.nonce, answer.cnonce, answer.response, answer.auts))


def _refused(message: BootstrapRequest | BootstrapAnswer, refused: Refused, now: int) -> Decision:
    refusal = BootstrapRefusal(attempt=message.attempt, to=message.sender.device, code=refused.code)
    noted = Audit(
        id=digest(enc("bootstrap-refused", message.impi, message.attempt, refused.check, refused.code)),
        event=AuditEvent.REFUSED,
        at=now,
        impi=message.impi,
        check=refused.check,
        code=refused.code,
    )
    return Decision(audit=(noted,), sends=(to_device(message.sender, refusal),))
