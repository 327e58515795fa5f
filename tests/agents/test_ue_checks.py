"""The handset's numbered checks, each broken alone on the way of a real call: it refuses and goes on waiting.

What is wrong here is sealed under the right key, as by a KMS that is confused or an insider: only the check
that is named stands between it and the media.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chaos.faults import Faults
from chaos.invariants import calls_of, violations
from chaos.simulator import World
from chaos.wiretap import flip_a_bit
from protocol.checks import Check, RefusalCode
from protocol.description import Description, Flow
from protocol.encoding import dec_body, digest
from protocol.evidence import Grant
from protocol.handover import Attachment, seal_attachment
from protocol.names import Kind, Role, Run
from protocol.profile import HARDENED
from protocol.sealing import down
from protocol.secret import Secret
from storage.ue_records import CallState, UeCall
from topics.bus import Outbound
from topics.codec import decode, encode
from topics.messages import (
    Ack,
    Attach,
    Attached,
    BootstrapAnswer,
    BootstrapChallenge,
    BootstrapDone,
    Bye,
    Invite,
    KeyRequest,
    KeyResponse,
    Message,
    Ok,
    Refusal,
    Report,
    ReportEvent,
    ZnRequest,
    ZnResponse,
    clear,
    run_of,
)

DIALLED_AT = 5.0
Change = Callable[[World, Message], Message]


def call_with(change: Change, until: float = 12.0) -> World:
    """Alice calls Bob; `change` sees each message on its way."""

    def tamper(record: Outbound) -> Outbound:
        changed = change(world, decode(record.value))
        return Outbound(record.topic, record.partition, record.key, encode(changed), record.headers)

    world = World(0, Faults(), names=("alice", "bob"), tamper=tamper)
    world.at(DIALLED_AT, lambda: world.dial("alice", "bob"))
    world.run_until(until)
    return world


def refusals(world: World) -> set[tuple[str, Check | None]]:
    """Who refused by which check, handsets only."""
    return {
        (message.device.partition("-")[0], message.check)
        for _, _, message in world.messages()
        if isinstance(message, Report) and message.event is ReportEvent.REFUSED
    }


def state(world: World, host: str) -> CallState:
    [(_, call)] = calls_of(world, host)
    return call.state


def call_of(world: World, host: str) -> UeCall:
    [(_, call)] = calls_of(world, host)
    return call


def unchanged(_: World, message: Message) -> Message:
    return message


def test_a_call_that_nobody_changes_comes_up() -> None:
    world = call_with(unchanged)
    assert state(world, "alice") is state(world, "bob") is CallState.UP
    assert refusals(world) == set()
    assert violations(world) == []


def regrant(world: World, message: Message, who: Role, **changes: Any) -> Message:
    """The grant for one end, opened and sealed anew under the right key with something else inside."""
    if not isinstance(message, KeyResponse):
        return message
    request = next(m for _, _, m in world.messages() if isinstance(m, KeyRequest) and m.call == message.call)
    run: Run = run_of(request, request.suite)
    caller = who is Role.CALLER
    key_id, token = (request.caller_key, request.token_a) if caller else (request.callee_key, request.token_b)
    name, label = ("grant_a", "grant-a") if caller else ("grant_b", "grant-b")
    channel = down(world.observer.keys[key_id], run.suite, who)
    context = (*run.clear, key_id, digest(token))
    body = dec_body(channel.unseal(label, context, getattr(message, name)), Grant)
    wrong = msgspec.structs.replace(body, **changes)
    sealed = channel.seal(label, context, msgspec.msgpack.encode(wrong, enc_hook=Secret.reveal), world.random)
    return msgspec.structs.replace(message, **{name: sealed})


WRONG_INSIDE = [
    (Check.OR_21, {"nonce": bytes(16)}),
    (Check.OR_22, {"call": bytes(16)}),
    (Check.OR_22, {"n": 1}),
    (Check.OR_22, {"caller": "sip:eve@ims.example"}),
    (Check.OR_22, {"callee": "sip:eve@ims.example"}),
    (Check.OR_22, {"fork": bytes(8)}),
    (Check.OR_23, {"not_after": 1_799_999_999}),
    (Check.OR_23, {"not_before": 1_900_000_000}),
    (Check.OR_24, {"kind": Kind.MAILBOX}),
]


@pytest.mark.parametrize("who", [Role.CALLER, Role.CALLEE])
@pytest.mark.parametrize(("check", "changes"), WRONG_INSIDE, ids=str)
def test_or_21_to_or_24_what_the_grant_says_inside(who: Role, check: Check, changes: dict[str, Any]) -> None:
    world = call_with(lambda world, message: regrant(world, message, who, **changes))
    host = "alice" if who is Role.CALLER else "bob"
    assert (host, check) in refusals(world)
    assert call_of(world, host).key is None
    assert state(world, host) in {CallState.CALLING, CallState.ASKING}


def zeros(octets: bytes) -> bytes:
    """Changed, and the same when it is changed at the next hop once more."""
    return bytes(len(octets))


def sent(world: World, kind: type[Message]) -> list[Any]:
    """What has been sent so far, arrived or not."""
    messages = [decode(record.value) for _, record in world.transmitted[:-1]]
    return [message for message in messages if isinstance(message, kind)]


def change_field(kind: type[Message], name: str, value: Callable[[Any], Any]) -> Change:
    def change(_: World, message: Message) -> Message:
        if not isinstance(message, kind):
            return message
        return msgspec.structs.replace(message, **{name: value(getattr(message, name))})

    return change


@pytest.mark.parametrize(
    ("host", "kind", "name"), [("bob", KeyResponse, "grant_b"), ("alice", KeyResponse, "grant_a")]
)
def test_or_20_a_grant_that_does_not_open(host: str, kind: type[Message], name: str) -> None:
    world = call_with(change_field(kind, name, flip_a_bit))
    assert refusals(world) == {(host, Check.OR_20)}
    assert call_of(world, host).key is None


def test_or_20_the_other_ends_grant() -> None:
    """A1, A2: no seal is taken for another one, whoever's it is."""

    def swap(_: World, message: Message) -> Message:
        if isinstance(message, KeyResponse):
            return msgspec.structs.replace(message, grant_a=message.grant_b, grant_b=message.grant_a)
        return message

    assert refusals(call_with(swap)) == {("bob", Check.OR_20)}


def test_or_20_her_own_token_comes_back() -> None:
    def reflect(world: World, message: Message) -> Message:
        if isinstance(message, Ok):
            return msgspec.structs.replace(message, grant_a=call_of(world, "alice").token)
        return message

    assert refusals(call_with(reflect)) == {("alice", Check.OR_20)}


def test_or_24_an_answer_that_is_none_of_the_offer() -> None:
    stranger = Description(("AES_CM_256_HMAC_SHA1_80",), ("PCMU",), Flow.SENDRECV).octets
    world = call_with(change_field(Ok, "answer", lambda _: stranger))
    assert refusals(world) == {("alice", Check.OR_24)}


def test_or_25_a_weaker_answer_that_is_one_of_the_offer() -> None:
    """Who controls the path cannot choose the suite: the transcript holds the answer."""
    weaker = Description(("AES_CM_128_HMAC_SHA1_80",), ("PCMU",), Flow.SENDRECV).octets
    world = call_with(change_field(Ok, "answer", lambda _: weaker))
    assert refusals(world) == {("alice", Check.OR_25)}
    assert state(world, "alice") is CallState.CALLING


def test_or_12_a_weaker_offer_is_seen_by_the_kms() -> None:
    weaker = Description(("AES_CM_128_HMAC_SHA1_80",), ("PCMU",), Flow.SENDRECV).octets
    world = call_with(change_field(Invite, "offer", lambda _: weaker))
    assert Check.OR_12 in {getattr(message, "check", None) for _, _, message in world.messages()}
    assert state(world, "bob") is CallState.ENDED


@pytest.mark.parametrize(("name", "check"), [("confirm_b", Check.OR_25), ("nonce_b", Check.OR_25)])
def test_or_25_the_callees_confirmation(name: str, check: Check) -> None:
    world = call_with(change_field(Ok, name, zeros))
    assert refusals(world) == {("alice", check)}
    assert state(world, "alice") is CallState.CALLING


def test_or_25_the_callers_confirmation() -> None:
    world = call_with(change_field(Ack, "confirm_a", zeros))
    assert ("bob", Check.OR_25) in refusals(world)
    assert state(world, "bob") is CallState.ANSWERED


def test_or_25_a_bye_of_somebody_else() -> None:
    changed = change_field(Bye, "proof", zeros)
    world = call_with(changed, until=DIALLED_AT + 2)
    world.at(DIALLED_AT + 3, lambda: world.hang_up("alice"))
    world.run_until(DIALLED_AT + 6)
    assert ("bob", Check.OR_25) in refusals(world)
    assert state(world, "bob") is CallState.UP


def test_or_22_a_bye_by_the_wrong_end() -> None:
    """bob's own proof, played back to him."""
    world = call_with(unchanged)
    call = call_of(world, "bob")
    assert call.key is not None
    own = HARDENED.bye(call.key, Role.CALLEE, call.run, call.fork)
    bye = Bye(fork=call.fork, by=Role.CALLEE, proof=own, to=call.device, **clear(call.run))
    world.broker.append(Outbound("ims.ue.bob", 0, b"", encode(bye)))
    world.run_until(world.time + 1)
    assert refusals(world) == {("bob", Check.OR_22)}
    assert state(world, "bob") is CallState.UP


def test_or_26_only_the_first_valid_response_counts() -> None:
    """A later RESPONSE with another K, under the right keys, changes nothing at bob; nor a later 200 OK."""
    world = call_with(unchanged)
    before = call_of(world, "bob")
    response = next(r for _, r, m in world.messages() if isinstance(m, KeyResponse))
    for _, record in world.transmitted:
        world.forger.sees(record)
    forged = world.forger.forge(
        Outbound(response.topic, response.partition, response.key or b"", response.value), world.now()
    )
    assert forged is not None
    world.broker.append(forged)
    ok = next(r for _, r, m in world.messages() if isinstance(m, Ok) and m.to is not None)
    world.broker.append(Outbound(ok.topic, ok.partition, ok.key or b"", ok.value))
    world.run_until(world.time + 1)
    assert call_of(world, "bob") == before
    assert state(world, "alice") is CallState.UP
    assert refusals(world) == set()


def test_an_unsealed_refusal_is_only_a_hint() -> None:
    """Who can write into bob's inbox cannot end a call that the KMS grants."""

    def refuse_first(world: World, message: Message) -> Message:
        if isinstance(message, KeyRequest) and not any(
            isinstance(m, Refusal) for _, _, m in world.messages()
        ):
            hint = Refusal(
                call=message.call,
                run=message.run,
                caller=message.caller,
                callee=message.callee,
                code=RefusalCode.TOO_MANY,
                sealed=None,
                to=message.sender.device,
            )
            world.broker.append(Outbound("ims.ue.bob", 0, b"", encode(hint)))
        return message

    world = call_with(refuse_first)
    assert state(world, "bob") is CallState.UP


def test_or_32_a_bsf_that_does_not_know_res() -> None:
    world = call_with(change_field(BootstrapDone, "server_digest", lambda _: "0" * 32))
    assert ("alice", Check.OR_32) in refusals(world)


def test_or_32_a_lifetime_that_the_bsf_did_not_give() -> None:
    world = call_with(change_field(BootstrapDone, "not_after", lambda until: until + 1))
    assert ("alice", Check.OR_32) in refusals(world)


def test_or_31_a_response_without_res() -> None:
    world = call_with(change_field(BootstrapAnswer, "response", lambda _: "0" * 32))
    assert Check.OR_31 in {getattr(message, "check", None) for _, _, message in world.messages()}
    assert not any(isinstance(message, BootstrapDone) for _, _, message in world.messages())


def test_or_32_a_challenge_of_somebody_else() -> None:
    def swap(world: World, message: Message) -> Message:
        others = sent(world, BootstrapChallenge)
        if isinstance(message, BootstrapChallenge) and others and others[0].to != message.to:
            return msgspec.structs.replace(message, nonce=others[0].nonce)
        return message

    world = call_with(swap)
    assert Check.OR_32 in {check for _, check in refusals(world)}


@pytest.mark.parametrize("kind", [ZnRequest, ZnResponse])
def test_or_33_the_hand_over_is_sealed(kind: type[Message]) -> None:
    world = call_with(change_field(kind, "sealed", flip_a_bit))
    assert Check.OR_33 in {getattr(message, "check", None) for _, _, message in world.messages()}
    assert not any(isinstance(message, Attached) for _, _, message in world.messages())


def test_or_33_an_older_answer_of_the_bsf() -> None:
    """bob's hand-over in place of alice's: another B-TID, another Nk."""

    def swap(world: World, message: Message) -> Message:
        others = sent(world, ZnResponse)
        if isinstance(message, ZnResponse) and others and others[0].btid != message.btid:
            return msgspec.structs.replace(message, sealed=others[0].sealed)
        return message

    world = call_with(swap)
    assert Check.OR_33 in {getattr(message, "check", None) for _, _, message in world.messages()}


def test_or_33_another_naf() -> None:
    world = call_with(change_field(ZnRequest, "naf_id", lambda naf_id: b"evil" + naf_id))
    assert Check.OR_33 in {getattr(message, "check", None) for _, _, message in world.messages()}


def test_or_20_attached_under_another_key() -> None:
    world = call_with(change_field(Attached, "sealed", flip_a_bit))
    assert {check for _, check in refusals(world)} == {Check.OR_20}


def reattach(world: World, message: Message, **changes: Any) -> Message:
    """ATTACHED, sealed anew under the right key with something else inside."""
    if not isinstance(message, Attached):
        return message
    body = Attachment(
        btid=message.btid,
        impi=message.to,
        identities=(f"sip:{message.to.partition('-')[0]}@ims.example",),
        now=world.now(),
        not_after=world.now() + 1000,
    )
    key = world.observer.keys[message.btid]
    sealed = seal_attachment(key, msgspec.structs.replace(body, **changes), world.random)
    return msgspec.structs.replace(message, sealed=sealed)


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        (None, {}),
        (Check.OR_22, {"identities": ("sip:eve@ims.example",)}),
        (Check.OR_22, {"impi": "eve-1@ims.example"}),
        (Check.OR_20, {"btid": "another@bsf.ims.example"}),
        (Check.OR_23, {"not_after": 1_799_999_999}),
    ],
    ids=str,
)
def test_or_20_or_22_or_23_what_attached_says_inside(check: Check | None, changes: dict[str, Any]) -> None:
    world = call_with(lambda world, message: reattach(world, message, **changes))
    assert {told for _, told in refusals(world)} == ({check} if check else set())
    assert bool(sent(world, Invite)) is (check is None)


@pytest.mark.parametrize("kind", [BootstrapChallenge, BootstrapDone])
def test_or_26_an_answer_to_another_attempt(kind: type[Message]) -> None:
    world = call_with(change_field(kind, "attempt", zeros))
    assert refusals(world) == set()
    assert not sent(world, BootstrapAnswer if kind is BootstrapChallenge else Attach)


def test_or_26_attached_for_a_key_that_is_not_ours() -> None:
    world = call_with(change_field(Attached, "btid", lambda _: "another@bsf.ims.example"))
    assert refusals(world) == set()
    assert not sent(world, Invite)


def test_or_22_an_ack_for_another_fork() -> None:
    def change(_: World, message: Message) -> Message:
        at_bob = isinstance(message, Ack) and message.to is not None
        return msgspec.structs.replace(message, fork=bytes(8)) if at_bob else message

    world = call_with(change)
    assert refusals(world) == {("bob", Check.OR_22)}
    assert state(world, "bob") is CallState.ANSWERED
