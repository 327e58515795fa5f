"""What a device knows of its user's mailbox: told, listed, bounded, and never new again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.decision import NOTHING
from agents.handset.inbox import PARTS_MAX, dealt_with
from protocol.checks import RefusalCode
from protocol.limits import KEEP_S_MAX, SKEW_S
from protocol.profile import LITERAL
from protocol.secret import Secret
from storage.ue_records import (
    Inbox,
    LeftMessage,
    Outbox,
)
from tests.agents.collector import (
    DEVICE,
    LEFT_AT,
    PARTS,
    REQUEST,
    UNTIL,
    Bob,
    collected_ok,
    heard,
    play,
    report,
    waiting,
)
from tests.agents.scene import ALICE, BOB, CALL, EVE, MAILBOX, NOW
from topics.catalogue import CSCF
from topics.messages import (
    Contact,
    ListMessages,
    Mailbox,
    MailboxSays,
    ReportEvent,
)

# What waits.


def test_a_waiting_message_is_told_with_the_mailboxs_word_for_it() -> None:
    bob = Bob()
    told = report(bob.give(waiting()), ReportEvent.WAITING)
    assert (told.caller, told.callee, told.call, told.packets) == (ALICE, BOB, CALL, 1000)
    assert (told.left_at, told.until, told.request, told.reason) == (LEFT_AT, UNTIL, None, None)
    [known] = bob.inbox.waiting
    assert (known.mailbox, known.caller_key, known.parts) == (MAILBOX, "psk:alice", PARTS)


def test_a_mailbox_may_repeat_itself() -> None:
    """The user hears of it again, as on each registration; nothing is written again."""
    bob = Bob().told()
    again = bob.give(waiting(request=REQUEST))
    assert report(again, ReportEvent.WAITING).request == REQUEST
    assert again.puts == ()
    bob.give(waiting(parts=3))
    assert [known.parts for known in bob.inbox.waiting] == [3]


@pytest.mark.parametrize(
    "changes",
    [
        {"callee": EVE},
        {"caller": BOB},
        {"run": 1},
        {"not_after": NOW - 1},
        {"parts": PARTS_MAX + 1},
        {"to": "eve-1@ims.example"},
    ],
    ids=str,
)
def test_or_22_a_message_that_cannot_be_for_this_device(changes: dict[str, Any]) -> None:
    assert Bob().give(waiting(**changes)) == NOTHING


def test_what_a_mailbox_tells_is_bounded() -> None:
    bob = Bob()
    for number in range(150):
        bob.give(waiting(call=bytes([number]) * 16, not_after=NOW + KEEP_S_MAX * 9))
    assert len(bob.inbox.waiting) == 100
    assert bob.inbox.waiting[-1].call == bytes([149]) * 16
    assert {known.until for known in bob.inbox.waiting} == {NOW + KEEP_S_MAX}
    bob.give(waiting(not_after=UNTIL + 9 * KEEP_S_MAX), now=NOW + KEEP_S_MAX + 1)
    assert len(bob.inbox.waiting) == 1  # the others have had their time


def test_there_is_no_deferred_delivery_in_the_literal_profile() -> None:
    assert Bob(LITERAL).give(waiting()) == NOTHING


def test_a_list_is_what_the_mailbox_says_and_what_was_left() -> None:
    bob = Bob()
    left = [
        LeftMessage(callee=EVE, call=bytes([n]) * 16, proof=Secret(bytes(32)), left_at=NOW - 9, until=until)
        for n, until in ((1, NOW + 9), (2, NOW - 1))
    ]
    bob.put(Outbox.key_for(DEVICE), Outbox(left=tuple(left)))
    decision = bob.give(ListMessages(request=REQUEST, to=DEVICE))
    [question] = [send for send in decision.sends if isinstance(send.message, Mailbox)]
    assert (question.topic, question.key) == (CSCF, BOB)
    assert question.message == Mailbox(identity=BOB, request=REQUEST, sender=Contact("bob", DEVICE))
    told = report(decision, ReportEvent.LEFT)
    assert (told.caller, told.callee, told.call, told.request) == (BOB, EVE, bytes([1]) * 16, REQUEST)
    assert (told.left_at, told.until) == (NOW - 9, NOW + 9)


@pytest.mark.parametrize("code", [None, RefusalCode.DENIED])
def test_what_a_mailbox_says_at_the_end_of_a_list(code: RefusalCode | None) -> None:
    says = MailboxSays(identity=BOB, request=REQUEST, messages=3, code=code, to=DEVICE)
    told = report(Bob().give(says), ReportEvent.LISTED)
    assert (told.request, told.packets, told.reason) == (REQUEST, 3, code)
    assert Bob().give(msgspec.structs.replace(says, identity=EVE)) == NOTHING


def test_what_was_collected_is_never_new_again() -> None:
    """Neither by a late notice nor by a mailbox that keeps what it was told to delete, nor in another process
    that knows no more than the inbox."""
    bob = Bob()
    bob.retrieved()
    bob.give(heard())
    assert bob.give(waiting()) == NOTHING  # not even before the mailbox has obeyed
    bob.give(collected_ok())
    other = Bob()
    other.put(Inbox.key_for(DEVICE), bob.inbox)
    for device in (bob, other):
        assert device.give(waiting()) == NOTHING
        assert device.give(waiting(request=REQUEST)) == NOTHING
        assert report(device.give(play(request=b"s" * 16)), ReportEvent.FAILED).reason == "not-found"
        assert device.give(waiting(call=bytes(16))) != NOTHING
        assert device.give(waiting(caller=EVE)) != NOTHING


def test_what_was_collected_is_remembered_as_long_as_its_key_can_be_fetched() -> None:
    """And no longer than a slow clock needs; in a bounded number."""
    inbox = dealt_with(None, ALICE, CALL, UNTIL, NOW)
    assert len(dealt_with(inbox, EVE, CALL, UNTIL + 9999, UNTIL + SKEW_S).collected) == 2
    assert len(dealt_with(inbox, EVE, CALL, UNTIL + 9999, UNTIL + SKEW_S + 1).collected) == 1
    for number in range(1_200):
        inbox = dealt_with(inbox, EVE, number.to_bytes(16, "big"), UNTIL + number, NOW)
        inbox = dealt_with(inbox, EVE, number.to_bytes(16, "big"), UNTIL + number, NOW)
    assert len(inbox.collected) == 1_000
    assert min(until for _, _, until in inbox.collected) == UNTIL + 200
