"""OR-27 at a handset: each part of a notice broken alone. It is told of, and changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.decision import NOTHING, Decision
from media.leg import CloseMedia, OpenMedia, RenewMedia
from protocol.checks import Check, RefusalCode
from protocol.encoding import enc_body
from protocol.evidence import Holder
from protocol.evidence import Notice as Body
from protocol.names import NoticeKind, Role
from protocol.sealing import Channel, down_key
from protocol.secret import Secret
from protocol.transcoding import leg_key, seal_notice
from protocol.transport import MediaAddress
from storage.ue_records import CallState, UeCall
from tests.agents.between import TRANSCODER, Between
from tests.agents.scene import ALICE, BOB, EVE
from topics.messages import Bye, NoLegs, Notice, Release, Report, ReportEvent

SIDES = ("alice", "bob")
ROLES = {"alice": Role.CALLER, "bob": Role.CALLEE}
PEOPLE = {"alice": ALICE, "bob": BOB}
ELSEWHERE = MediaAddress("elsewhere", 7)


@pytest.fixture(params=["waiting", "talking"])
def between(request: pytest.FixtureRequest) -> Between:
    """A call without a common codec: no notice has come yet, or one has."""
    made = Between()
    if request.param == "waiting":
        made.holds = lambda message: isinstance(message, Release)
    made.call()
    return made


def notice(between: Between, name: str, **changes: Any) -> Notice:
    """A notice as the KMS could seal it; changes: of what is inside, or of `key`, `role`, `identity`."""
    call = between.ue_call(name)
    clear_changes = {field: changes.pop(f"clear_{field}") for field in _CLEAR if f"clear_{field}" in changes}
    sealing = {
        "key": changes.pop("key", call.own_key),
        "role": changes.pop("role", ROLES[name]),
        "identity": changes.pop("identity", PEOPLE[name]),
    }
    fields: dict[str, Any] = {
        "call": call.run.call,
        "n": call.run.n,
        "fork": call.fork,
        "caller": ALICE,
        "callee": BOB,
        "transcoder": TRANSCODER,
        "nonce": call.nonce,
        "serial": call.notice_serial + 1,
        "kind": NoticeKind.LEG,
    }
    body = Body(**{**fields, **changes})
    context = {field: fields[field] for field in ("call", "n", "fork", "transcoder")}
    if "in_context" in clear_changes:
        context = {field: getattr(body, field) for field in context}
    down = down_key(sealing["key"], call.run.suite, sealing["role"])
    sealed = _seal(down, call, sealing["identity"], body, context, between)
    clear: dict[str, Any] = {
        "call": call.run.call,
        "run": call.run.n,
        "caller": ALICE,
        "callee": BOB,
        "fork": call.fork,
        "transcoder": TRANSCODER,
        "kind": NoticeKind.LEG,
        "whom": ROLES[name],
        "sealed": sealed,
        "media": ELSEWHERE,
        "codec": "PCMU" if name == "alice" else "PCMA",
        "to": call.device,
    }
    clear_changes.pop("in_context", None)
    return Notice(**{**clear, **clear_changes})


_CLEAR = ("in_context", "run", "fork", "transcoder", "kind", "media", "codec")


def _seal(
    down: Secret, call: UeCall, identity: str, body: Body, context: dict[str, Any], between: Between
) -> bytes:
    """The body under the context that the handset will expect, whatever the body says."""
    bound = (context["call"], context["n"], context["fork"], identity, context["transcoder"])
    return Channel(down, call.run.suite).seal("notice", bound, enc_body(body), between.town.random)


def give(between: Between, name: str, message: Any) -> Decision:
    return between.stages[f"ue.{name}"].give(message, between.now)


def refuses(between: Between, name: str, message: Notice, code: RefusalCode = RefusalCode.DENIED) -> None:
    """It is reported, and changes nothing; a valid one is still taken."""
    before = dict(between.stages[f"ue.{name}"].records)
    decision = give(between, name, message)
    [send] = decision.sends
    assert isinstance(send.message, Report)
    assert (send.message.event, send.message.check) == (ReportEvent.REFUSED, Check.OR_27)
    assert send.message.reason == code
    assert (decision.puts, decision.media, decision.wakes) == ((), (), ())
    assert between.stages[f"ue.{name}"].records == before
    assert give(between, name, notice(between, name)).media != ()


@pytest.mark.parametrize("name", SIDES)
def test_a_valid_notice_opens_media_under_the_leg_key(between: Between, name: str) -> None:
    call = between.ue_call(name)
    [media] = give(between, name, notice(between, name)).media
    assert isinstance(media, RenewMedia if call.media_open else OpenMedia)
    assert call.key is not None
    assert media.leg.root == leg_key(call.key, call.run, call.fork, TRANSCODER, PEOPLE[name])
    assert (media.leg.local, media.leg.remote) == (PEOPLE[name], TRANSCODER)
    assert media.leg.remote_address == ELSEWHERE
    assert between.ue_call(name).transcoder == TRANSCODER
    assert between.ue_call(name).leg_by == 0


@pytest.mark.parametrize("name", SIDES)
def test_what_is_sealed_is_what_the_kms_seals(between: Between, name: str) -> None:
    """The test's own sealing, beside the function that the KMS has."""
    call = between.ue_call(name)
    ours = notice(between, name)
    body = Body(
        call=call.run.call,
        n=0,
        fork=call.fork,
        caller=ALICE,
        callee=BOB,
        transcoder=TRANSCODER,
        nonce=call.nonce,
        serial=call.notice_serial + 1,
        kind=NoticeKind.LEG,
    )
    holder = Holder(ROLES[name], call.own_key_id, call.own_key)
    down = down_key(holder.key, call.run.suite, holder.role)
    sealed = seal_notice(down, call.run.suite, PEOPLE[name], body, random=between.town.random)
    assert len(sealed) == len(ours.sealed)
    assert give(between, name, msgspec.structs.replace(ours, sealed=sealed)).media != ()


@pytest.mark.parametrize("name", SIDES)
def test_or_27_under_another_key_or_role(between: Between, name: str) -> None:
    refuses(between, name, notice(between, name, key=Secret(bytes(32))))
    other = Role.CALLEE if name == "alice" else Role.CALLER
    refuses(between, name, notice(between, name, role=other))
    refuses(between, name, notice(between, name, identity=EVE))


@pytest.mark.parametrize("name", SIDES)
def test_or_27_the_other_sides_notice(between: Between, name: str) -> None:
    other = "bob" if name == "alice" else "alice"
    theirs = notice(between, other)
    refuses(between, name, msgspec.structs.replace(notice(between, name), sealed=theirs.sealed))


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize(
    "inside",
    [
        {"call": bytes(16)},
        {"n": 1},
        {"caller": EVE},
        {"callee": EVE},
        {"fork": bytes(8)},
        {"fork": None},
        {"transcoder": EVE},
        {"transcoder": None},
        {"nonce": bytes(16)},
    ],
    ids=str,
)
def test_or_27_each_value_inside(between: Between, name: str, inside: dict[str, Any]) -> None:
    refuses(between, name, notice(between, name, **inside))


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("inside", [{"n": 1}, {"fork": bytes(8)}, {"call": bytes(16)}], ids=str)
def test_or_27_a_notice_of_another_run(between: Between, name: str, inside: dict[str, Any]) -> None:
    """Whole in itself, but for another run than the handset has."""
    refuses(between, name, notice(between, name, clear_in_context=True, **inside))


@pytest.mark.parametrize("name", SIDES)
def test_or_27_the_transcoder_in_clear_is_the_sealed_one(between: Between, name: str) -> None:
    refuses(between, name, notice(between, name, clear_transcoder="sip:other@ims.example"))
    refuses(between, name, notice(between, name, clear_transcoder=None))


@pytest.mark.parametrize("name", SIDES)
def test_or_27_an_older_serial_replayed(between: Between, name: str) -> None:
    first = notice(between, name)
    give(between, name, first)
    second = notice(between, name)
    give(between, name, second)
    refuses(between, name, first, RefusalCode.REPLAY)


@pytest.mark.parametrize("name", SIDES)
def test_or_27_the_last_notice_once_more_changes_nothing(between: Between, name: str) -> None:
    """Repeats are honest: they are not told of. Nor can an address be put into one."""
    taken = notice(between, name)
    give(between, name, taken)
    assert give(between, name, taken) == NOTHING
    assert give(between, name, msgspec.structs.replace(taken, media=MediaAddress("eve", 9))) == NOTHING


@pytest.mark.parametrize("name", SIDES)
def test_or_27_a_leg_needs_an_address_and_a_codec_of_its_own(between: Between, name: str) -> None:
    for change in (
        {"clear_media": None},
        {"clear_codec": None},
        {"clear_codec": "opus"},
        {"clear_codec": "PCMA" if name == "alice" else "PCMU"},
    ):
        refuses(between, name, notice(between, name, **change), RefusalCode.NOT_PERMITTED)


@pytest.mark.parametrize("name", SIDES)
@pytest.mark.parametrize("kind", [NoticeKind.LEG, NoticeKind.RENEW])
def test_or_27_no_leg_where_a_codec_is_shared(name: str, kind: NoticeKind) -> None:
    """K is used, and stays so: nobody comes between who is not needed."""
    between = Between(codecs=(("PCMU", "PCMA"), ("PCMU", "PCMA")))
    between.call()
    message = notice(between, name, kind=kind, clear_codec="PCMU")
    before = dict(between.stages[f"ue.{name}"].records)
    decision = give(between, name, message)
    assert [send.message.check for send in decision.sends if isinstance(send.message, Report)] == [
        Check.OR_27
    ]
    assert decision.media == ()
    assert between.stages[f"ue.{name}"].records == before


def test_or_27_no_leg_before_the_callee_is_up() -> None:
    between = Between()
    between.holds = lambda message: type(message).__name__ == "Ack"
    between.call()
    assert between.ue_call("bob").state is CallState.ANSWERED
    decision = give(between, "bob", notice(between, "bob"))
    assert decision.media == ()
    assert between.ue_call("bob").notice_serial == 0


@pytest.mark.parametrize("name", SIDES)
def test_the_sealed_kind_rules(between: Between, name: str) -> None:
    """The copy in clear is for call control."""
    decision = give(between, name, notice(between, name, kind=NoticeKind.END))
    assert between.ue_call(name).state is CallState.HANGING_UP
    assert any(isinstance(send.message, Bye) for send in decision.sends)
    assert CloseMedia(between.session(name)) in decision.media


@pytest.mark.parametrize("name", SIDES)
def test_end_hangs_up_with_a_reason(between: Between, name: str) -> None:
    give(between, name, notice(between, name, kind=NoticeKind.END, clear_kind=NoticeKind.END))
    assert between.ue_call(name).reason == "revoked"


def test_renew_stops_the_leg_and_the_caller_renews(between: Between) -> None:
    for name in SIDES:
        decision = give(between, name, notice(between, name, kind=NoticeKind.RENEW))
        assert decision.media == (CloseMedia(between.session(name)),)
        asked = [send.message for send in decision.sends if type(send.message).__name__ == "Invite"]
        assert len(asked) == (1 if name == "alice" else 0)


def test_no_legs_ends_a_call_without_media_only(between: Between) -> None:
    for name in SIDES:
        call = between.ue_call(name)
        about: dict[str, Any] = {"call": call.run.call, "run": 0, "caller": ALICE, "callee": BOB}
        hint = NoLegs(fork=call.fork, code=RefusalCode.BUSY, to=call.device, **about)
        assert give(between, name, msgspec.structs.replace(hint, fork=bytes(8))) == NOTHING
        assert give(between, name, msgspec.structs.replace(hint, run=1)) == NOTHING
        give(between, name, hint)
        ended = between.ue_call(name).state is CallState.HANGING_UP
        assert ended is not call.media_open


def test_no_legs_ends_no_call_with_a_common_codec() -> None:
    between = Between(codecs=(("PCMU",), ("PCMU",)))
    between.call()
    call = between.ue_call("alice")
    about: dict[str, Any] = {"call": call.run.call, "run": 0, "caller": ALICE, "callee": BOB}
    hint = NoLegs(fork=call.fork, code=RefusalCode.BUSY, to=call.device, **about)
    assert give(between, "alice", hint) == NOTHING
