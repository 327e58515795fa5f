"""The judge of a load notices what must not be: two keys, one key twice, a call without an end."""

from __future__ import annotations

import pytest

from chaos.load_account import CallAccount, Gap, Outcome
from chaos.load_media import LoadMedia, fingerprint
from media.leg import CloseMedia, Leg, MediaClosed, MediaEvent, OpenMedia
from protocol.description import Flow, SrtpSuite
from protocol.names import Suite
from protocol.secret import Secret
from protocol.transport import MediaAddress
from topics.messages import Contact, KeyRequest, Report, ReportEvent

ALICE, BOB = "sip:alice@ims.example", "sip:bob@ims.example"
K, L = Secret(b"K" * 32), Secret(b"L" * 32)


class Story:
    """One host's calls from alice to bob, told one event at a time."""

    def __init__(self) -> None:
        self.account = CallAccount()
        self.events: list[MediaEvent] = []
        self.media = LoadMedia(self.events.append)

    def dial(self, name: bytes, at: float = 0.0) -> None:
        """A call whose request and C are both this name, 16 octets."""
        self.account.dialled(name, ALICE, BOB, at=at, late_s=0.0)

    def report(self, name: bytes, event: ReportEvent, at: float, reason: str | None = None) -> None:
        self.account.sent(_report(name, event, ALICE, reason), at)

    def report_of_bob(self, name: bytes, event: ReportEvent, at: float, reason: str | None = None) -> None:
        self.account.sent(_report(name, event, BOB, reason), at)

    def open(self, name: bytes, end: str, key: Secret) -> None:
        self.media.carry_out(OpenMedia(_leg(name, end, key)))

    def close(self, name: bytes, end: str) -> None:
        self.media.carry_out(CloseMedia(_session(name, end)))

    def whole_call(self, name: bytes, at: float, *, caller: Secret = K, callee: Secret = K) -> None:
        self.dial(name, at)
        self.report(name, ReportEvent.CALLING, at)
        self.open(name, BOB, callee)
        self.report(name, ReportEvent.UP, at + 0.25)
        self.open(name, ALICE, caller)
        self.report_of_bob(name, ReportEvent.CONFIRMED, at + 0.5)
        self.close(name, ALICE)
        self.report_of_bob(name, ReportEvent.ENDED, at + 1, "bye")
        self.report(name, ReportEvent.ENDED, at + 1, "hung-up")

    def outcome(self) -> Outcome:
        return self.account.outcome(self.media.openings, began=0)


async def test_calls_as_they_should_be() -> None:
    story = Story()
    story.whole_call(b"1" * 16, 0.0)
    story.whole_call(b"2" * 16, 0.5, caller=L, callee=L)
    story.whole_call(b"3" * 16, 4.0, caller=Secret(b"M" * 32), callee=Secret(b"M" * 32))
    outcome = story.outcome()
    assert outcome.good
    assert story.account.settled
    assert (outcome.dials, outcome.came_up, outcome.confirmed, outcome.failed) == (3, 3, 3, {})
    assert outcome.ups == (2, 0, 0, 0, 1)
    assert outcome.gaps == (Gap(0.75, 3.5),)
    assert outcome.set_up_ms is not None
    assert outcome.set_up_ms.p50 == outcome.set_up_ms.max == 250
    first = outcome.calls[0]
    assert outcome.without_media == 0
    assert (first.ended_at_caller, first.ended_at_callee) == ("hung-up", "bye")
    assert first.key_at_caller == first.key_at_callee == fingerprint(K)
    assert fingerprint(K) not in {fingerprint(L), K.reveal().hex()[:16]}
    assert [type(event) for event in story.events] == [MediaClosed] * 3
    assert [opening.closed is None for opening in story.media.openings] == [True, False] * 3


async def test_ends_that_disagree_are_noticed() -> None:
    story = Story()
    story.whole_call(b"1" * 16, 0.0, caller=K, callee=L)
    outcome = story.outcome()
    assert (outcome.disagreeing, outcome.two_keys, outcome.good) == (1, 0, False)


@pytest.mark.parametrize("end", [ALICE, BOB])
async def test_two_keys_at_one_end_are_noticed(end: str) -> None:
    story = Story()
    story.whole_call(b"1" * 16, 0.0)
    story.open(b"1" * 16, end, K)
    assert story.outcome().good, "the same key once more is no second one"
    story.open(b"1" * 16, end, L)
    outcome = story.outcome()
    assert outcome.two_keys == 1
    assert outcome.calls[0].two_keys
    assert not outcome.good


async def test_a_key_of_two_calls_is_noticed() -> None:
    story = Story()
    story.whole_call(b"1" * 16, 0.0)
    story.whole_call(b"2" * 16, 0.0)
    outcome = story.outcome()
    assert (outcome.shared_keys, outcome.disagreeing, outcome.good) == (2, 0, False)


async def test_a_call_without_an_end_is_noticed() -> None:
    story, name = Story(), b"1" * 16
    story.dial(name)
    assert story.outcome().unaccounted == 1, "also when the handset never heard of it"
    story.report(name, ReportEvent.CALLING, 0.0)
    story.report(name, ReportEvent.UP, 0.25)
    outcome = story.outcome()
    assert (outcome.came_up, outcome.unaccounted, outcome.good) == (1, 1, False)
    story.report(name, ReportEvent.ENDED, 1.0, "hung-up")
    assert story.outcome().good


async def test_a_confirmed_call_with_a_deaf_end_is_counted() -> None:
    story, name = Story(), b"1" * 16
    story.dial(name)
    story.report(name, ReportEvent.CALLING, 0.0)
    story.report(name, ReportEvent.UP, 0.25)
    story.open(name, ALICE, K)
    assert story.outcome().without_media == 0
    story.report_of_bob(name, ReportEvent.CONFIRMED, 0.5)
    assert story.outcome().without_media == 1


async def test_a_callee_that_knew_of_the_call_must_end_it_too() -> None:
    story, name = Story(), b"1" * 16
    story.dial(name)
    story.report(name, ReportEvent.CALLING, 0.0)
    story.report(name, ReportEvent.ENDED, 64.0, "no-answer")
    outcome = story.outcome()
    assert outcome.good, "as far as anybody knows, bob has never heard of it"
    assert outcome.failed == {"no-answer": 1}
    story.account.sent(_request(name), 65.0)
    outcome = story.outcome()
    assert (outcome.unaccounted, outcome.good) == (1, False)
    assert not story.account.settled
    story.report_of_bob(name, ReportEvent.ENDED, 66.0, "cancelled")
    assert story.outcome().good
    assert story.account.settled


async def test_what_is_about_no_dial_is_nothing() -> None:
    story = Story()
    story.report(b"x" * 16, ReportEvent.UP, 0.0)
    story.report_of_bob(b"x" * 16, ReportEvent.CONFIRMED, 0.0)
    story.account.sent(_request(b"x" * 16), 0.0)
    assert len(story.account) == 0
    assert story.outcome().good


def _session(name: bytes, end: str) -> str:
    device = end.removeprefix("sip:")
    return f"{device} {ALICE}/{name.hex()}"


def _report(name: bytes, event: ReportEvent, end: str, reason: str | None) -> Report:
    return Report(
        event=event,
        device=end.removeprefix("sip:"),
        at=0,
        call=name,
        run=0,
        caller=ALICE,
        callee=BOB,
        request=name if end == ALICE else None,
        reason=reason,
    )


def _request(name: bytes) -> KeyRequest:
    return KeyRequest(
        call=name,
        run=0,
        caller=ALICE,
        callee=BOB,
        caller_key="psk:alice",
        callee_key="psk:bob",
        suite=Suite.AES_256_GCM,
        token_a=bytes(64),
        token_b=bytes(64),
        sender=Contact("load", "bob@ims.example"),
    )


def _leg(name: bytes, end: str, key: Secret) -> Leg:
    return Leg(
        session=_session(name, end),
        line=0,
        root=key,
        suite=SrtpSuite.AEAD_AES_256_GCM,
        codec="PCMU",
        local=end,
        remote=BOB if end == ALICE else ALICE,
        remote_address=MediaAddress("192.0.2.1", 9),
        media_line=0,
        n=0,
        flow=Flow.SENDRECV,
        lifetime_s=3600,
    )
