"""Call control, one message at a time: where it rings, who wins, and each way in which messages can cross."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import permutations
from typing import Any, Final

import msgspec
import pytest

from agents.alarms import Cancelling, NoAnswer
from agents.cscf import Cscf, CscfSettings
from agents.decision import NOTHING, Decision, Input, Send
from console.calls.ladder import name_of
from protocol.checks import RefusalCode
from protocol.limits import FORKS_MAX
from protocol.names import Role, Suite
from protocol.transport import MediaAddress
from storage.cscf_records import BranchState, Route, RouteState
from tests.agents.scene import ALICE, BOB, CALL, EVE, NOW, OFFER, Stage
from topics import messages
from topics.catalogue import VOICEMAIL
from topics.codec import decode, encode
from topics.messages import Contact, DeclineReason, Message

MAILBOX: Final = "sip:voicemail@ims.example"
ABOUT: Final[dict[str, Any]] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}
AT: Final = MediaAddress("127.0.0.1", 9)
NO_ANSWER: Final = NoAnswer(ALICE, BOB, CALL, 0)
CANCELLING: Final = Cancelling(ALICE, BOB, CALL, 0)


def fork(device: str) -> bytes:
    return f"F {device}".ljust(8).encode()[:8]


def contact(device: str) -> Contact:
    return Contact(f"host-of-{device}", f"{device}@ims.example")


def register(device: str, expires_s: int = 3600) -> messages.Register:
    user = device.partition("-")[0]
    return messages.Register(identity=f"sip:{user}@ims.example", expires_s=expires_s, sender=contact(device))


def invite(**changes: Any) -> messages.Invite:
    fields: dict[str, Any] = {"sender": contact("alice-1"), **ABOUT, **changes}
    return messages.Invite(
        caller_key="k", suite=Suite.AES_256_GCM, offer=OFFER, token_a=bytes(40), media=AT, **fields
    )


def ringing(device: str, **changes: Any) -> messages.Ringing:
    return messages.Ringing(**{"sender": contact(device), **ABOUT, **changes})


def ok(device: str, name: bytes | None = None, **changes: Any) -> messages.Ok:
    fields: dict[str, Any] = {"sender": contact(device), "fork": name or fork(device), **ABOUT, **changes}
    return messages.Ok(
        nonce_b=bytes(16), answer=OFFER, grant_a=bytes(40), confirm_b=bytes(32), media=AT, **fields
    )


def decline(device: str | None, reason: DeclineReason = DeclineReason.DECLINED, **changes: Any) -> Any:
    sender = None if device is None else contact(device)
    return messages.Decline(**{"reason": reason, "sender": sender, **ABOUT, **changes})


def cancelled(device: str) -> messages.Cancelled:
    return messages.Cancelled(sender=contact(device), **ABOUT)


def ack(device: str, **changes: Any) -> messages.Ack:
    return messages.Ack(fork=fork(device), confirm_a=bytes(32), **{**ABOUT, **changes})


def cancel(**changes: Any) -> messages.Cancel:
    return messages.Cancel(**{**ABOUT, **changes})


def bye(by: Role, device: str | None, **changes: Any) -> messages.Bye:
    name = None if device is None else fork(device)
    return messages.Bye(fork=name, by=by, proof=name and bytes(32), **{**ABOUT, **changes})


def bye_ok(by: Role, device: str | None, kept: int | None = None) -> messages.ByeOk:
    return messages.ByeOk(fork=None if device is None else fork(device), by=by, kept=kept, **ABOUT)


def mailbox_ok() -> messages.MailboxOk:
    return messages.MailboxOk(
        mailbox=MAILBOX,
        answer=OFFER,
        grant_m=bytes(40),
        media=AT,
        diverted=DeclineReason.NO_ANSWER,
        **ABOUT,
    )


class Control(Stage):
    """Call control with alice registered, and these devices of bob's."""

    def __init__(self, *devices: str, mailbox: str = "", settings: CscfSettings | None = None) -> None:
        super().__init__(Cscf(settings or CscfSettings(mailbox=mailbox)))
        self.wakes: dict[str, int | None] = {}
        for device in ("alice-1", *devices):
            self.give(register(device))

    def give(self, message: Input, now: int = NOW) -> Decision:
        decision = super().give(message, now)
        for wake in decision.wakes:
            self.wakes[wake.about.partition(" ")[0]] = wake.at
        return decision

    def hears(self, message: Input, after_s: int = 0) -> list[str]:
        """What follows from the message, as `receiver: NAME about`."""
        return [said(send) for send in self.give(message, NOW + after_s).sends]

    def tells(self, *inputs: Input, after_s: int = 0) -> Control:
        """Goes on from here."""
        for message in inputs:
            self.give(message, NOW + after_s)
        return self

    def due(self, alarm: str) -> int | None:
        """In how many seconds since NOW it will fire; None: not."""
        at = self.wakes.get(alarm)
        return None if at is None else at - NOW

    @property
    def route(self) -> Route:
        route = self.records[Route.key_for(ALICE, CALL).name]
        assert isinstance(route, Route)
        return route

    def branch(self, device: str) -> BranchState:
        return next(b.state for b in self.route.branches if b.device == contact(device).device)


def said(send: Send) -> str:
    """One message as call control sends it; what a device gets is for it and from nobody."""
    message: Any = send.message
    receiver = "mailbox" if send.topic is VOICEMAIL else send.key.partition("@")[0]
    if receiver == "mailbox":
        assert send.key == (BOB if not isinstance(message, messages.Present) else message.identity)
    else:
        assert send.topic.name == f"ims.ue.host-of-{receiver}"
        assert message.to == send.key
    assert getattr(message, "sender", None) is None
    decode(encode(message))
    name = getattr(message, "fork", None)
    detail = name.decode()[2:] if name else getattr(message, "reason", None)
    detail = detail or getattr(message, "diverted", None)
    return f"{receiver}: {name_of(message)} {detail or ''}".rstrip()


TWO: Final = ("bob-1", "bob-2")


def ring(*devices: str, mailbox: str = "") -> Control:
    """A call that rings at these devices."""
    devices = devices or TWO
    return Control(*devices, mailbox=mailbox).tells(invite(), *(ringing(device) for device in devices))


def won(winner: str = "bob-1") -> Control:
    """A call that one of two devices has won."""
    return ring().tells(ok(winner), ack(winner))


def diverted(*devices: str) -> Control:
    """A call that nobody took for a minute: the mailbox has the INVITE."""
    return ring(*devices, mailbox=MAILBOX).tells(NO_ANSWER, after_s=60)


# Registration.


def test_a_registration_is_told_to_the_mailbox() -> None:
    control = Control(mailbox=MAILBOX)
    assert control.hears(register("bob-1")) == ["bob-1: REGISTERED", "mailbox: PRESENT"]
    present = control.give(register("bob-1")).sends[1].message
    assert present == messages.Present(identity=BOB, device=contact("bob-1"), not_after=NOW + 3600)


def test_the_end_of_a_registration_is_told_to_the_mailbox() -> None:
    ended = Control("bob-1", mailbox=MAILBOX).give(register("bob-1", 0)).sends[1].message
    assert ended == messages.Present(identity=BOB, device=contact("bob-1"), not_after=NOW)


def asked_of_the_mailbox(device: str) -> list[Any]:
    """What a device may want of bob's mailbox."""
    run: dict[str, Any] = {**ABOUT, "sender": contact(device)}
    return [
        messages.Mailbox(identity=BOB, request=bytes(16), sender=contact(device)),
        messages.Retrieve(part=0, **run),
        messages.Collected(proof=bytes(32), **run),
    ]


def test_what_a_registered_device_wants_of_the_mailbox_goes_there() -> None:
    control = Control("bob-1", mailbox=MAILBOX)
    for wish in asked_of_the_mailbox("bob-1"):
        [send] = control.give(wish).sends
        assert (send.topic, send.key, send.message) == (VOICEMAIL, BOB, wish)


def test_another_device_hears_that_it_may_not_ask_and_needs_a_proof_to_delete() -> None:
    control = Control("bob-1", mailbox=MAILBOX)
    question, retrieve, collected = asked_of_the_mailbox("eve-1")
    for wish in (question, retrieve):
        [send] = control.give(wish).sends
        assert isinstance(send.message, messages.MailboxSays | messages.MailboxRefusal)
        assert (send.message.code, send.message.to) == (RefusalCode.DENIED, contact("eve-1").device)
    [send] = control.give(collected).sends
    assert (send.topic, send.message) == (VOICEMAIL, collected)


def test_where_there_is_no_mailbox_who_asks_hears_so() -> None:
    for wish in asked_of_the_mailbox("bob-1"):
        [send] = Control("bob-1").give(wish).sends
        assert isinstance(send.message, messages.MailboxSays | messages.MailboxRefusal)
        assert send.message.code is RefusalCode.NOT_FOUND


def test_without_a_mailbox_nobody_is_told_of_a_registration() -> None:
    assert Control().hears(register("bob-1")) == ["bob-1: REGISTERED"]


# INVITE.


def test_an_invite_goes_to_every_device_that_is_registered() -> None:
    assert Control(*TWO).hears(invite()) == ["bob-1: INVITE", "bob-2: INVITE"]


def test_at_most_sixteen_devices_ring() -> None:
    devices = [f"bob-{number}" for number in range(FORKS_MAX + 3)]
    assert Control(*devices).hears(invite()) == [f"{device}: INVITE" for device in devices[-FORKS_MAX:]]


def test_a_device_whose_registration_is_over_does_not_ring() -> None:
    control = Control("bob-1")
    control.tells(register("bob-2", 100), register("alice-1"))
    assert control.hears(invite(), after_s=101) == ["bob-1: INVITE"]


def test_a_device_that_registers_while_others_ring_is_not_added() -> None:
    control = ring("bob-1").tells(register("bob-2"))
    assert control.hears(invite()) == ["bob-1: INVITE"]
    assert control.give(ok("bob-2")) == NOTHING
    assert control.give(ringing("bob-2")) == NOTHING


def test_a_caller_that_is_not_registered_is_declined() -> None:
    control = Control("bob-1", mailbox=MAILBOX).tells(register("alice-1", 0))
    assert control.hears(invite()) == ["alice-1: DECLINE not-registered"]


def test_a_call_to_nobody_is_declined_where_there_is_no_mailbox() -> None:
    control = Control()
    assert control.hears(invite()) == ["alice-1: DECLINE not-registered"]
    assert Route.key_for(ALICE, CALL).name not in control.records


def test_a_call_to_nobody_goes_to_the_mailbox() -> None:
    control = Control(mailbox=MAILBOX)
    assert control.hears(invite()) == ["mailbox: INVITE not-registered"]
    assert control.due("no-answer") == 30
    assert control.hears(invite()) == ["mailbox: INVITE not-registered"]


def test_the_mailbox_gets_the_invite_as_it_came() -> None:
    control = Control(mailbox=MAILBOX)
    [send] = control.give(invite()).sends
    assert send.message == invite(sender=None, diverted=DeclineReason.NOT_REGISTERED)


def test_an_invite_that_does_not_say_where_answers_go_is_nothing() -> None:
    assert Control(*TWO).give(invite(sender=None)) == NOTHING
    assert ring().give(invite(sender=None)) == NOTHING


def test_another_device_under_this_calls_name_is_not_heard() -> None:
    control = ring().tells(register("alice-2"))
    assert control.give(invite(sender=contact("alice-2"))) == NOTHING


@pytest.mark.parametrize(
    "message",
    [invite(callee=EVE), ringing("bob-1", callee=EVE), ack("bob-1", callee=EVE), cancel(callee=EVE)],
    ids=lambda message: type(message).__name__,
)
def test_another_callee_under_this_calls_name_is_not_heard(message: Message) -> None:
    assert ring().tells(ok("bob-1")).give(message) == NOTHING


def test_an_invite_once_more_goes_to_the_devices_that_may_still_answer() -> None:
    control = ring("bob-1", "bob-2", "bob-3").tells(decline("bob-2"), ok("bob-3"))
    assert control.hears(invite()) == ["bob-1: INVITE", "bob-3: INVITE"]


def test_an_invite_once_more_after_the_ack_goes_to_who_has_won() -> None:
    assert won().hears(invite()) == ["bob-1: INVITE"]


def test_an_invite_once_more_after_a_decline_or_a_cancel_gets_the_same_answer() -> None:
    assert ring("bob-1").tells(decline("bob-1")).hears(invite()) == ["alice-1: DECLINE declined"]
    assert ring().tells(cancel()).hears(invite()) == ["alice-1: CANCELLED"]


def test_an_invite_once_more_goes_to_the_mailbox_that_was_asked_or_has_answered() -> None:
    control = diverted()
    assert control.hears(invite()) == ["mailbox: INVITE no-answer"]
    assert control.tells(mailbox_ok()).hears(invite()) == ["mailbox: INVITE no-answer"]


def test_the_invite_is_kept_only_where_there_is_a_mailbox() -> None:
    assert ring().route.invite == b""
    assert ring(mailbox=MAILBOX).route.invite == encode(invite())
    assert diverted().tells(cancel()).route.invite == b""


# A renewal: between the caller and the winner, and nobody else.


def test_a_renewal_rings_only_at_the_device_that_has_won() -> None:
    assert won("bob-2").hears(invite(run=1)) == ["bob-2: INVITE"]


def test_a_renewal_rings_nowhere_before_a_device_has_won() -> None:
    assert ring().tells(ok("bob-1")).give(invite(run=1)) == NOTHING
    assert diverted().give(invite(run=1)) == NOTHING


def test_a_renewal_begins_no_call() -> None:
    control = Control("bob-1", mailbox=MAILBOX)
    assert control.give(invite(run=1)) == NOTHING
    assert Route.key_for(ALICE, CALL).name not in control.records


def test_a_renewals_messages_pass_between_the_two_and_change_nothing() -> None:
    control = won()
    before = control.route
    assert control.hears(decline("bob-1", run=1)) == ["alice-1: DECLINE declined"]
    assert control.hears(ok("bob-1", run=1)) == ["alice-1: 200 OK bob-1"]
    assert control.hears(ack("bob-1", run=1)) == ["bob-1: ACK bob-1"]
    assert control.hears(bye(Role.CALLEE, "bob-1", run=1)) == ["alice-1: BYE bob-1"]
    assert control.hears(bye(Role.CALLER, "bob-1", run=1)) == ["bob-1: BYE bob-1"]
    assert control.hears(cancel(run=1)) == ["bob-1: CANCEL"]
    assert control.give(ok("bob-2", run=1)) == NOTHING
    assert control.give(ack("bob-2", run=1)) == NOTHING
    assert control.route == before


# Devices ring, answer, decline.


def test_two_devices_ring_and_one_answers() -> None:
    control = Control(*TWO)
    control.give(invite())
    assert control.hears(ringing("bob-1")) == ["alice-1: RINGING"]
    assert control.hears(ringing("bob-2")) == ["alice-1: RINGING"]
    assert control.hears(ok("bob-2")) == ["alice-1: 200 OK bob-2"]
    assert control.hears(ack("bob-2")) == ["bob-1: CANCEL", "bob-2: ACK bob-2"]
    assert control.hears(cancelled("bob-1")) == []
    assert control.hears(bye(Role.CALLER, "bob-2")) == ["bob-2: BYE bob-2"]
    assert control.hears(bye_ok(Role.CALLEE, "bob-2")) == ["alice-1: BYE-OK bob-2"]


def test_a_device_that_the_call_did_not_go_to_is_not_heard() -> None:
    for message in (ringing("eve-1"), ok("eve-1"), decline("eve-1"), cancelled("eve-1")):
        assert ring().give(message) == NOTHING


@pytest.mark.parametrize("first", TWO)
def test_two_answers_in_the_same_instant_both_pass_and_the_caller_decides(first: str) -> None:
    [second] = {*TWO} - {first}
    control = ring()
    assert control.hears(ok(first)) == [f"alice-1: 200 OK {first}"]
    assert control.hears(ok(second)) == [f"alice-1: 200 OK {second}"]
    assert control.hears(ack(second)) == [f"{first}: CANCEL", f"{second}: ACK {second}"]
    assert control.hears(bye(Role.CALLER, first)) == [f"{first}: BYE {first}"]
    assert control.hears(bye_ok(Role.CALLEE, first)) == [f"alice-1: BYE-OK {first}"]
    assert control.hears(cancelled(first)) == []
    assert control.route.winner == fork(second)


def test_the_bye_to_the_loser_may_overtake_the_ack_of_the_winner() -> None:
    control = ring().tells(ok("bob-1"), ok("bob-2"))
    assert control.hears(bye(Role.CALLER, "bob-2")) == ["bob-2: BYE bob-2"]
    assert control.hears(ack("bob-1")) == ["bob-2: CANCEL", "bob-1: ACK bob-1"]
    assert control.route.winner == fork("bob-1")


def test_the_first_ack_decides() -> None:
    control = won("bob-1").tells(ok("bob-2"))
    assert control.hears(ack("bob-2")) == ["bob-2: ACK bob-2"]
    assert control.route.winner == fork("bob-1")


def test_an_ack_once_more_goes_to_who_has_won_and_cancels_nobody_anew() -> None:
    control = won()
    before = control.route
    assert control.hears(ack("bob-1")) == ["bob-1: ACK bob-1"]
    assert control.route == before


def test_an_ack_for_an_answer_that_never_passed_is_nothing() -> None:
    assert ring().give(ack("bob-1")) == NOTHING


def test_an_answer_crosses_the_cancel_and_gets_the_callers_bye() -> None:
    control = won("bob-1")
    assert control.hears(ok("bob-2")) == ["alice-1: 200 OK bob-2"]
    assert control.hears(bye(Role.CALLER, "bob-2")) == ["bob-2: BYE bob-2"]
    assert control.branch("bob-2") is BranchState.CANCELLING  # until it says that it has stopped
    control.tells(cancelled("bob-2"))
    assert control.hears(ok("bob-2")) == ["alice-1: 200 OK bob-2"]
    assert control.branch("bob-2") is BranchState.OVER


def test_an_answer_of_the_loser_that_came_before_the_ack_is_cancelled_with_the_others() -> None:
    control = ring().tells(ok("bob-2"), ok("bob-1"))
    assert control.hears(ack("bob-1")) == ["bob-2: CANCEL", "bob-1: ACK bob-1"]
    assert control.hears(ok("bob-2")) == ["alice-1: 200 OK bob-2"]


def test_a_winners_answer_once_more_goes_to_the_caller_for_its_ack() -> None:
    control = won()
    assert control.hears(ok("bob-1")) == ["alice-1: 200 OK bob-1"]
    assert control.hears(ringing("bob-1")) == ["alice-1: RINGING"]


def test_a_loser_that_rings_late_is_cancelled_again() -> None:
    control = won("bob-1")
    assert control.hears(ringing("bob-2")) == ["bob-2: CANCEL"]
    assert control.tells(cancelled("bob-2")).hears(ringing("bob-2")) == ["bob-2: CANCEL"]


def test_a_losers_bye_is_answered_here_and_the_winners_by_the_caller() -> None:
    control = won("bob-1").tells(ok("bob-2"))
    [send] = control.give(bye(Role.CALLEE, "bob-2")).sends
    assert said(send) == "bob-2: BYE-OK bob-2"
    assert isinstance(send.message, messages.ByeOk)
    assert send.message.by is Role.CALLER
    assert control.hears(bye(Role.CALLEE, "bob-1")) == ["alice-1: BYE bob-1"]
    assert control.hears(bye(Role.CALLEE, "bob-3")) == []


def test_a_bye_before_any_ack_goes_to_the_caller_whose_ack_may_be_lost() -> None:
    control = ring().tells(ok("bob-1"), ok("bob-2"))
    assert control.hears(bye(Role.CALLEE, "bob-1")) == ["alice-1: BYE bob-1"]


@pytest.mark.parametrize("message", [bye(Role.CALLER, "bob-1"), bye_ok(Role.CALLER, "bob-1")])
def test_a_caller_that_hangs_up_has_taken_the_only_answer_though_its_ack_is_lost(message: Message) -> None:
    control = ring().tells(ok("bob-1"))
    assert control.hears(message) == ["bob-2: CANCEL", f"bob-1: {name_of(message)} bob-1"]
    assert control.route.winner == fork("bob-1")
    assert control.due("no-answer") is None


@pytest.mark.parametrize(("first", "other"), [TWO, TWO[::-1]])
def test_a_fork_names_one_device_for_good(first: str, other: str) -> None:
    control = ring().tells(ok(first))
    assert control.hears(ok(other, fork(first))) == [f"alice-1: 200 OK {first}"]
    assert control.hears(ack(first)) == [f"{other}: CANCEL", f"{first}: ACK {first}"]
    control.tells(ok(other, fork(first)), ok(first, fork("bob-9")))
    assert control.hears(bye(Role.CALLER, first)) == [f"{first}: BYE {first}"]


def test_one_device_declines_and_the_other_answers() -> None:
    control = ring()
    assert control.hears(decline("bob-1")) == []
    assert control.hears(ok("bob-2")) == ["alice-1: 200 OK bob-2"]
    assert control.hears(ack("bob-2")) == ["bob-2: ACK bob-2"]
    assert control.due("cancelling") is None


def test_the_last_open_device_declines_while_another_has_answered_and_no_ack_has_come() -> None:
    control = ring(mailbox=MAILBOX).tells(ok("bob-1"))
    assert control.hears(decline("bob-2")) == []
    assert control.route.state is RouteState.CALLING
    assert control.hears(ack("bob-1")) == ["bob-1: ACK bob-1"]


def test_all_decline_and_the_caller_is_told_once_the_last_one_has() -> None:
    control = ring()
    assert control.hears(decline("bob-1")) == []
    assert control.hears(decline("bob-1")) == []
    assert control.hears(decline("bob-2")) == ["alice-1: DECLINE declined"]
    assert control.hears(decline("bob-2")) == ["alice-1: DECLINE declined"]  # perhaps it was not sent
    assert control.due("no-answer") is None


def test_all_decline_and_the_mailbox_is_asked() -> None:
    control = ring(mailbox=MAILBOX)
    control.tells(decline("bob-1", DeclineReason.BUSY))
    assert control.hears(decline("bob-2", DeclineReason.NO_KEY)) == ["mailbox: INVITE busy"]
    assert control.hears(decline("bob-2", DeclineReason.NO_KEY)) == ["mailbox: INVITE busy"]
    assert control.due("no-answer") == 30


RANK = (
    DeclineReason.DECLINED,
    DeclineReason.BUSY,
    DeclineReason.NO_ANSWER,
    DeclineReason.NOTHING_IN_COMMON,
    DeclineReason.NO_KEY,
    DeclineReason.NOT_REGISTERED,
)


@pytest.mark.parametrize(("one", "other"), list(permutations(RANK, 2)))
def test_of_two_reasons_the_one_that_says_more_is_told(one: DeclineReason, other: DeclineReason) -> None:
    best = RANK[min(RANK.index(one), RANK.index(other))]
    control = ring().tells(decline("bob-1", one))
    assert control.hears(decline("bob-2", other)) == [f"alice-1: DECLINE {best}"]


def test_a_reason_that_is_no_devices_is_not_passed_on() -> None:
    control = ring("bob-1")
    assert control.hears(decline("bob-1", DeclineReason.MAILBOX_FULL)) == ["alice-1: DECLINE no-answer"]


def test_a_ringing_that_a_decline_has_overtaken_opens_nothing() -> None:
    control = Control(*TWO).tells(invite(), decline("bob-1"))
    assert control.hears(ringing("bob-1")) == ["bob-1: CANCEL"]
    assert control.hears(decline("bob-2")) == ["alice-1: DECLINE declined"]


def test_an_answer_after_a_decline_that_was_not_its_own_is_heard() -> None:
    control = ring().tells(decline("bob-1"))
    assert control.hears(ok("bob-1")) == ["alice-1: 200 OK bob-1"]
    assert control.hears(ack("bob-1")) == ["bob-2: CANCEL", "bob-1: ACK bob-1"]


def test_a_device_that_died_after_its_answer_and_declines_the_repeat_is_over() -> None:
    control = ring("bob-1").tells(ok("bob-1"))
    assert control.hears(decline("bob-1", DeclineReason.NO_KEY)) == ["alice-1: DECLINE no-key"]


def test_a_decline_of_who_has_won_changes_nothing() -> None:
    assert won("bob-1").give(decline("bob-1")) == NOTHING


def test_a_cancelled_that_nobody_asked_for_changes_nothing() -> None:
    assert ring().give(cancelled("bob-1")) == NOTHING
    assert won("bob-1").give(cancelled("bob-1")) == NOTHING


# CANCEL, by the caller and by call control.


def test_a_cancel_is_answered_at_once_and_all_devices_stop() -> None:
    control = ring().tells(ok("bob-2"))
    assert control.hears(cancel()) == ["alice-1: CANCELLED", "bob-1: CANCEL", "bob-2: CANCEL"]
    assert control.due("no-answer") is None
    assert control.hears(cancel()) == ["alice-1: CANCELLED"]
    assert control.hears(cancelled("bob-1")) == []
    assert control.due("cancelling") == 2
    assert control.hears(cancelled("bob-2")) == []
    assert control.due("cancelling") is None


def test_a_cancel_of_a_call_that_has_not_come_is_nothing() -> None:
    assert Control(*TWO).give(cancel()) == NOTHING


def test_the_callers_cancel_crosses_an_answer_which_gets_a_bye() -> None:
    control = ring("bob-1").tells(cancel())
    assert control.hears(ok("bob-1")) == ["alice-1: 200 OK bob-1"]
    assert control.hears(bye(Role.CALLER, "bob-1")) == ["bob-1: BYE bob-1"]
    assert control.hears(ringing("bob-1")) == ["bob-1: CANCEL"]
    assert control.hears(cancelled("bob-1")) == []
    assert control.route.state is RouteState.CANCELLED


def test_an_ack_after_a_cancel_does_not_bring_the_call_back() -> None:
    control = ring("bob-1").tells(ok("bob-1"), cancel())
    assert control.hears(ack("bob-1")) == ["bob-1: ACK bob-1"]
    assert control.route.state is RouteState.CANCELLED


def test_a_cancel_crosses_a_decline() -> None:
    control = ring("bob-1").tells(decline("bob-1"))
    assert control.hears(cancel()) == ["alice-1: CANCELLED"]
    control = ring("bob-1").tells(cancel())
    assert control.hears(decline("bob-1")) == []
    assert control.due("cancelling") is None


def test_a_cancel_of_a_call_that_an_ack_was_seen_for_reaches_who_has_won() -> None:
    assert won("bob-1").hears(cancel()) == ["alice-1: CANCELLED", "bob-1: CANCEL"]


def test_cancel_is_repeated_after_2_4_8_and_16_seconds_and_then_no_more() -> None:
    control = won("bob-1")
    sent = []
    while (at := control.due("cancelling")) is not None and at not in sent:
        assert control.hears(CANCELLING, after_s=at) == ["bob-2: CANCEL"]
        sent.append(at)
    assert sent == [2, 6, 14, 30]
    assert control.give(CANCELLING, NOW + 90) == NOTHING


def test_cancel_is_repeated_only_to_who_has_not_answered_it() -> None:
    control = ring("bob-1", "bob-2", "bob-3").tells(cancel(), cancelled("bob-2"), decline("bob-1"))
    assert control.hears(CANCELLING, after_s=2) == ["bob-3: CANCEL"]
    control.tells(cancelled("bob-3"))
    assert control.due("cancelling") is None
    assert control.give(CANCELLING, NOW + 6) == NOTHING


# Patience.


def test_a_device_that_rings_gets_a_minute_from_the_invite_on() -> None:
    control = Control(*TWO, mailbox=MAILBOX)
    control.give(invite())
    assert control.due("no-answer") == 10
    control.give(ringing("bob-1"), NOW + 4)
    assert control.due("no-answer") == 60
    control.tells(ringing("bob-2"), ringing("bob-1"), invite(), after_s=20)
    assert control.due("no-answer") == 60


def test_where_there_is_no_mailbox_silence_is_no_reason_to_give_up_early() -> None:
    control = Control(*TWO)
    control.give(invite())
    assert control.due("no-answer") == 60


def test_an_operator_chooses_how_long() -> None:
    settings = CscfSettings(mailbox=MAILBOX, no_reaction_s=3, no_answer_s=20)
    control = Control("bob-1", settings=settings)
    control.give(invite())
    assert control.due("no-answer") == 3
    control.give(ringing("bob-1"))
    assert control.due("no-answer") == 20


def test_an_answer_has_32_seconds_for_its_ack_and_a_repeat_no_more() -> None:
    control = ring("bob-1").tells(ok("bob-1"), after_s=50)
    assert control.due("no-answer") == 82
    control.tells(ok("bob-1"), after_s=70)
    assert control.due("no-answer") == 82
    early = Control("bob-1", mailbox=MAILBOX).tells(invite(), ok("bob-1"))
    assert early.due("no-answer") == 32
    assert early.tells(ringing("bob-1")).due("no-answer") == 32
    assert ring().tells(ok("bob-1")).due("no-answer") == 60, "it takes no time away from the others"
    control.tells(ack("bob-1"))
    assert control.due("no-answer") is None


def test_an_alarm_that_was_put_off_waits_on() -> None:
    control = ring("bob-1").tells(ok("bob-1"), after_s=50)
    before = control.route
    assert control.hears(NO_ANSWER, after_s=60) == []
    assert (control.route, control.due("no-answer")) == (before, 82)


def test_nobody_answers_and_there_is_no_mailbox() -> None:
    control = ring()
    heard = control.hears(NO_ANSWER, after_s=60)
    assert sorted(heard) == ["alice-1: DECLINE no-answer", "bob-1: CANCEL", "bob-2: CANCEL"]
    assert control.due("cancelling") == 62
    assert control.hears(NO_ANSWER, after_s=60) == []
    assert control.hears(invite(), after_s=61) == ["alice-1: DECLINE no-answer"]


def test_nobody_answers_and_the_mailbox_is_asked() -> None:
    control = ring(mailbox=MAILBOX)
    heard = control.hears(NO_ANSWER, after_s=60)
    assert heard == ["bob-1: CANCEL", "bob-2: CANCEL", "mailbox: INVITE no-answer"]
    assert (control.due("cancelling"), control.due("no-answer")) == (62, 90)


def test_nobody_says_anything_for_ten_seconds_and_the_mailbox_is_asked() -> None:
    control = Control("bob-1", mailbox=MAILBOX).tells(invite())
    assert control.hears(NO_ANSWER, after_s=10) == ["bob-1: CANCEL", "mailbox: INVITE no-answer"]


def test_one_declines_and_the_other_says_nothing() -> None:
    control = ring(mailbox=MAILBOX).tells(decline("bob-1"))
    assert control.hears(NO_ANSWER, after_s=60) == ["bob-2: CANCEL", "mailbox: INVITE declined"]


def test_the_alarm_of_a_call_that_was_taken_or_cancelled_is_nothing() -> None:
    for control in (won(), ring().tells(cancel()), diverted().tells(mailbox_ok())):
        assert control.give(NO_ANSWER, NOW + 999) == NOTHING
    assert Control().give(NO_ANSWER) == NOTHING
    assert Control().give(CANCELLING) == NOTHING


def test_no_answer_fires_just_before_the_ack() -> None:
    control = ring("bob-1", "bob-2").tells(ok("bob-1")).tells(NO_ANSWER, after_s=60)
    assert control.branch("bob-1") is BranchState.CANCELLING
    assert control.hears(ack("bob-1"), after_s=60) == ["bob-1: ACK bob-1"]
    assert control.hears(CANCELLING, after_s=62) == ["bob-2: CANCEL"]
    assert control.hears(bye(Role.CALLER, "bob-1")) == ["bob-1: BYE bob-1"]


def test_no_answer_fires_just_before_the_ack_and_the_mailbox_is_not_wanted_after_all() -> None:
    control = ring("bob-1", mailbox=MAILBOX).tells(ok("bob-1")).tells(NO_ANSWER, after_s=60)
    assert control.hears(ack("bob-1"), after_s=60) == ["bob-1: ACK bob-1", "mailbox: CANCEL"]
    assert control.due("no-answer") is None
    assert control.hears(mailbox_ok()) == ["mailbox: CANCEL"]
    assert control.hears(invite()) == ["bob-1: INVITE"]
    assert control.hears(ack("bob-1")) == ["bob-1: ACK bob-1", "mailbox: CANCEL"]


# The mailbox.


def test_late_ringing_after_diversion_is_cancelled() -> None:
    assert diverted().hears(ringing("bob-1")) == ["bob-1: CANCEL"]


def test_a_late_answer_after_diversion_is_cancelled_and_the_caller_does_not_take_a_device_that_stops() -> (
    None
):
    control = diverted()
    assert control.hears(ok("bob-1")) == ["bob-1: CANCEL"]
    assert control.tells(mailbox_ok()).hears(ok("bob-1")) == ["bob-1: CANCEL"]
    assert ring().tells(NO_ANSWER, after_s=60).hears(ok("bob-1")) == ["bob-1: CANCEL"]


def test_late_decline_and_cancelled_after_diversion_only_end_the_repeating() -> None:
    control = diverted()
    assert control.hears(decline("bob-1")) == []
    assert control.hears(cancelled("bob-2")) == []
    assert control.due("cancelling") is None
    assert control.route.state is RouteState.DIVERTED
    assert control.tells(mailbox_ok()).hears(cancelled("bob-2")) == []


def test_the_mailbox_answers_and_the_caller_leaves_a_message() -> None:
    control = diverted()
    assert control.hears(mailbox_ok()) == ["alice-1: 200 OK no-answer"]
    assert control.due("no-answer") is None
    assert control.hears(mailbox_ok()) == ["alice-1: 200 OK no-answer"]
    assert control.hears(bye(Role.CALLER, None)) == ["mailbox: BYE"]
    assert control.hears(bye_ok(Role.MAILBOX, None, kept=9)) == ["alice-1: BYE-OK"]
    assert control.hears(bye(Role.MAILBOX, None, reason="too-long")) == ["alice-1: BYE too-long"]
    assert control.hears(bye_ok(Role.CALLER, None)) == [], "which answers no BYE-OK"


def test_the_mailbox_declines_and_the_caller_hears_why() -> None:
    control = diverted()
    full = decline(None, DeclineReason.MAILBOX_FULL)
    assert control.hears(full) == ["alice-1: DECLINE mailbox-full"]
    assert control.hears(full) == ["alice-1: DECLINE mailbox-full"]
    assert control.hears(invite()) == ["alice-1: DECLINE mailbox-full"]
    assert control.due("no-answer") is None
    assert control.hears(mailbox_ok()) == ["mailbox: CANCEL"]


def test_a_decline_that_the_mailboxs_answer_has_overtaken_is_nothing() -> None:
    assert diverted().tells(mailbox_ok()).give(decline(None, DeclineReason.BUSY)) == NOTHING


def test_the_mailbox_does_not_answer() -> None:
    control = diverted()
    assert control.hears(NO_ANSWER, after_s=90) == ["alice-1: DECLINE no-answer", "mailbox: CANCEL"]
    assert control.hears(mailbox_ok(), after_s=91) == ["mailbox: CANCEL"]
    assert control.hears(NO_ANSWER, after_s=120) == []


def test_the_caller_cancels_and_then_the_mailbox_answers() -> None:
    control = diverted().tells(cancelled("bob-1"), cancelled("bob-2"))
    assert control.hears(cancel()) == ["alice-1: CANCELLED", "mailbox: CANCEL"]
    assert control.due("no-answer") is None
    assert control.hears(mailbox_ok()) == ["mailbox: CANCEL"]
    assert control.hears(cancel()) == ["alice-1: CANCELLED", "mailbox: CANCEL"]
    assert control.hears(decline(None)) == []
    assert control.hears(invite()) == ["alice-1: CANCELLED"]


def test_the_callers_cancel_crosses_the_mailboxs_answer() -> None:
    control = diverted().tells(mailbox_ok())
    assert control.hears(cancel()) == ["alice-1: CANCELLED", "mailbox: CANCEL"]
    assert control.hears(mailbox_ok()) == ["mailbox: CANCEL"]


def test_an_ack_for_a_device_takes_no_message_away_that_is_being_left() -> None:
    control = ring("bob-1", mailbox=MAILBOX).tells(ok("bob-1")).tells(NO_ANSWER, mailbox_ok(), after_s=60)
    assert control.hears(ack("bob-1")) == ["bob-1: ACK bob-1"]
    assert control.route.state is RouteState.LEAVING


@pytest.mark.parametrize(
    "message",
    [
        mailbox_ok(),
        decline(None),
        bye(Role.MAILBOX, None),
        bye_ok(Role.MAILBOX, None),
        bye(Role.CALLER, None),
        bye_ok(Role.CALLER, None),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_mailbox_has_no_word_in_a_call_that_was_not_diverted(message: Message) -> None:
    assert ring(mailbox=MAILBOX).give(message) == NOTHING
    assert won().give(message) == NOTHING


def test_a_bye_of_no_party_of_a_call_is_nothing() -> None:
    for by in set(Role) - {Role.CALLER, Role.CALLEE, Role.MAILBOX}:
        assert won().give(bye(by, "bob-1")) == NOTHING


# Whatever comes, in whatever order.


def drawn(chance: random.Random) -> Iterator[Input]:
    """Messages of one call from honest parties and others, in no order."""
    devices = ("bob-1", "bob-2", "bob-3", "eve-1")
    while True:
        device, other = chance.choice(devices), chance.choice((*devices, None))
        yield chance.choice(
            (
                invite(),
                invite(run=chance.choice((0, 1)), sender=chance.choice((contact("alice-1"), None))),
                ringing(device),
                ok(device),
                ok(device, fork(chance.choice(devices))),
                decline(other, chance.choice(list(DeclineReason))),
                cancelled(device),
                ack(device, run=chance.choice((0, 0, 1))),
                cancel(),
                bye(chance.choice(list(Role)), other),
                bye_ok(chance.choice(list(Role)), other),
                mailbox_ok(),
                register(chance.choice(devices[:3])),
                NO_ANSWER,
                CANCELLING,
            )
        )


@pytest.mark.parametrize("mailbox", ["", MAILBOX], ids=["no mailbox", "mailbox"])
@pytest.mark.parametrize("seed", range(100))
def test_nothing_raises_and_a_repeat_gets_the_same_answer(seed: int, mailbox: str) -> None:
    """A loop that has written and not sent when it died handles its message once more: all that it had to say
    is said then, but for a CANCEL, which is repeated by an alarm."""
    chance = random.Random(f"call control {seed}")
    control = Control(*TWO, mailbox=mailbox)
    control.give(invite())
    now = NOW
    for _, message in zip(range(60), drawn(chance), strict=False):
        now += chance.choice((0, 0, 0, 1, 5, 31))
        first = control.give(message, now)
        for send in first.sends:
            if not isinstance(send.message, messages.Present):
                assert said(send).partition(":")[0] in {"alice-1", "bob-1", "bob-2", "bob-3", "mailbox"}
        if isinstance(message, NoAnswer | Cancelling | messages.Register):
            continue
        known = control.route
        second = control.give(message, now)
        assert control.route == known
        missing = [send for send in first.sends if send not in second.sends]
        assert all(
            isinstance(send.message, messages.Cancel) and send.topic is not VOICEMAIL for send in missing
        ), f"{message} was answered by {[said(send) for send in missing]} once only"


@pytest.mark.parametrize("mailbox", ["", MAILBOX], ids=["no mailbox", "mailbox"])
@pytest.mark.parametrize("seed", range(50))
def test_no_device_is_left_ringing(seed: int, mailbox: str) -> None:
    """Whenever a call is no longer calling, each device but the winner has been told to stop, and is told
    again until it says that it did."""
    chance = random.Random(f"left ringing {seed}")
    control = Control(*TWO, mailbox=mailbox)
    control.give(invite())
    for _, message in zip(range(40), drawn(chance), strict=False):
        control.give(message)
        route = control.route
        winner = route.winner
        losers = [branch for branch in route.branches if winner is None or branch.fork != winner]
        waited_for = {branch.state for branch in losers}
        if route.state is RouteState.CALLING:
            assert control.due("no-answer") is not None
        else:
            assert waited_for <= {BranchState.CANCELLING, BranchState.OVER}
        if BranchState.CANCELLING in waited_for and route.cancels == 0:
            assert control.due("cancelling") is not None
        if route.state is RouteState.DIVERTED:
            assert control.due("no-answer") is not None


def test_the_route_reads_as_it_was_written() -> None:
    route = diverted().route
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(route), type=Route) == route
