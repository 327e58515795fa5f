"""A whole transcoded call on pure agents: who gets which key, what flows where, and how it ends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.alarms import StillBetween
from agents.custodian import Custodian
from agents.handset.noticing import TAKEOVER_S
from agents.handset.ue_call import GIVE_UP_S
from agents.legs.transcoded_call import WATCH_S
from chaos.eavesdropping import secrets_in
from media.leg import CloseMedia, Leg, MediaSilent, MoveMedia, OpenMedia, RenewMedia
from protocol.checks import RefusalCode
from protocol.description import read_description
from protocol.names import NoticeKind, Permit
from protocol.secret import Secret
from storage.kms_records import Agreement
from storage.transcoder_records import LegsState
from storage.ue_records import CallState
from tests.agents.between import LINES, TRANSCODE, TRANSCODER, Between
from tests.agents.scene import ALICE, BOB, NOW, Stage
from topics.codec import encode
from topics.messages import (
    Ack,
    Audit,
    ByeOk,
    Interpose,
    KeyResponse,
    LegsOver,
    NoLegs,
    Notice,
    Ok,
    Refusal,
    Release,
    ReleaseResponse,
    Report,
    ReportEvent,
    Revoke,
    RevokeRelease,
    Settled,
    Withdraw,
)


@pytest.fixture
def between() -> Between:
    made = Between()
    made.call()
    return made


def key_of(between: Between, n: int = 0) -> Secret:
    """K, as the KMS has it."""
    [agreement] = [each for each in between.town.records.values() if isinstance(each, Agreement)]
    [run] = [each for each in agreement.runs if each.n == n]
    key = run.forks[0].key
    assert key is not None
    return key


def legs_at(between: Between) -> tuple[Leg, Leg]:
    """The transcoder's last two legs, towards alice and towards bob."""
    to_alice, to_bob = between.opened("transcoder")[-2:]
    return to_alice, to_bob


def flows(between: Between) -> None:
    """Each end and the transcoder have the same key, line and codec for each other, and no others."""
    for name, identity, leg in zip(("alice", "bob"), (ALICE, BOB), legs_at(between), strict=True):
        end = between.opened(f"ue.{name}")[-1]
        assert (end.local, end.remote) == (leg.remote, leg.local) == (identity, TRANSCODER)
        assert (end.root, end.suite, end.codec, end.n) == (leg.root, leg.suite, leg.codec, leg.n)
        assert leg.remote_address == LINES[name][0]
        assert end.remote_address == LINES[between.legs.instance][leg.line]
        assert leg.flow == end.flow
    one, other = legs_at(between)
    assert one.bridge == other.bridge != ""
    assert one.session != other.session
    assert one.line != other.line
    assert one.root != other.root


def test_both_ends_talk_through_the_transcoder_and_are_told_so(between: Between) -> None:
    flows(between)
    assert [leg.codec for leg in legs_at(between)] == ["PCMU", "PCMA"]
    assert between.reports("alice") == ["calling", "up", "transcoded"]
    assert between.reports("bob") == ["confirmed", "transcoded"]
    told = [each for each in between.of(Report) if each.event is ReportEvent.TRANSCODED]
    assert {each.transcoder for each in told} == {TRANSCODER}
    assert all(isinstance(each, OpenMedia) for each in between.media["ue.alice"] + between.media["ue.bob"])


def test_no_media_goes_under_k(between: Between) -> None:
    key = key_of(between)
    for party in ("ue.alice", "ue.bob", "transcoder"):
        assert key not in {leg.root for leg in between.opened(party)}


def test_the_transcoder_never_has_k_nor_keeps_a_leg_key(between: Between) -> None:
    key, roots = key_of(between), [leg.root for leg in legs_at(between)]
    assert len({key.reveal(), *(root.reveal() for root in roots)}) == 3
    records = between.stages["transcoder"].records.values()
    assert not [secret for record in records for secret in secrets_in(record)]
    stored = b"".join(msgspec.msgpack.encode(record) for record in records)
    sent = b"".join(encode(message) for _, _, message in between.sent)
    for secret in (key, *roots, between.settings.key):
        assert secret.reveal() not in stored
        assert secret.reveal() not in sent
    assert not any(record.secret for record in records)


def test_it_ends_with_the_call(between: Between) -> None:
    between.hang_up("bob")
    assert between.legs.state is LegsState.OVER
    assert between.lines() == [None] * 4
    closed = between.media["transcoder"][-2:]
    assert closed == [CloseMedia(leg.session) for leg in legs_at(between)]
    assert between.reports("alice")[-1] == "ended bye"
    between.wait(70)
    with pytest.raises(ValueError, match="not enough"):
        _ = between.legs


def test_a_bye_of_which_nobody_knows_whether_it_holds_stops_no_leg(between: Between) -> None:
    between.holds = lambda message: isinstance(message, ByeOk)
    between.hang_up()
    assert between.of(LegsOver) == []
    between.let_go()
    assert between.legs.state is LegsState.OVER


def test_where_a_codec_is_shared_there_is_no_transcoder() -> None:
    between = Between(codecs=(("PCMU", "PCMA"), ("PCMA",)))
    between.call()
    assert between.of(Interpose) == []
    assert between.ue_call("alice").state is CallState.UP
    assert {leg.root for leg in between.opened("ue.alice")} == {key_of(between)}
    assert {leg.codec for leg in between.opened("ue.alice")} == {"PCMA"}


def test_without_a_transcoder_the_call_ends_and_says_why() -> None:
    between = Between(transcoder="")
    between.call()
    assert between.of(Interpose) == []
    assert between.opened("ue.alice") == between.opened("ue.bob") == []
    between.wait(GIVE_UP_S - 1)
    assert between.ue_call("alice").state is CallState.UP
    between.wait(1)
    assert "ended no-transcoder" in between.reports("alice") + between.reports("bob")
    assert between.ue_call("alice").state is between.ue_call("bob").state is CallState.ENDED


def test_or_24_a_caller_that_permits_no_transcoder_takes_no_such_answer() -> None:
    between = Between(permits=((Permit.DEFERRED,), TRANSCODE))
    between.call()
    assert "refused OR-24 denied" in between.reports("alice")
    assert between.of(Ack) == []
    assert between.of(Interpose) == []


def test_a_callee_that_permits_no_transcoder_has_nothing_in_common() -> None:
    between = Between(permits=(TRANSCODE, (Permit.DEFERRED,)))
    between.call()
    assert between.of(KeyResponse) == []
    assert between.reports("alice")[-1] == "ended nothing-in-common"


def test_or_24_the_answer_for_a_transcoder_is_one_codec_and_one_suite_of_the_offer() -> None:
    between = Between(codecs=(("PCMU",), ("PCMA", "G722")))
    between.holds = lambda message: isinstance(message, Ok)
    between.call()
    [(_, ok)] = between.held
    assert isinstance(ok, Ok)
    assert read_description(ok.answer).codecs == ("PCMA",)
    offered = read_description(between.ue_call("alice").offer)
    assert read_description(ok.answer).srtp_suites[0] in offered.srtp_suites


def test_a_release_before_settled_comes_again() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, Settled)
    between.call()
    assert [each.code for each in between.of(Refusal, "transcoder")] == [RefusalCode.BUSY]
    assert between.legs.state is LegsState.ASKING
    between.wait(1)
    assert [each.code for each in between.of(Refusal, "transcoder")] == [RefusalCode.BUSY] * 2
    between.let_go()
    between.wait(1)
    flows(between)
    releases = between.of(Release)
    assert len(releases) == 3
    assert len({encode(each) for each in releases}) == 1, "octet for octet"


def test_notices_that_are_lost_are_sent_again() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, Notice)
    between.call()
    assert between.opened("ue.alice") == []
    between.held.clear()
    between.holds = lambda _: False
    between.wait(2)
    flows(between)
    before = between.reports("alice") + between.reports("bob")
    between.wait(20)
    assert between.reports("alice") + between.reports("bob") == before, "a repeat is no news"


def test_a_release_that_may_not_be_tells_both_ends() -> None:
    between = Between()
    between.town.change("psk:transcoder", serves=("elsewhere.example",))
    between.call()
    assert [each.code for each in between.of(NoLegs, "cscf")] == [RefusalCode.NOT_PERMITTED]
    assert between.legs.state is LegsState.OVER
    for name in ("alice", "bob"):
        assert between.ue_call(name).state is CallState.ENDED
        assert between.ue_call(name).reason in {"no-transcoder", "bye"}


def test_a_codec_that_the_transcoder_does_not_know_tells_both_ends() -> None:
    between = Between(codecs=(("PCMU",), ("speex",)))
    between.call()
    assert between.of(Release) == []
    assert [each.code for each in between.of(NoLegs, "cscf")] == [RefusalCode.UNSUPPORTED]
    assert between.ue_call("alice").state is CallState.ENDED


def test_all_lines_in_use_tells_both_ends_at_once() -> None:
    between = Between(lines=LINES["one"][:1])
    between.call()
    assert between.of(Release) == []
    assert [each.code for each in between.of(NoLegs, "cscf")] == [RefusalCode.BUSY]
    assert between.ue_call("alice").state is CallState.ENDED


def test_a_kms_that_never_answers_tells_both_ends() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, Release)
    between.call()
    between.wait(GIVE_UP_S)
    assert len(between.of(Release)) == 5
    assert between.legs.state is LegsState.OVER
    assert between.lines() == [None] * 4
    assert between.ue_call("alice").state is CallState.ENDED


# Another instance.


def test_another_instance_takes_over_and_media_goes_on(between: Between) -> None:
    before = legs_at(between)
    between.other_process()
    between.wait(WATCH_S)
    flows(between)
    after = legs_at(between)
    assert [leg.root for leg in after] == [leg.root for leg in before], "the same release, the same keys"
    assert {leg.session for leg in after}.isdisjoint(leg.session for leg in before)
    assert between.legs.instance == "two"
    assert all(isinstance(each, OpenMedia) for each in between.media["transcoder"][-2:])
    for name in ("alice", "bob"):
        [first, moved] = between.media[f"ue.{name}"]
        assert isinstance(first, OpenMedia)
        assert isinstance(moved, RenewMedia | MoveMedia)
        assert between.ue_call(name).notice_serial == 2
    assert len([each for each in between.of(Audit) if each.event == "released"]) == 2


def test_the_instance_that_lives_on_closes_what_is_no_longer_its_own(between: Between) -> None:
    old = legs_at(between)
    first = between.stages["transcoder"].agent
    between.other_process()
    between.wait(WATCH_S)
    between.stages["transcoder"].agent = first
    decision = between.give("transcoder", MediaSilent(old[0].session))
    assert decision.media == tuple(CloseMedia(leg.session) for leg in old)
    assert not decision.sends
    assert between.lines("one") == [None] * 4
    assert between.legs.instance == "two"


def test_the_instance_that_lives_on_sees_by_itself_that_a_call_is_no_longer_its_own(
    between: Between,
) -> None:
    old, legs = legs_at(between), between.legs
    first = between.stages["transcoder"].agent
    between.other_process()
    between.wait(WATCH_S)
    taken = between.legs
    between.stages["transcoder"].agent = first
    decision = between.give("transcoder", StillBetween(ALICE, legs.run.call, legs.bridge))
    assert decision.media == tuple(CloseMedia(leg.session) for leg in old)
    assert (decision.sends, decision.wakes) == ((), ())
    assert between.lines("one") == [None] * 4
    assert between.lines("two")[:2] == [taken.bridge] * 2
    assert between.legs == taken


def test_a_take_over_without_free_lines_waits_for_some(between: Between) -> None:
    between.other_process(lines=LINES["two"][:1])
    between.wait(5)
    assert between.legs.instance == "one"
    assert between.of(NoLegs) == []
    between.other_process()
    between.wait(WATCH_S)
    flows(between)


@pytest.mark.parametrize("until", [Release, ReleaseResponse, Notice], ids=lambda kind: kind.__name__)
def test_a_crash_between_any_two_steps(until: type[Any]) -> None:
    """What the process that dies has not come to do, another one does."""
    between = Between()
    between.holds = lambda message: isinstance(message, until)
    between.call()
    between.held.clear()
    between.holds = lambda _: False
    between.other_process()
    between.wait(WATCH_S)
    flows(between)


def test_an_answer_for_the_instance_that_died_changes_nothing() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, ReleaseResponse)
    between.call()
    between.other_process()
    before = dict(between.stages["transcoder"].records)
    between.let_go()
    assert between.stages["transcoder"].records == before
    between.wait(WATCH_S)
    flows(between)


def test_a_transcoder_that_is_gone_for_long_ends_the_call(between: Between) -> None:
    between.holds = lambda message: isinstance(message, Release)
    between.other_process()
    between.give("ue.alice", MediaSilent(between.session("alice")))
    between.run()
    between.wait(TAKEOVER_S - 1)
    assert between.ue_call("alice").state is CallState.UP
    between.wait(1)
    assert between.ue_call("alice").reason == "silent"


def test_a_leg_that_is_silent_ends_both(between: Between) -> None:
    """Else bob would hear the transcoder for ever, and never learn that alice is gone."""
    one, other = legs_at(between)
    decision = between.give("transcoder", MediaSilent(one.session))
    assert decision.media == (CloseMedia(one.session), CloseMedia(other.session))
    assert between.legs.state is LegsState.OVER


# What is late, early, or twice.


def test_legs_over_before_anything_was_granted() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, Release)
    between.call()
    between.hang_up()
    assert between.legs.state is LegsState.OVER
    assert between.lines() == [None] * 4
    between.let_go()
    assert len(between.of(ReleaseResponse)) == 1, "the KMS knows nothing of it"
    assert between.legs.state is LegsState.OVER
    assert between.opened("transcoder") == []


def test_legs_over_that_overtakes_interpose() -> None:
    between = Between()
    between.holds = lambda message: isinstance(message, Interpose)
    between.call()
    between.hang_up()
    [(_, interpose)] = between.held
    assert isinstance(interpose, Interpose)
    assert between.of(LegsOver) != []
    between.let_go()
    assert between.of(Release) == []


def test_everything_twice_changes_nothing_more() -> None:
    between = Between()
    between.call()
    for _, party, message in list(between.sent):
        if party != "transcoder":
            continue
        before = dict(between.stages["transcoder"].records)
        between.give(party, message)
        between._queue.clear()
        assert between.stages["transcoder"].records == before
    assert len(between.of(Release)) == 1


# The next run.


def renew(between: Between) -> None:
    """Until alice renews by herself."""
    between.wait(max(0, between.ue_call("alice").renew_at - between.now))


def test_a_renewal_gives_both_legs_new_keys_on_the_same_lines(between: Between) -> None:
    before = legs_at(between)
    renew(between)
    assert between.ue_call("alice").run.n == 1
    flows(between)
    after = legs_at(between)
    assert [leg.n for leg in after] == [1, 1]
    for old, new in zip(before, after, strict=True):
        assert (old.session, old.line, old.bridge) == (new.session, new.line, new.bridge)
        assert old.root != new.root
    assert between.media["transcoder"][-2:] == [RenewMedia(leg) for leg in after]
    for name in ("alice", "bob"):
        renewed = between.media[f"ue.{name}"][-1]
        assert isinstance(renewed, RenewMedia)
        assert renewed.speak_within_s == 0
        assert between.ue_call(name).leg_by == 0
    assert between.legs.state is LegsState.RUNNING
    roots = {leg.root.reveal() for leg in (*before, *after)}
    assert len(roots | {key_of(between, 1).reveal()}) == 5


def test_a_renewal_whose_release_is_refused_leaves_the_legs_until_their_end(between: Between) -> None:
    between.town.change("psk:transcoder", serves=("elsewhere.example",))
    renew(between)
    assert between.ue_call("alice").run.n == 1
    assert [each.code for each in between.of(NoLegs, "cscf")] == [RefusalCode.NOT_PERMITTED]
    assert between.legs.state.value == "running"
    assert between.legs.give_up_at == between.legs.until == NOW + 3600
    assert between.ue_call("alice").state is CallState.UP
    between.wait(between.legs.until - between.now)
    assert between.legs.state is LegsState.OVER


@pytest.mark.parametrize("away_s", [GIVE_UP_S + 8, 2 * GIVE_UP_S + 8])
def test_a_renewal_waits_for_a_kms_that_is_away_for_long(between: Between, away_s: int) -> None:
    """Both ends have taken the next run, and none of them asks for its legs again."""
    before = legs_at(between)
    between.holds = lambda message: isinstance(message, Release) and message.run == 1
    renew(between)
    between.wait(away_s)
    assert between.legs.state is LegsState.RENEWING
    assert legs_at(between) == before, "what flows goes on"
    assert between.of(NoLegs) == []
    between.held.clear()
    between.holds = lambda _: False
    between.wait(GIVE_UP_S)
    flows(between)
    assert [leg.n for leg in legs_at(between)] == [1, 1]
    tokens = {each.token_t for each in between.of(Release) if each.run == 1}
    assert len(tokens) == 1 + away_s // GIVE_UP_S, "a token is stale after a while"


def test_a_renewal_that_the_kms_never_answers_ends_with_the_old_keys(between: Between) -> None:
    between.holds = lambda message: isinstance(message, Release) and message.run == 1
    renew(between)
    until = between.legs.until
    between.wait(until - between.now - 1)
    assert between.legs.state.value == "renewing"
    between.wait(GIVE_UP_S + 1)
    assert between.legs.state.value == "over"
    assert between.lines() == [None] * 4


def test_a_transcoder_that_is_lost_before_a_renewal_still_is_after_it(between: Between) -> None:
    between.holds = lambda message: isinstance(message, Release)
    between.other_process()
    between.wait(between.ue_call("alice").renew_at - between.now - 1)
    for name in ("alice", "bob"):
        between.give(f"ue.{name}", MediaSilent(between.session(name)))
    between.wait(TAKEOVER_S - 1)
    assert between.ue_call("alice").run.n == between.ue_call("bob").run.n == 1
    assert between.ue_call("alice").state is CallState.UP
    between.wait(1)
    assert between.ue_call("alice").state is between.ue_call("bob").state is CallState.ENDED
    assert "silent" in {between.ue_call(name).reason for name in ("alice", "bob")}


def test_an_old_run_is_not_begun_anew(between: Between) -> None:
    interpose = between.of(Interpose)[0]
    renew(between)
    before = between.legs
    between.send("transcoder", interpose)
    over = LegsOver(fork=interpose.fork, run=0, call=interpose.call, caller=ALICE, callee=BOB)
    between.send("transcoder", over)
    assert between.legs == before


# A release that is revoked.


def revoke(between: Between, order: RevokeRelease | Revoke | None = None) -> None:
    """An operator revokes what was released of this call, or the key id of an order."""
    custodian = Stage(Custodian())
    custodian.records = between.town.records
    run = between.ue_call("alice").run
    order = order or RevokeRelease(caller=ALICE, call=run.call, order=bytes(16))
    decision = custodian.give(order, between.now)
    assert len(decision.sends) == 1
    for send in decision.sends:
        assert isinstance(send.message, Withdraw)
        between.send("kms", send.message)


def test_a_release_that_is_revoked_ends_the_legs_and_bars_the_transcoder(between: Between) -> None:
    between.wait(1)
    revoke(between)
    kinds = [each.kind for each in between.of(Notice, "cscf")]
    assert kinds.count(NoticeKind.RENEW) == 2
    for name in ("alice", "bob"):
        assert CloseMedia(between.session(name)) in between.media[f"ue.{name}"]
    assert between.of(LegsOver) != []
    assert all(CloseMedia(leg.session) in between.media["transcoder"] for leg in legs_at(between))
    codes = [each.code for each in between.of(Refusal, "transcoder")]
    assert codes == [RefusalCode.NOT_PERMITTED], "alice has renewed, and the transcoder is barred"
    assert between.ue_call("alice").run.n == 1
    assert [each.code for each in between.of(NoLegs, "cscf")] == [RefusalCode.NOT_PERMITTED]
    for name in ("alice", "bob"):
        assert between.ue_call(name).state is CallState.ENDED
    assert between.legs.state is LegsState.OVER


def test_or_02_a_transcoder_whose_key_id_is_revoked_loses_what_it_was_released(between: Between) -> None:
    between.wait(1)
    revoke(between, Revoke(key_id="psk:transcoder", order=bytes(16)))
    assert [each.kind for each in between.of(Notice, "cscf")].count(NoticeKind.RENEW) == 2
    assert all(CloseMedia(leg.session) in between.media["transcoder"] for leg in legs_at(between))
    revoked = [each for each in between.of(Audit) if each.event == "release-revoked"]
    assert [(each.key_id, each.transcoder) for each in revoked] == [("psk:transcoder", TRANSCODER)]
    assert between.legs.run.n == 1, "alice has renewed"
    assert between.legs.state is LegsState.ASKING, "a refusal that is not sealed is a hint"
    between.wait(GIVE_UP_S)
    assert between.ue_call("alice").state is CallState.ENDED


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_or_02_a_key_id_of_an_end_that_is_revoked_ends_the_call_and_its_legs(
    between: Between, name: str
) -> None:
    between.wait(1)
    revoke(between, Revoke(key_id=f"psk:{name}", order=bytes(16)))
    assert {between.ue_call(each).reason for each in ("alice", "bob")} <= {"revoked", "bye"}
    assert between.ue_call("alice").state is between.ue_call("bob").state is CallState.ENDED
    assert between.legs.state is LegsState.OVER
    assert between.lines() == [None] * 4
