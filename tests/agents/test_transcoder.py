"""The transcoder: the checks of its grants and refusals, and the table of what may come in which state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from agents.alarms import LegsAlarm, StillBetween
from agents.decision import NOTHING, Decision
from agents.legs.transcoded_call import GIVE_UP_S, call_of
from agents.transcoder import EXPECTED, Transcoder
from chaos.silent_media import NO_STATISTICS
from media.leg import CloseMedia, MediaClosed, MediaSilent, OpenMedia, Speakers
from protocol.checks import RefusalCode
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest, enc_body
from protocol.evidence import Holder, LegGrant
from protocol.limits import LIFE_S, SKEW_S
from protocol.names import NoticeKind, Role
from protocol.profile import HARDENED
from protocol.sealing import down
from protocol.secret import Secret
from protocol.transcoding import seal_leg_grant
from protocol.transport import MediaAddress
from storage.transcoder_records import Legs, LegsState, TranscoderLines
from tests.agents.between import LINES, TRANSCODER, Between
from tests.agents.scene import ALICE, BOB, CALL, EVE, NOW, Stage
from topics import messages
from topics.messages import (
    Interpose,
    LegsOver,
    NoLegs,
    Notice,
    Refusal,
    Release,
    ReleaseResponse,
    named,
)

FORK: Final = bytes(range(8))
SUITES: Final = (SrtpSuite.AEAD_AES_256_GCM,)
OFFER: Final = Description(SUITES, ("speex", "PCMU", "opus"), Flow.SENDRECV).octets
ANSWER: Final = Description(SUITES, ("PCMA",), Flow.SENDRECV).octets
ABOUT: Final[dict[str, Any]] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}


class Booth(Stage):
    """One process of the transcoder, and what call control and a KMS would send it.

    The KMS that is played here knows the transcoder's key: what it sends is sealed under the right key, and
    may be wrong inside.
    """

    def __init__(self) -> None:
        between = Between()
        self.settings = between.settings
        super().__init__(Transcoder(self.settings))
        self.holder = Holder(Role.TRANSCODER, self.settings.key_id, self.settings.key)

    def interpose(self, **changes: Any) -> Interpose:
        fields: dict[str, Any] = {
            "fork": FORK,
            "offer": OFFER,
            "answer": ANSWER,
            "media_a": MediaAddress("alice", 1),
            "media_b": MediaAddress("bob", 2),
            **ABOUT,
        }
        return Interpose(**{**fields, **changes})

    def response(self, *, holder: Holder | None = None, token_t: bytes | None = None, **changes: Any) -> Any:
        """What the KMS answers; changes: of what is inside grant_t."""
        legs = self.legs
        fields: dict[str, Any] = {
            "call": CALL,
            "n": legs.run.n,
            "fork": FORK,
            "caller": ALICE,
            "callee": BOB,
            "nonce": legs.nonce,
            "leg_a": Secret(b"a" * 32),
            "leg_b": Secret(b"b" * 32),
            "now": NOW,
            "not_before": NOW - SKEW_S,
            "not_after": NOW + LIFE_S,
        }
        sealed = seal_leg_grant(
            holder or self.holder,
            legs.run,
            LegGrant(**{**fields, **changes}),
            transcoder=TRANSCODER,
            token_t=legs.token_t if token_t is None else token_t,
            random=self.random,
        )
        # what is bound in the context is that of the request, whatever is inside
        if "fork" in changes:
            grant = LegGrant(**{**fields, **changes})
            context = (CALL, legs.run.n, FORK, ALICE, BOB, TRANSCODER, self.holder.key_id)
            channel = down(self.holder.key, legs.run.suite, Role.TRANSCODER)
            sealed = channel.seal("grant-t", (*context, digest(legs.token_t)), enc_body(grant), self.random)
        about = {**ABOUT, "run": legs.run.n}
        return ReleaseResponse(fork=FORK, grant_t=sealed, notice_a=b"A" * 40, notice_b=b"B" * 40, **about)

    def refusal(self, code: RefusalCode, **changes: Any) -> Refusal:
        legs = self.legs
        fields: dict[str, Any] = {"token": legs.token_t, "nonce": legs.nonce, **changes}
        sealed = HARDENED.seal_refusal(self.holder, legs.run, code, random=self.random, **fields)
        return Refusal(code=code, sealed=sealed, to=None, **{**ABOUT, "run": legs.run.n})

    def later(self, now: int) -> Decision:
        return self.give(LegsAlarm(ALICE, CALL), now)

    @property
    def legs(self) -> Legs:
        record = self.records[Legs.key_for(ALICE, CALL).name]
        assert isinstance(record, Legs)
        return record

    @property
    def session(self) -> str:
        return f"{self.legs.bridge} caller"


def asking() -> Booth:
    booth = Booth()
    booth.give(booth.interpose())
    return booth


def running() -> Booth:
    booth = asking()
    booth.give(booth.response())
    return booth


def renewing() -> Booth:
    booth = running()
    booth.give(booth.interpose(run=1))
    return booth


def over() -> Booth:
    booth = running()
    booth.give(LegsOver(fork=FORK, **ABOUT))
    return booth


STATES: Final[dict[LegsState, Callable[[], Booth]]] = {
    LegsState.ASKING: asking,
    LegsState.RUNNING: running,
    LegsState.RENEWING: renewing,
    LegsState.OVER: over,
}


def test_the_codecs_are_the_first_of_the_offer_that_it_knows_and_the_answers() -> None:
    booth = asking()
    notices = [send.message for send in booth.give(booth.response()).sends]
    assert [(each.whom, each.codec, each.media) for each in notices if isinstance(each, Notice)] == [
        (Role.CALLER, "PCMU", LINES["one"][0]),
        (Role.CALLEE, "PCMA", LINES["one"][1]),
    ]
    assert [each.sealed for each in notices if isinstance(each, Notice)] == [b"A" * 40, b"B" * 40]


# grant_t and refusals.


def refuses(response: Callable[[Booth], ReleaseResponse]) -> None:
    """This grant changes nothing, and the right one is still taken."""
    booth = asking()
    assert booth.give(response(booth)) == NOTHING
    assert booth.legs.state is LegsState.ASKING
    assert len(booth.give(booth.response()).media) == 2


def test_or_20_a_grant_under_another_key_or_for_another_token() -> None:
    refuses(lambda booth: booth.response(holder=Holder(Role.TRANSCODER, "psk:transcoder", Secret(bytes(32)))))
    refuses(lambda booth: booth.response(token_t=bytes(60)))


def test_or_21_a_grant_with_another_nonce() -> None:
    refuses(lambda booth: booth.response(nonce=bytes(16)))


@pytest.mark.parametrize("inside", [{"call": bytes(16)}, {"n": 1}, {"caller": EVE}, {"callee": EVE}], ids=str)
def test_or_22_a_grant_of_another_run(inside: dict[str, Any]) -> None:
    refuses(lambda booth: booth.response(**inside))


def test_or_22_a_grant_of_another_fork() -> None:
    refuses(lambda booth: booth.response(fork=bytes(8)))


def test_or_23_a_grant_whose_time_is_over_or_to_come() -> None:
    refuses(lambda booth: booth.response(not_after=NOW - 1))
    refuses(lambda booth: booth.response(not_before=NOW + 1))


def test_or_20_a_refusal_that_is_not_sealed_for_its_token_is_a_hint() -> None:
    booth = asking()
    code = RefusalCode.NOT_PERMITTED
    for hint in (
        msgspec.structs.replace(booth.refusal(code), sealed=None),
        booth.refusal(code, token=bytes(60)),
    ):
        assert booth.give(hint) == NOTHING
    assert booth.give(booth.refusal(code, nonce=bytes(16))) == NOTHING, "OR-21"
    [send] = booth.give(booth.refusal(code)).sends
    assert isinstance(send.message, NoLegs)
    assert booth.legs.state is LegsState.OVER


@pytest.mark.parametrize("code", [RefusalCode.BUSY, RefusalCode.TOO_MANY])
def test_what_may_be_granted_to_a_repeat_is_asked_again_soon(code: RefusalCode) -> None:
    booth = asking()
    first = booth.legs.token_t
    assert not booth.give(booth.refusal(code)).sends
    [send] = booth.later(NOW + 1).sends
    assert isinstance(send.message, Release)
    assert send.message.token_t == first


# Lines.


def test_lines_that_nobody_freed_are_free_again_after_a_while() -> None:
    """A process loses a call that it has only asked for: no media event will ever tell it so."""
    booth = Booth()
    for number in range(2):
        booth.give(booth.interpose(call=bytes([number]) * 16))
    [send] = booth.give(booth.interpose(call=bytes([9]) * 16)).sends
    assert isinstance(send.message, NoLegs)
    late = NOW + 2 * GIVE_UP_S + 1
    [send] = booth.give(booth.interpose(call=bytes([8]) * 16), late).sends
    assert isinstance(send.message, Release)


def test_a_later_run_keeps_the_lines_that_were_taken_for_the_one_before() -> None:
    booth = asking()
    booth.give(booth.interpose(run=1), NOW + GIVE_UP_S)
    lines = booth.records[TranscoderLines.key_for("one").name]
    assert isinstance(lines, TranscoderLines)
    assert lines.users[:2] == ((booth.legs.bridge, NOW + 3 * GIVE_UP_S),) * 2


def test_lines_in_use_stay_so_while_their_keys_live() -> None:
    booth = running()
    lines = booth.records[TranscoderLines.key_for("one").name]
    assert isinstance(lines, TranscoderLines)
    assert lines.users[:2] == ((booth.legs.bridge, NOW + LIFE_S + SKEW_S),) * 2
    assert lines.users[2:] == (None, None)


def test_a_session_that_closes_late_frees_nobody_elses_line() -> None:
    booth = running()
    old = booth.session
    booth.give(LegsOver(fork=FORK, **ABOUT))
    booth.give(booth.interpose(run=1))
    assert booth.legs.bridge not in old
    before = booth.records[TranscoderLines.key_for("one").name]
    assert booth.give(MediaClosed(old, NO_STATISTICS, expired=False)) == NOTHING
    assert booth.records[TranscoderLines.key_for("one").name] == before


@pytest.mark.parametrize("ahead", [-60, 0, 60])
def test_its_legs_end_by_whichever_clock_ends_first(ahead: int) -> None:
    booth = asking()
    media = booth.give(booth.response(), NOW + ahead).media
    assert booth.legs.until == min(NOW + LIFE_S, NOW + ahead + LIFE_S)
    lives = {each.leg.lifetime_s for each in media if isinstance(each, OpenMedia)}
    assert lives == {booth.legs.until - (NOW + ahead)}


def test_it_looks_by_itself_whether_a_call_is_still_its_own() -> None:
    booth = Booth()
    [mine] = [wake for wake in booth.give(booth.interpose()).wakes if wake.soon_ms]
    still = StillBetween(ALICE, CALL, booth.legs.bridge)
    assert mine.alarm == still
    assert (mine.at, mine.soon_ms) == (None, 2_000)
    booth.give(booth.response())
    for _ in range(2):
        assert booth.give(still) == Decision(wakes=(mine,))
    booth.give(LegsOver(fork=FORK, **ABOUT))
    assert not booth.give(still).wakes


def test_legs_whose_keys_are_over_end() -> None:
    booth = running()
    decision = booth.give(MediaClosed(booth.session, NO_STATISTICS, expired=True))
    assert decision.media == tuple(CloseMedia(f"{booth.legs.bridge} {side}") for side in ("caller", "callee"))
    assert booth.legs.state is LegsState.OVER
    booth = running()
    booth.later(NOW + LIFE_S)
    assert booth.legs.state is LegsState.OVER


def test_what_is_over_is_forgotten() -> None:
    booth = over()
    assert booth.later(NOW + 63) != NOTHING
    booth.later(NOW + 64)
    assert Legs.key_for(ALICE, CALL).name not in booth.records


# The table.


def inputs(booth: Booth) -> list[Any]:
    return [
        LegsAlarm(ALICE, CALL),
        StillBetween(ALICE, CALL, booth.legs.bridge),
        booth.interpose(),
        booth.interpose(run=2),
        ReleaseResponse(
            fork=FORK,
            grant_t=bytes(60),
            notice_a=bytes(60),
            notice_b=bytes(60),
            **{**ABOUT, "run": booth.legs.run.n},
        ),
        Refusal(code=RefusalCode.DENIED, sealed=None, to=None, **ABOUT),
        LegsOver(fork=FORK, **{**ABOUT, "run": 3}),
        MediaClosed(booth.session, NO_STATISTICS, expired=True),
        MediaSilent(booth.session),
        Speakers("x", ()),
        messages.Release(
            fork=FORK,
            transcoder=TRANSCODER,
            transcoder_key="psk:transcoder",
            suite=booth.legs.run.suite,
            token_t=bytes(60),
            **ABOUT,
        ),
        NoLegs(fork=FORK, code=RefusalCode.BUSY, **ABOUT),
        Notice(
            fork=FORK,
            transcoder=TRANSCODER,
            kind=NoticeKind.END,
            whom=Role.CALLER,
            sealed=bytes(40),
            **ABOUT,
        ),
        messages.Cancel(**ABOUT),
        messages.Bye(fork=FORK, by=Role.CALLER, proof=bytes(32), **ABOUT),
        messages.Withdraw(key_id=None, **ABOUT),
    ]


NAMES: Final = [type(each).__name__ for each in inputs(running())]


def test_the_table_has_every_state_and_names_what_comes_only() -> None:
    assert set(EXPECTED) == set(STATES) == set(LegsState)
    expected = set().union(*EXPECTED.values())
    assert expected <= {type(each) for each in inputs(running())}
    assert Transcoder.accepts == expected - {LegsAlarm, StillBetween, MediaClosed, MediaSilent}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES.__getitem__)
def test_or_26_what_the_table_does_not_name_changes_nothing(state: LegsState, number: int) -> None:
    booth = STATES[state]()
    assert booth.legs.state is state
    message = inputs(booth)[number]
    decision = booth.give(message)
    if type(message) not in EXPECTED[state]:
        assert decision == NOTHING


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES.__getitem__)
def test_twice_the_same_changes_nothing_more(state: LegsState, number: int) -> None:
    booth = STATES[state]()
    message = inputs(booth)[number]
    booth.give(message)
    before = dict(booth.records)
    booth.give(message)
    assert booth.records == before


@pytest.mark.parametrize("state", [each for each in STATES if each is not LegsState.OVER])
def test_or_22_a_message_with_another_callee_changes_nothing(state: LegsState) -> None:
    booth = STATES[state]()
    for message in (LegsOver(fork=FORK, **ABOUT), booth.interpose(run=5), booth.response()):
        other = msgspec.structs.replace(message, callee=EVE)
        assert booth.give(other) == NOTHING


def test_a_sessions_name_says_whose_it_is() -> None:
    assert call_of(running().session) == (ALICE, CALL)
    assert named(running().interpose())["callee"] == BOB
