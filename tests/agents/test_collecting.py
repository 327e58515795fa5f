"""A device of the callee collects a message, on a bus that does what it likes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agents.alarms import CollectAlarm
from agents.decision import NOTHING
from agents.handset.collecting import EXPECTED
from agents.handset.ue_call import FORGET_S, GIVE_UP_S
from media.leg import CloseStored, OpenMedia, OpenStored, TakeStored
from media.likeness import likeness
from media.pcm import PACKET_S
from media.samples import caller_sample
from media.session import Session
from media.stored import StoredMedia
from protocol.checks import RefusalCode
from protocol.description import Flow, SrtpSuite
from protocol.limits import STORED_WINDOW
from protocol.names import Suite
from protocol.secret import Secret
from storage.ue_records import (
    Collecting,
    CollectingState,
    Handset,
    LeftMessage,
    Outbox,
)
from tests.agents.collector import (
    ABOUT,
    DEVICE,
    KEY_ID,
    PARTS,
    PROOF,
    REQUEST,
    SESSION,
    UNTIL,
    Bob,
    K,
    collected_ok,
    delete,
    heard,
    only,
    packets,
    play,
    refused_by_mailbox,
    report,
    reports,
    secrets_of,
    sent,
    stored,
    waiting,
)
from tests.agents.leaver import Alice
from tests.agents.scene import ALICE, BOB, CALL, EVE, NOW
from topics.catalogue import CSCF, KMS
from topics.codec import encode
from topics.messages import (
    Collected,
    Contact,
    DeleteMessage,
    Fetch,
    FetchResponse,
    MailboxRefusal,
    MailboxSays,
    Message,
    OfRun,
    PlayMessage,
    Refusal,
    Report,
    ReportEvent,
    Retrieve,
    Stored,
    Wire,
)

# The whole way.


def test_a_message_is_fetched_heard_and_collected() -> None:
    bob = Bob().told()
    decision = bob.give(play())
    fetch = only(Fetch, decision)
    assert [(send.topic, send.key) for send in decision.sends] == [(KMS, f"{ALICE}/{CALL.hex()}")]
    assert (fetch.caller_key, fetch.callee_key, fetch.sender) == ("psk:alice", KEY_ID, Contact("bob", DEVICE))

    decision = bob.give(bob.response(fetch))
    assert only(Retrieve, decision).part == 0
    assert [(send.topic, send.key) for send in decision.sends] == [(CSCF, BOB)]
    [opened] = decision.media
    assert isinstance(opened, OpenStored)
    leg = opened.leg
    assert (leg.session, leg.root, leg.local, leg.remote, leg.n) == (SESSION, K, BOB, ALICE, 0)
    assert (leg.suite, leg.codec, leg.flow) == (SrtpSuite.AEAD_AES_256_GCM, "PCMU", Flow.RECVONLY)
    assert (leg.lifetime_s, leg.to_mailbox) == (UNTIL - NOW, False)

    asked = []
    for number in range(PARTS):
        decision = bob.give(stored(number))
        assert decision.media[0] == TakeStored(SESSION, packets(number))
        asked += [message.part for message in sent(decision) if isinstance(message, Retrieve)]
    assert asked == [8, 16]
    assert decision.media[1:] == (CloseStored(SESSION),)
    assert bob.state is CollectingState.CLOSING

    decision = bob.give(heard())
    told = report(decision, ReportEvent.HEARD)
    assert (told.whole, told.packets, told.request) == (True, 1000, REQUEST)
    assert (told.left_at, told.until) == (NOW - 1000, UNTIL)  # the KMS's word, not the mailbox's
    assert only(Collected, decision).proof == PROOF
    assert bob.collecting.key is None

    told = report(bob.give(collected_ok()), ReportEvent.COLLECTED)
    assert (told.caller, told.call, told.request) == (ALICE, CALL, REQUEST)
    assert bob.inbox.waiting == ()
    assert bob.inbox.collected == ((ALICE, CALL, UNTIL),)


def test_what_alice_says_to_a_mailbox_is_what_bob_hears() -> None:
    """The media of both ends agree on keys and parties, by real packets under the same K."""
    alice = Alice()
    [opened] = alice.give(alice.ok_of_mailbox(key=K)).media
    assert isinstance(opened, OpenMedia)
    session = Session(opened.leg, alice.random, caller_sample(), now=0.0, heard_samples_max=0)
    said = [packet for tick in range(100) for packet in session.tick(tick * PACKET_S)]
    said.append(session.close(100 * PACKET_S))

    bob = Bob()
    [ready] = bob.fetched().media
    assert isinstance(ready, OpenStored)
    media = StoredMedia(ready.leg, heard_samples_max=10**6)
    for packet in said:
        media.take(packet)
    assert (media.whole, media.authentic, media.refused) == (True, len(said), 0)
    assert likeness(media.heard(), caller_sample()[: media.heard().size]) > 0.98


def test_the_suite_of_a_fetch_is_the_devices_own() -> None:
    bob = Bob(suite=Suite.CHACHA20_POLY1305).told()
    assert only(Fetch, bob.give(play())).suite is Suite.CHACHA20_POLY1305


def test_a_message_that_is_not_whole_stays_and_can_be_heard_again() -> None:
    bob = Bob()
    bob.retrieved()
    decision = bob.give(heard(whole=False))
    assert report(decision, ReportEvent.HEARD).whole is False
    assert sent(decision) == []
    assert (bob.state, bob.inbox.collected) == (CollectingState.DONE, ())
    assert len(bob.inbox.waiting) == 1
    again = bob.give(play(request=b"s" * 16))
    only(Fetch, again)
    assert bob.collecting.part == 0


def test_a_message_that_is_not_whole_is_deleted_at_the_users_wish() -> None:
    bob = Bob()
    bob.retrieved()
    bob.give(heard(whole=False))
    fetch = only(Fetch, bob.give(delete(request=b"s" * 16)))
    assert only(Collected, bob.give(bob.response(fetch))).proof == PROOF


def test_a_message_is_kept_if_the_user_says_so() -> None:
    bob = Bob()
    bob.retrieved(play(keep=True))
    decision = bob.give(heard())
    assert report(decision, ReportEvent.HEARD).whole is True
    assert sent(decision) == []
    assert (bob.state, bob.inbox.collected) == (CollectingState.DONE, ())


def test_a_message_is_deleted_unheard() -> None:
    bob = Bob()
    decision = bob.fetched(delete())
    assert only(Collected, decision).proof == PROOF
    assert decision.media == ()
    report(bob.give(collected_ok()), ReportEvent.COLLECTED)
    assert bob.give(waiting()) == NOTHING


def test_a_message_that_this_device_has_left_is_taken_back() -> None:
    """By the proof that was kept; nothing is fetched, and no message of another is meant."""
    bob = Bob()
    mine = {"caller": BOB, "callee": EVE}
    left = [
        LeftMessage(callee=EVE, call=call, proof=Secret(PROOF), left_at=NOW - 9, until=UNTIL)
        for call in (CALL, bytes(16))
    ]
    bob.put(Outbox.key_for(DEVICE), Outbox(left=tuple(left)))
    assert report(bob.give(delete(request=b"s" * 16)), ReportEvent.FAILED).reason == "not-found"
    decision = bob.give(delete(caller=BOB))
    assert (only(Collected, decision).proof, decision.sends[0].key) == (PROOF, EVE)
    assert report(bob.give(collected_ok(**mine)), ReportEvent.COLLECTED).callee == EVE
    [outbox] = [record for record in bob.records.values() if isinstance(record, Outbox)]
    assert [kept.call for kept in outbox.left] == [bytes(16)]
    again = bob.give(delete(caller=BOB, request=b"t" * 16))
    assert report(again, ReportEvent.FAILED).reason == "not-found"


def test_one_does_not_listen_to_what_one_has_left() -> None:
    bob = Bob()
    left = LeftMessage(callee=EVE, call=CALL, proof=Secret(PROOF), left_at=NOW - 9, until=UNTIL)
    bob.put(Outbox.key_for(DEVICE), Outbox(left=(left,)))
    assert report(bob.give(play(caller=BOB)), ReportEvent.FAILED).reason == "not-found"


# Wishes that lead nowhere, or were had before.


@pytest.mark.parametrize("wish", [play(), delete(), play(caller=EVE), play(call=bytes(16))], ids=str)
def test_a_message_that_nobody_has_told_of(wish: PlayMessage | DeleteMessage) -> None:
    bob = Bob()
    if wish.caller == EVE or wish.call != CALL:
        bob.told()
    decision = bob.give(wish)
    told = report(decision, ReportEvent.FAILED)
    assert (told.reason, told.request, told.call) == ("not-found", REQUEST, wish.call)
    assert (sent(decision), decision.puts) == ([], ())


def test_a_message_whose_time_is_over() -> None:
    assert report(Bob().told().give(play(), now=UNTIL + 1), ReportEvent.FAILED).reason == "not-found"


def test_a_device_without_a_key_fetches_nothing() -> None:
    """Nor with one that the KMS has not confirmed."""
    bob = Bob().told()
    [handset] = [record for record in bob.records.values() if isinstance(record, Handset)]
    assert handset.key is not None
    for key in (None, msgspec.structs.replace(handset.key, attached=False)):
        bob.put(Handset.key_for(DEVICE), msgspec.structs.replace(handset, key=key))
        assert report(bob.give(play()), ReportEvent.FAILED).reason == "no-key"


def test_the_same_wish_once_more_changes_nothing() -> None:
    """While it is under way, and after it has ended."""
    bob = Bob().told()
    wish = play(keep=True)
    fetch = only(Fetch, bob.give(wish))
    steps: list[Any] = [bob.response(fetch), *map(stored, range(PARTS)), heard()]
    for step in steps:
        assert bob.give(wish) == NOTHING
        assert bob.give(step) != NOTHING
    assert bob.state is CollectingState.DONE
    assert bob.give(wish) == NOTHING


def test_another_wish_while_one_is_under_way() -> None:
    bob = Bob()
    bob.fetched()
    before = bob.collecting
    for wish in (play(request=b"s" * 16), delete(request=b"s" * 16)):
        told = report(bob.give(wish), ReportEvent.FAILED)
        assert (told.reason, told.request) == ("busy", b"s" * 16)
    assert bob.collecting == before


# A bus that loses, repeats, reorders.


@pytest.mark.parametrize(
    ("steps", "kind"),
    [("asked", Fetch), ("fetched", Retrieve), ("retrieved", CloseStored), ("heard", Collected)],
)
def test_what_is_not_answered_is_repeated_and_then_given_up(steps: str, kind: type[Any]) -> None:
    bob = Bob()
    first = None
    if steps == "heard":
        bob.retrieved()
        first = only(Collected, bob.give(heard()))
    else:
        getattr(bob, steps)()
    at = []
    for second in range(GIVE_UP_S):
        decision = bob.give(CollectAlarm(SESSION), now=NOW + second)
        repeated = [message for message in (*sent(decision), *decision.media) if isinstance(message, kind)]
        assert first is None or all(message == first for message in repeated)
        assert reports(decision) == []
        at += [second] * len(repeated)
    assert at == [2, 6, 14, 30]
    [wake] = bob.give(CollectAlarm(SESSION), now=NOW + 31).wakes
    assert wake.at == NOW + GIVE_UP_S
    decision = bob.give(CollectAlarm(SESSION), now=NOW + GIVE_UP_S)
    assert report(decision, ReportEvent.FAILED).reason == "no-answer"
    assert not secrets_of(bob)
    assert bool(decision.media) is (steps in {"fetched", "retrieved"})
    forgotten = bob.give(CollectAlarm(SESSION), now=NOW + GIVE_UP_S + FORGET_S)
    assert (forgotten.sends, [wake.at for wake in forgotten.wakes]) == ((), [None])
    assert Collecting.key_for(SESSION).name not in bob.records
    assert bob.give(CollectAlarm(SESSION), now=NOW + 999) == NOTHING


def test_a_repeated_fetch_is_the_same_to_the_octet() -> None:
    bob = Bob()
    fetch = bob.asked()
    again = only(Fetch, bob.give(CollectAlarm(SESSION), now=NOW + 2))
    assert encode(again) == encode(fetch)


def test_repeated_and_early_and_foreign_parts_are_not_taken() -> None:
    bob = Bob()
    bob.fetched()
    bob.give(stored(0))
    before = bob.collecting
    others = [
        *(stored(number) for number in (0, 2, 3, PARTS, 10**9)),
        stored(1, run=1),
        stored(1, callee=EVE),
        stored(1, caller=EVE),
        stored(1, call=bytes(16)),
        stored(1, to="eve-1@ims.example"),
    ]
    for other in others:
        assert bob.give(other) == NOTHING
    assert bob.collecting == before
    assert bob.give(stored(1)).media == (TakeStored(SESSION, packets(1)),)


def test_a_lost_part_is_asked_for_and_it_goes_on_from_there() -> None:
    bob = Bob()
    bob.fetched()
    for number in (0, 1, 2, 4, 5, 6, 7):
        bob.give(stored(number), now=NOW + 1)
    assert bob.collecting.part == 3
    assert only(Retrieve, bob.give(CollectAlarm(SESSION), now=NOW + 3)).part == 3
    asked = []
    for number in range(3, PARTS):
        messages = sent(bob.give(stored(number), now=NOW + 3))
        asked += [message.part for message in messages if isinstance(message, Retrieve)]
    assert asked == [3 + STORED_WINDOW, 3 + 2 * STORED_WINDOW]
    assert bob.state is CollectingState.CLOSING


def test_patience_begins_anew_with_each_part() -> None:
    bob = Bob()
    bob.fetched()
    for number in range(PARTS):
        now = NOW + (number + 1) * (GIVE_UP_S - 1)
        bob.give(CollectAlarm(SESSION), now=now)
        bob.give(stored(number), now=now)
    assert bob.state is CollectingState.CLOSING


def test_or_28_nothing_is_heard_after_the_keys_end() -> None:
    bob = Bob()
    fetch = bob.asked()
    bob.give(bob.response(fetch, not_after=NOW + 5))
    bob.give(stored(0), now=NOW + 5)
    decision = bob.give(stored(1), now=NOW + 6)
    assert report(decision, ReportEvent.FAILED).reason == "expired"
    assert decision.media == (CloseStored(SESSION),)
    assert not secrets_of(bob)


def test_a_message_without_parts_is_heard_as_it_is() -> None:
    bob = Bob()
    decision = bob.fetched(parts=0, packets=0)
    assert [type(instruction) for instruction in decision.media] == [OpenStored, CloseStored]
    assert report(bob.give(heard(whole=False)), ReportEvent.HEARD).whole is False


def test_or_26_what_is_not_expected_changes_nothing() -> None:
    """In each state, each message that the table does not name; among them repeats of what came before."""
    bob = Bob()
    fetch = bob.asked()
    inputs: list[Any] = [
        bob.response(fetch),
        bob.refusal(fetch, RefusalCode.EXPIRED),
        *map(stored, (0, 1, PARTS - 1)),
        heard(),
        collected_ok(),
        refused_by_mailbox(RefusalCode.DENIED),
    ]
    assert {type(message) for message in inputs} == set().union(*EXPECTED.values()) - {CollectAlarm}
    reach: dict[CollectingState, Callable[[Bob], object]] = {
        CollectingState.FETCHING: lambda bob: bob.asked(),
        CollectingState.RETRIEVING: lambda bob: bob.fetched(),
        CollectingState.CLOSING: lambda bob: bob.retrieved(),
        CollectingState.DELETING: lambda bob: (bob.retrieved(), bob.give(heard())),
        CollectingState.DONE: lambda bob: (bob.retrieved(), bob.give(heard(whole=False))),
    }
    assert reach.keys() == EXPECTED.keys()
    for state, go in reach.items():
        bob = Bob()
        go(bob)
        assert bob.state is state
        for message in inputs:
            if type(message) not in EXPECTED[state]:
                assert bob.give(message) == NOTHING, (state, message)


def test_whatever_the_bus_does_it_comes_to_an_end() -> None:
    """All messages of a collecting, lost, repeated and reordered, with an outsider's between them."""
    for seed in range(150):
        whatever(seed)


def whatever(seed: int) -> None:
    chance = random.Random(seed)
    bob = Bob().told()
    under_way: list[Any] = [play()]
    told: list[Report] = []
    now = NOW
    for _ in range(400):
        if under_way and chance.random() < 0.8:
            message = under_way.pop(chance.randrange(len(under_way)))
            if chance.random() < 0.1:
                under_way.append(message)
            if chance.random() < 0.1 and isinstance(message, OfRun):
                continue
        else:
            now += 1
            message = chance.choice([CollectAlarm(SESSION), waiting(), outsiders(chance)])
        decision = bob.give(message, now=now)
        told += reports(decision)
        answers = [answer for message in sent(decision) for answer in answered(bob, message, now)]
        under_way += answers + [heard()] * (CloseStored(SESSION) in decision.media)
    for later in range(NOW + 1000, NOW + 1300):
        told += reports(bob.give(CollectAlarm(SESSION), now=later))
    events = [each.event for each in told]
    assert events.count(ReportEvent.HEARD) <= 1
    assert {ReportEvent.COLLECTED, ReportEvent.FAILED} & set(events), seed
    assert all(not isinstance(record, Collecting) for record in bob.records.values())
    if ReportEvent.COLLECTED in events:
        assert bob.give(waiting(), now=now) == NOTHING


def answered(bob: Bob, message: Wire, now: int) -> list[Message]:
    """What KMS and mailbox say to it."""
    match message:
        case Fetch():
            return [bob.response(message, now)]
        case Retrieve():
            return [
                stored(number) for number in range(message.part, min(message.part + STORED_WINDOW, PARTS))
            ]
        case Collected(proof=proof) if proof == PROOF:
            return [collected_ok()]
        case _:
            return []


def outsiders(chance: random.Random) -> Any:
    """Somebody who can write to the inbox, and knows no key."""
    call = chance.choice([CALL, bytes(16)])
    about = {**ABOUT, "call": call, "to": DEVICE}
    return chance.choice(
        [
            FetchResponse(grant_f=chance.randbytes(200), **about),
            Refusal(code=RefusalCode.EXPIRED, sealed=chance.randbytes(60), **about),
            Refusal(code=RefusalCode.EXPIRED, sealed=None, **about),
            MailboxRefusal(code=RefusalCode.BUSY, **about),
            Stored(part=10**6, packets=(), **about),
            MailboxSays(identity=BOB, request=REQUEST, messages=0, to=DEVICE),
        ]
    )


# Secrets.


def test_the_key_is_destroyed_when_the_message_is_done() -> None:
    bob = Bob()
    bob.fetched()
    assert K in secrets_of(bob)
    for number in range(PARTS):
        bob.give(stored(number))
    bob.give(heard())
    assert secrets_of(bob) == [Secret(PROOF)]
    bob.give(collected_ok())
    assert secrets_of(bob) == []


def test_no_report_and_no_message_but_one_holds_a_secret() -> None:
    """The proof is told to the mailbox alone, once the message may go."""
    bob = Bob()
    decisions = [bob.give(waiting())]
    fetch = only(Fetch, bob.give(play()))
    steps: list[Any] = [bob.response(fetch), *map(stored, range(PARTS)), heard(), collected_ok()]
    decisions += [bob.give(step) for step in steps]
    seen = [send.message for decision in decisions for send in decision.sends]
    for message in seen:
        octets = encode(message)
        for secret in (K, bob.key, Secret(PROOF)):
            told = secret.reveal() in octets or secret.reveal().hex().encode() in octets
            assert told is (isinstance(message, Collected) and secret == Secret(PROOF))
    assert len([message for message in seen if isinstance(message, Collected)]) == 1
    assert secret_free(repr(decisions))


def secret_free(text: str) -> bool:
    return K.reveal().hex() not in text and repr(K.reveal())[2:-1] not in text
