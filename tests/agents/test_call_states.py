"""The table of call states is what happens: every message that it does not name changes nothing."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from agents.alarms import CallAlarm
from agents.decision import NOTHING
from agents.handset.call_states import EXPECTED
from agents.handset.ue_call import UeSettings, renewal_of, session_of
from agents.ue import Ue
from chaos.silent_media import NO_STATISTICS
from media.leg import MediaClosed, MediaSilent
from protocol.checks import RefusalCode
from protocol.names import NoticeKind, Role, Run, Suite
from protocol.profile import HARDENED
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.ue_records import CallState, Handset, HandsetKey, Lines, UeCall
from tests.agents.scene import ALICE, BOB, CALL, NOW, OFFER, Stage
from topics import messages
from topics.messages import DeclineReason

DEVICE = "alice-1@ims.example"
ABOUT: dict[str, Any] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}
MAILBOX = "sip:voicemail@ims.example"
SESSION = session_of(DEVICE, ALICE, CALL)
AT = MediaAddress("127.0.0.1", 9)
INPUTS: list[Any] = [
    CallAlarm(SESSION),
    MediaClosed(SESSION, NO_STATISTICS, expired=False),
    MediaSilent(SESSION),
    messages.HangUp(to=DEVICE, caller=ALICE, call=CALL),
    messages.Invite(
        caller_key="k",
        suite=Suite.AES_256_GCM,
        offer=OFFER,
        token_a=bytes(40),
        media=AT,
        to=DEVICE,
        **ABOUT,
    ),
    messages.Ringing(to=DEVICE, **ABOUT),
    messages.KeyResponse(fork=bytes(8), grant_a=bytes(40), grant_b=bytes(40), to=DEVICE, **ABOUT),
    messages.Refusal(code=RefusalCode.BUSY, sealed=None, to=DEVICE, **ABOUT),
    messages.Ok(
        fork=bytes(8),
        nonce_b=bytes(16),
        answer=OFFER,
        grant_a=bytes(40),
        confirm_b=bytes(32),
        media=AT,
        to=DEVICE,
        **ABOUT,
    ),
    messages.MailboxOk(
        mailbox=MAILBOX,
        answer=OFFER,
        grant_m=bytes(40),
        media=AT,
        diverted=DeclineReason.NO_ANSWER,
        to=DEVICE,
        **ABOUT,
    ),
    messages.Ack(fork=bytes(8), confirm_a=bytes(32), to=DEVICE, **ABOUT),
    messages.SettledOk(to=DEVICE, **ABOUT),
    messages.Decline(reason=DeclineReason.BUSY, to=DEVICE, **ABOUT),
    messages.Notice(
        fork=bytes(8),
        transcoder="sip:transcoder@ims.example",
        kind=NoticeKind.END,
        whom=Role.CALLER,
        sealed=bytes(40),
        to=DEVICE,
        **ABOUT,
    ),
    messages.NoLegs(fork=bytes(8), code=RefusalCode.BUSY, to=DEVICE, **ABOUT),
    messages.Cancel(to=DEVICE, **ABOUT),
    messages.Cancelled(to=DEVICE, **ABOUT),
    messages.Bye(fork=bytes(8), by=Role.CALLEE, proof=bytes(32), to=DEVICE, **ABOUT),
    messages.Bye(fork=None, by=Role.MAILBOX, proof=None, reason="too-long", to=DEVICE, **ABOUT),
    messages.ByeOk(fork=bytes(8), by=Role.CALLEE, to=DEVICE, **ABOUT),
    messages.ByeOk(fork=None, by=Role.MAILBOX, kept=7, to=DEVICE, **ABOUT),
]


def stage(role: Role, state: CallState) -> Stage:
    key = Secret(random.Random(1).randbytes(32))
    run = Run(call=CALL, n=0, caller=ALICE, callee=BOB, suite=Suite.AES_256_GCM)
    found = Stage(Ue(HARDENED, UeSettings(host="alice", lines=(AT,))))
    handset = Handset(
        impi=DEVICE,
        identity=ALICE if role is Role.CALLER else BOB,
        key=HandsetKey(key_id="psk:x", key=key, not_after=NOW + 9999, obtained=NOW, attached=True),
    )
    call = UeCall(
        session=SESSION,
        device=DEVICE,
        role=role,
        run=run,
        state=state,
        line=0,
        started=NOW,
        own_key_id="psk:x",
        own_key=key,
        peer_key_id="",
        token=bytes(40),
        nonce=bytes(16),
        offer=OFFER,
        answer=OFFER,
        token_a=bytes(40),
        grant_a=bytes(40),
        nonce_b=bytes(16),
        fork=b"" if state is CallState.LEAVING else bytes(8),
        mailbox=MAILBOX if state is CallState.LEAVING else "",
        key=key,
        lifetime_s=100,
        peer_media=AT,
        repeat_at=NOW + 1,
        give_up_at=NOW + 2,
    )
    found.put(Handset.key_for(DEVICE), handset)
    found.put(UeCall.key_for(SESSION), call)
    found.put(Lines.key(), Lines(sessions=(SESSION,)))
    return found


def test_the_table_has_every_state_of_each_role() -> None:
    callers = {state for role, state in EXPECTED if role is Role.CALLER}
    callees = {state for role, state in EXPECTED if role is Role.CALLEE}
    assert callers | callees == set(CallState)
    assert {type(message) for message in INPUTS} >= set().union(*EXPECTED.values())


@pytest.mark.parametrize(("role", "state"), EXPECTED, ids=str)
@pytest.mark.parametrize("message", INPUTS, ids=lambda message: type(message).__name__)
def test_or_26_what_the_table_does_not_name_changes_nothing(
    role: Role, state: CallState, message: Any
) -> None:
    decision = stage(role, state).give(message)
    if type(message) not in EXPECTED[role, state]:
        assert decision == NOTHING


def test_what_is_a_mailboxs_ends_no_call_between_two_devices() -> None:
    for message in INPUTS:
        if getattr(message, "by", None) is Role.MAILBOX:
            for state in (CallState.UP, CallState.HANGING_UP, CallState.ENDED):
                assert stage(Role.CALLER, state).give(message) == NOTHING


def test_a_message_of_another_run_changes_nothing() -> None:
    other = msgspec.structs.replace(next(m for m in INPUTS if isinstance(m, messages.Decline)), run=1)
    assert stage(Role.CALLER, CallState.CALLING).give(other) == NOTHING


@pytest.mark.parametrize(
    ("role", "state"),
    [
        (Role.CALLER, CallState.CALLING),
        (Role.CALLEE, CallState.ASKING),
        (Role.CALLEE, CallState.ANSWERED),
    ],
    ids=str,
)
@pytest.mark.parametrize("message", INPUTS, ids=lambda message: type(message).__name__)
def test_or_26_nor_does_it_change_a_renewal(role: Role, state: CallState, message: Any) -> None:
    """A renewal is a call of its own in one of these states, beside one that is up."""
    found = stage(role, CallState.UP)
    call = found.records[UeCall.key_for(SESSION).name]
    assert isinstance(call, UeCall)
    name = renewal_of(SESSION)
    run = msgspec.structs.replace(call.run, n=1)
    renewal = msgspec.structs.replace(call, session=name, run=run, state=state)
    found.put(UeCall.key_for(SESSION), msgspec.structs.replace(call, renewing=1))
    found.put(UeCall.key_for(name), renewal)
    if isinstance(message, CallAlarm):
        return
    if isinstance(message, messages.OfRun):
        message = msgspec.structs.replace(message, run=1)
    decision = found.give(message)
    of_call = isinstance(message, MediaClosed | MediaSilent | messages.HangUp)
    if isinstance(message, messages.Notice):  # which ends it in any state; this one does not open
        assert (decision.puts, decision.media) == ((), ())
    elif not of_call and type(message) not in EXPECTED[role, state]:
        assert decision == NOTHING
    if isinstance(message, messages.MailboxOk | messages.Ringing | messages.Cancel):
        assert decision == NOTHING, "nothing rings, no mailbox answers, and nobody is called off"
