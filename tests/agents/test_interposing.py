"""Call control and the transcoder: of which device's answer it is told, when, and what passes it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from agents.cscf import Cscf, CscfSettings
from agents.decision import NOTHING, Decision
from protocol.checks import RefusalCode
from protocol.description import Description, Flow, SrtpSuite
from protocol.names import NoticeKind, Role, Suite
from protocol.transport import MediaAddress
from storage.cscf_records import Binding, Registration, Route
from tests.agents.scene import ALICE, BOB, CALL, NOW, Stage
from topics.catalogue import TRANSCODER as INBOX
from topics.messages import (
    Ack,
    Bye,
    ByeOk,
    Contact,
    Interpose,
    Invite,
    LegsOver,
    NoLegs,
    Notice,
    Ok,
    Wire,
)

TRANSCODER: Final = "sip:transcoder@ims.example"
ABOUT: Final[dict[str, Any]] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}
A: Final = Contact("alice", "alice-1")
PHONE: Final = Contact("bob", "bob-1")
TABLET: Final = Contact("bob-2", "bob-2")
FORKS: Final = {PHONE: b"phone...", TABLET: b"tablet.."}
SUITES: Final = (SrtpSuite.AEAD_AES_256_GCM,)
OFFER: Final = Description(SUITES, ("PCMU",), Flow.SENDRECV).octets


class Control(Stage):
    """Call control, where alice and two devices of bob are registered."""

    def __init__(self, transcoder: str = TRANSCODER) -> None:
        super().__init__(Cscf(CscfSettings(transcoder=transcoder)))
        for identity, contacts in ((ALICE, (A,)), (BOB, (PHONE, TABLET))):
            bindings = tuple(
                Binding(host=each.host, device=each.device, not_after=NOW + 9_999) for each in contacts
            )
            self.put(Registration.key_for(identity), Registration(bindings=bindings))

    def invite(self, run: int = 0, **changes: Any) -> Decision:
        message = Invite(
            caller_key="psk:alice",
            suite=Suite.AES_256_GCM,
            offer=OFFER,
            token_a=bytes(40),
            media=MediaAddress("alice", 1),
            sender=A,
            **{**ABOUT, "run": run},
        )
        return self.give(msgspec.structs.replace(message, **changes))

    def ok(self, device: Contact, codec: str, run: int = 0, **changes: Any) -> Decision:
        message = Ok(
            fork=FORKS[device],
            nonce_b=bytes(16),
            answer=Description(SUITES, (codec,), Flow.SENDRECV).octets,
            grant_a=bytes(40),
            confirm_b=bytes(32),
            media=MediaAddress(device.host, 2),
            sender=device,
            **{**ABOUT, "run": run},
        )
        return self.give(msgspec.structs.replace(message, **changes))

    def ack(self, device: Contact, run: int = 0) -> Decision:
        return self.give(Ack(fork=FORKS[device], confirm_a=bytes(32), **{**ABOUT, "run": run}))

    def taken(self) -> None:
        """alice has taken bob's phone, which shares no codec with her."""
        self.invite()
        self.ok(PHONE, "PCMA")
        self.ack(PHONE)

    @property
    def route(self) -> Route:
        record = self.records[Route.key_for(ALICE, CALL).name]
        assert isinstance(record, Route)
        return record


def to_transcoder(decision: Decision) -> list[Wire]:
    return [send.message for send in decision.sends if send.topic == INBOX]


@pytest.fixture
def control() -> Control:
    return Control()


def test_the_transcoder_hears_of_the_answer_that_was_taken(control: Control) -> None:
    control.invite()
    assert to_transcoder(control.ok(PHONE, "PCMA")) == []
    control.ok(TABLET, "G722")
    [interpose] = to_transcoder(control.ack(TABLET))
    assert interpose == Interpose(
        fork=FORKS[TABLET],
        offer=OFFER,
        answer=Description(SUITES, ("G722",), Flow.SENDRECV).octets,
        media_a=MediaAddress("alice", 1),
        media_b=MediaAddress("bob-2", 2),
        **ABOUT,
    )


def test_it_hears_nothing_where_the_answer_that_was_taken_shares_a_codec(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMA")
    control.ok(TABLET, "PCMU")
    assert to_transcoder(control.ack(TABLET)) == []


def test_an_ack_for_a_device_that_has_lost_brings_no_transcoder(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMU")
    control.ok(TABLET, "PCMA")
    control.ack(PHONE)
    assert to_transcoder(control.ack(TABLET)) == []


def test_an_ack_once_more_says_the_same_once_more(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMA")
    first = to_transcoder(control.ack(PHONE))
    before = control.route
    assert to_transcoder(control.ack(PHONE)) == first != []
    assert control.route == before


def test_without_a_transcoder_nothing_is_kept_of_media() -> None:
    control = Control("")
    control.invite()
    control.ok(PHONE, "PCMA")
    assert to_transcoder(control.ack(PHONE)) == []
    assert control.route.said == ()
    assert control.route.legs is None


def test_another_device_says_nothing_for_the_phone(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMA")
    control.ok(TABLET, "G722", fork=FORKS[PHONE])
    control.ok(PHONE, "G722", sender=Contact("eve", "eve-1"))
    [interpose] = to_transcoder(control.ack(PHONE))
    assert isinstance(interpose, Interpose)
    assert interpose.media_b == MediaAddress("bob", 2)


def test_each_run_that_is_acknowledged(control: Control) -> None:
    control.taken()
    for run in (1, 3, 4):
        control.invite(run, media=MediaAddress("alice", 10 + run))
        control.ok(PHONE, "PCMA", run)
        [interpose] = to_transcoder(control.ack(PHONE, run))
        assert isinstance(interpose, Interpose)
        assert (interpose.run, interpose.media_a) == (run, MediaAddress("alice", 10 + run))
        assert control.route.legs == (run, FORKS[PHONE])
    assert [said.n for said in control.route.said] == [3, 4]


def test_a_renewal_that_was_not_answered_brings_no_transcoder(control: Control) -> None:
    control.taken()
    control.invite(1)
    assert to_transcoder(control.ack(PHONE, 1)) == []


def test_bye_ok_of_the_device_that_was_taken_ends_the_legs(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMA")
    control.ok(TABLET, "PCMA")
    control.ack(PHONE)
    for by, fork in ((Role.CALLER, TABLET), (Role.CALLEE, TABLET)):
        assert to_transcoder(control.give(ByeOk(fork=FORKS[fork], by=by, **ABOUT))) == []
    assert to_transcoder(control.give(Bye(fork=FORKS[PHONE], by=Role.CALLER, proof=bytes(32), **ABOUT))) == []
    over = to_transcoder(control.give(ByeOk(fork=FORKS[PHONE], by=Role.CALLEE, **ABOUT)))
    assert over == [LegsOver(fork=FORKS[PHONE], **ABOUT)]
    assert to_transcoder(control.ack(PHONE)) == [], "a late ACK"


def test_bye_ok_of_a_run_before_ends_the_legs_of_the_latest(control: Control) -> None:
    control.taken()
    control.invite(1)
    control.ok(PHONE, "PCMA", 1)
    control.ack(PHONE, 1)
    over = to_transcoder(control.give(ByeOk(fork=FORKS[PHONE], by=Role.CALLEE, **ABOUT)))
    assert over == [LegsOver(fork=FORKS[PHONE], **{**ABOUT, "run": 1})]


def notice(kind: NoticeKind, whom: Role, **changes: Any) -> Notice:
    fields: dict[str, Any] = {
        "fork": FORKS[PHONE],
        "transcoder": TRANSCODER,
        "kind": kind,
        "whom": whom,
        "sealed": bytes(40),
        **ABOUT,
    }
    return Notice(**{**fields, **changes})


@pytest.mark.parametrize("kind", NoticeKind)
@pytest.mark.parametrize(("whom", "contact"), [(Role.CALLER, A), (Role.CALLEE, PHONE)])
def test_a_notice_goes_to_whom_it_is_for(
    control: Control, kind: NoticeKind, whom: Role, contact: Contact
) -> None:
    control.taken()
    decision = control.give(notice(kind, whom))
    [told] = [send for send in decision.sends if send.topic != INBOX]
    assert told.topic.host == contact.host
    assert told.message == notice(kind, whom, to=contact.device)
    over = [] if kind is NoticeKind.LEG else [LegsOver(fork=FORKS[PHONE], **ABOUT)]
    assert to_transcoder(decision) == over
    assert decision.puts == ()


def test_a_notice_of_a_call_without_legs_is_none_of_the_transcoders(control: Control) -> None:
    control.invite()
    control.ok(PHONE, "PCMU")
    control.ack(PHONE)
    assert to_transcoder(control.give(notice(NoticeKind.END, Role.CALLER))) == []
    mailbox = notice(NoticeKind.END, Role.CALLER, fork=None, transcoder=None)
    assert to_transcoder(control.give(mailbox)) == []
    assert control.give(notice(NoticeKind.END, Role.CALLEE, fork=bytes(8))) == NOTHING


def test_no_legs_goes_to_both(control: Control) -> None:
    control.taken()
    decision = control.give(NoLegs(fork=FORKS[PHONE], code=RefusalCode.BUSY, **ABOUT))
    assert [send.topic.host for send in decision.sends] == ["alice", "bob"]
    later = control.give(NoLegs(fork=FORKS[PHONE], code=RefusalCode.BUSY, **{**ABOUT, "run": 7}))
    assert [send.topic.host for send in later.sends] == ["alice", "bob"]
