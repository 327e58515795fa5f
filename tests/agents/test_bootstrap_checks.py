"""The BSF's checks, and the KMS's when it fetches a key: each broken alone, one message at a time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.alarms import HandsetAlarm
from agents.bsf import Bsf
from agents.decision import Decision
from agents.handset.ue_call import UeSettings
from agents.ue import Ue
from protocol import aka, digest_aka, gba
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import enc_body
from protocol.handover import Handover, Question, open_handover, seal_handover, seal_question
from protocol.limits import CHALLENGE_S, SKEW_S, TOKEN_AGE_S, ZN_RETRY_S
from protocol.names import Role, Suite
from protocol.profile import HARDENED
from protocol.sealing import up
from protocol.secret import Secret
from storage.bsf_records import Naf, Subscription
from storage.kms_records import Site
from storage.ue_records import Handset, Usim
from tests.agents.scene import ALICE, NOW, Stage, Town
from topics.messages import (
    Attach,
    Attached,
    AttachRefusal,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    BootstrapRefusal,
    BootstrapRequest,
    Contact,
    Report,
    ZnRequest,
    ZnResponse,
)

IMPI = "alice-1@ims.example"
AT = Contact("alice", IMPI)
ATTEMPT = bytes(16)
NAF_ID = gba.naf_id(gba.KMS_HOST)
K_ZN = Secret(bytes(range(32)))


class Home(Stage):
    """A BSF with one subscriber, and the subscriber's USIM."""

    def __init__(self) -> None:
        super().__init__(Bsf())
        self.k, self.opc = Secret(self.random(16)), Secret(self.random(16))
        subscription = Subscription(impi=IMPI, identities=(ALICE,), k=self.k, opc=self.opc, sqn=5)
        self.put(Subscription.key_for(IMPI), subscription)
        self.put(Naf.key_for(NAF_ID), Naf(zn_key=K_ZN))

    def challenge(self, attempt: bytes = ATTEMPT, now: int = NOW) -> BootstrapChallenge:
        [send] = self.give(BootstrapRequest(attempt=attempt, impi=IMPI, sender=AT), now).sends
        assert isinstance(send.message, BootstrapChallenge)
        return send.message

    def answer(self, challenge: BootstrapChallenge, **changes: Any) -> BootstrapAnswer:
        """What the USIM makes of it."""
        rand, autn = digest_aka.read_nonce(challenge.nonce)
        made = aka.answer(self.k, self.opc, sqn_ms=5, rand=rand, autn=autn)
        exchange = digest_aka.Exchange(IMPI, challenge.realm, challenge.nonce, digest_aka.URI, "0" * 32)
        answer = BootstrapAnswer(
            attempt=challenge.attempt,
            impi=IMPI,
            nonce=challenge.nonce,
            cnonce="0" * 32,
            response=digest_aka.response(made.res, exchange, method=digest_aka.METHOD, body=b""),
            auts=None,
            sender=AT,
        )
        return msgspec.structs.replace(answer, **changes)

    def btid(self) -> str:
        """Bootstraps."""
        return done(self.give(self.answer(self.challenge()))).btid


@pytest.fixture
def home() -> Home:
    return Home()


def done(decision: Decision) -> BootstrapDone:
    [send] = decision.sends
    assert isinstance(send.message, BootstrapDone), send.message
    return send.message


def refusal(decision: Decision, code: RefusalCode) -> None:
    """Refused by OR-31, with nothing changed."""
    [send] = decision.sends
    assert isinstance(send.message, BootstrapRefusal), send.message
    [audit] = decision.audit
    assert (audit.check, send.message.code) == (Check.OR_31, code)
    assert decision.puts == ()


def test_the_same_answer_twice_is_one_key(home: Home) -> None:
    answer = home.answer(home.challenge())
    assert done(home.give(answer)) == done(home.give(answer, NOW + 1))


def test_or_31_an_unknown_subscriber(home: Home) -> None:
    decision = home.give(BootstrapRequest(attempt=ATTEMPT, impi="nobody", sender=AT))
    refusal(decision, RefusalCode.DENIED)


def test_or_31_an_answer_to_no_challenge(home: Home) -> None:
    answer = home.answer(home.challenge(), attempt=b"x" * 16)
    refusal(home.give(answer), RefusalCode.EXPIRED)


def test_or_31_an_answer_too_late(home: Home) -> None:
    answer = home.answer(home.challenge())
    refusal(home.give(answer, NOW + CHALLENGE_S + 1), RefusalCode.EXPIRED)
    done(home.give(answer, NOW + CHALLENGE_S))


def test_or_31_the_answer_to_another_challenge(home: Home) -> None:
    first, second = home.challenge(), home.challenge(b"x" * 16)
    answer = home.answer(first, attempt=second.attempt)
    refusal(home.give(answer), RefusalCode.STALE)


def test_or_31_a_challenge_is_used_once(home: Home) -> None:
    challenge = home.challenge()
    done(home.give(home.answer(challenge)))
    rand, autn = digest_aka.read_nonce(challenge.nonce)
    made = aka.answer(home.k, home.opc, sqn_ms=5, rand=rand, autn=autn)
    exchange = digest_aka.Exchange(IMPI, challenge.realm, challenge.nonce, digest_aka.URI, "1" * 32)
    other = digest_aka.response(made.res, exchange, method=digest_aka.METHOD, body=b"")
    again = home.answer(challenge, cnonce="1" * 32, response=other)
    refusal(home.give(again), RefusalCode.REPLAY)


def test_or_31_a_wrong_response(home: Home) -> None:
    refusal(home.give(home.answer(home.challenge(), response="0" * 32)), RefusalCode.DENIED)


def test_or_31_auts_sets_the_sqn_and_a_false_one_does_not(home: Home) -> None:
    challenge = home.challenge()
    refusal(home.give(home.answer(challenge, auts=bytes(14))), RefusalCode.DENIED)
    rand, autn = digest_aka.read_nonce(challenge.nonce)
    with pytest.raises(aka.OutOfStep) as out:
        aka.answer(home.k, home.opc, sqn_ms=2**40, rand=rand, autn=autn)
    [send] = home.give(home.answer(challenge, auts=out.value.auts)).sends
    assert isinstance(send.message, BootstrapChallenge)
    rand, autn = digest_aka.read_nonce(send.message.nonce)
    assert aka.answer(home.k, home.opc, sqn_ms=2**40, rand=rand, autn=autn).sqn == 2**40 + 1


# The hand-over, at the BSF


def question(home: Home, **changes: Any) -> ZnRequest:
    """What the KMS asks; changes: of what is sealed."""
    btid = changes.pop("asked", None) or home.btid()
    body = Question(btid, NAF_ID, bytes(16), NOW)
    sealed = seal_question(K_ZN, msgspec.structs.replace(body, **changes), home.random)
    return ZnRequest(btid=btid, naf_id=NAF_ID, sealed=sealed)


def test_the_key_goes_to_the_naf_that_asks(home: Home) -> None:
    asked = question(home)
    [send] = home.give(asked).sends
    assert isinstance(send.message, ZnResponse)
    handed = open_handover(
        K_ZN, Question(asked.btid, NAF_ID, bytes(16), NOW), send.message.sealed, request=asked.sealed
    )
    assert handed.ks_naf is not None
    assert handed.impi == IMPI


def test_a_btid_that_the_bsf_does_not_know_is_answered_with_nil(home: Home) -> None:
    asked = question(home, asked="nobody@bsf.ims.example")
    [send] = home.give(asked).sends
    assert isinstance(send.message, ZnResponse)
    handed = open_handover(
        K_ZN, Question(asked.btid, NAF_ID, bytes(16), NOW), send.message.sealed, request=asked.sealed
    )
    assert (handed.ks_naf, handed.impi, handed.identities, handed.not_after) == (None,) * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"btid": "another@bsf.ims.example"},
        {"naf_id": b"other" + NAF_ID},
        {"time": NOW - TOKEN_AGE_S - 1},
        {"time": NOW + SKEW_S + 1},
    ],
    ids=str,
)
def test_or_33_what_the_question_says_inside(home: Home, wrong: dict[str, Any]) -> None:
    decision = home.give(question(home, **wrong))
    assert decision.sends == ()
    assert [audit.check for audit in decision.audit] == [Check.OR_33]


def test_or_33_another_naf_id_inside_than_the_seal_is_for(home: Home) -> None:
    btid = home.btid()
    body = enc_body(Question(btid, b"other" + NAF_ID, bytes(16), NOW))
    sealed = up(K_ZN, Suite.AES_256_GCM, Role.NAF).seal("zn-req", (NAF_ID,), body, home.random)
    decision = home.give(ZnRequest(btid=btid, naf_id=NAF_ID, sealed=sealed))
    assert not decision.sends
    assert [audit.check for audit in decision.audit] == [Check.OR_33]


def test_or_33_a_naf_that_this_bsf_does_not_serve(home: Home) -> None:
    decision = home.give(msgspec.structs.replace(question(home), naf_id=b"other" + NAF_ID))
    assert decision.sends == ()
    assert [audit.check for audit in decision.audit] == [Check.OR_33]


# The hand-over, at the KMS


def asked_for(town: Town, btid: str, now: int = NOW) -> list[Any]:
    return [send.message for send in town.give(Attach(btid=btid, sender=AT), now).sends]


def handed_over(town: Town, request: ZnRequest, **changes: Any) -> Decision:
    """The BSF's answer; changes: of what is sealed."""
    site = town.records[Site.key().name]
    assert isinstance(site, Site)
    pending: Any = next(record for name, record in town.records.items() if ":attach:" in name)
    fields: dict[str, Any] = {
        "btid": request.btid,
        "naf_id": site.naf_id,
        "nonce": pending.nonce,
        "ks_naf": Secret(bytes(32)),
        "impi": IMPI,
        "identities": (ALICE,),
        "not_after": NOW + 9999,
    }
    handover = Handover(**{**fields, **changes})
    sealed = seal_handover(site.zn_key, handover, request=request.sealed, random=town.random)
    return town.give(ZnResponse(btid=request.btid, sealed=sealed))


def test_or_01_a_challenge_without_a_nonce_is_no_repeat_of_one() -> None:
    device = Stage(Ue(HARDENED, UeSettings(host="alice", lines=())))
    usim = Usim(k=Secret(bytes(16)), opc=Secret(bytes(16)))
    device.put(Handset.key_for(IMPI), Handset(impi=IMPI, identity=ALICE, usim=usim))
    [asked] = [send.message for send in device.give(HandsetAlarm(IMPI)).sends]
    assert isinstance(asked, BootstrapRequest)
    empty = BootstrapChallenge(attempt=asked.attempt, to=IMPI, realm="", nonce="")
    [told] = [send.message for send in device.give(empty).sends]
    assert isinstance(told, Report)
    assert told.check == Check.OR_01


def test_an_attached_device_is_told_again() -> None:
    town = Town()
    [request] = asked_for(town, "b@bsf")
    assert isinstance(request, ZnRequest)
    [told] = [send.message for send in handed_over(town, request).sends]
    assert isinstance(told, Attached)
    [again] = asked_for(town, "b@bsf")
    assert isinstance(again, Attached)


def test_or_02_a_late_answer_of_the_bsf_makes_nobody_live_again() -> None:
    """A second instance had asked as well; meanwhile the key was attached, and revoked."""
    town = Town()
    [request] = asked_for(town, "b@bsf")
    assert isinstance(request, ZnRequest)
    town.subscribe("b@bsf", ALICE, revoked=True)
    decision = handed_over(town, request)
    assert decision.sends == ()
    assert town.subscriber("b@bsf").revoked


@pytest.mark.parametrize("wrong", [{"btid": "c@bsf"}, {"nonce": bytes(16)}, {"naf_id": b"another"}], ids=str)
def test_or_33_an_answer_to_another_question(wrong: dict[str, Any]) -> None:
    town = Town()
    [request] = asked_for(town, "b@bsf")
    decision = handed_over(town, request, **wrong)
    assert not decision.sends
    assert not decision.puts
    assert [audit.check for audit in decision.audit] == [Check.OR_33]


def test_or_02_the_kms_asks_for_an_unknown_key_once_a_minute() -> None:
    town = Town()
    [request] = asked_for(town, "b@bsf")
    nothing = {"ks_naf": None, "impi": None, "identities": None, "not_after": None}
    [told] = [send.message for send in handed_over(town, request, **nothing).sends]
    assert isinstance(told, AttachRefusal)
    [told] = asked_for(town, "b@bsf", NOW + ZN_RETRY_S - 1)
    assert isinstance(told, AttachRefusal)
    [again] = asked_for(town, "b@bsf", NOW + ZN_RETRY_S)
    assert isinstance(again, ZnRequest)
    assert again.sealed != request.sealed


def test_or_02_a_kms_that_was_not_provisioned_asks_nobody() -> None:
    town = Town()
    del town.records[Site.key().name]
    [told] = asked_for(town, "b@bsf")
    assert isinstance(told, AttachRefusal)


def test_or_11_attaching_counts_against_the_host() -> None:
    town = Town()
    told = [asked_for(town, f"{number}@bsf")[0] for number in range(1001)]
    assert all(isinstance(each, ZnRequest) for each in told[:1000])
    assert told[1000].code is RefusalCode.TOO_MANY


@pytest.mark.parametrize("octets", [b"", bytes(40)])
def test_or_33_junk_is_refused(octets: bytes) -> None:
    with pytest.raises(Refused) as refused:
        open_handover(K_ZN, Question("b@bsf", NAF_ID, bytes(16), NOW), octets, request=b"")
    assert refused.value.check is Check.OR_33
