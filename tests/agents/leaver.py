"""A UE host with alice's device on it, which has dialled bob, and what a mailbox or a device would answer.

The KMS that is played here knows the device's key: what it sends is sealed under the right key, and may be
wrong inside.
"""

from __future__ import annotations

import random
from typing import Any, Final, TypeVar

from agents.decision import Decision
from agents.handset.ue_call import UeSettings
from agents.ue import Ue
from protocol.deferred import seal_mailbox_grant
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import Grant, Holder, MailboxGrant
from protocol.exchange import transcript
from protocol.limits import SKEW_S
from protocol.names import Kind, Role, Run
from protocol.profile import HARDENED, Profile
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.ue_records import CallState, Handset, HandsetKey, Outbox, UeCall
from tests.agents.scene import ALICE, ANSWER, BOB, MAILBOX, NOW, OFFER, Stage
from topics.messages import (
    ByeOk,
    DeclineReason,
    Dial,
    HangUp,
    Invite,
    MailboxOk,
    Ok,
    Report,
    ReportEvent,
    Wire,
    clear,
)

DEVICE: Final = "alice-1@ims.example"
KEY_ID: Final = "psk:alice-1@ims.example"
RECORDER: Final = MediaAddress("voicemail", 41_000)
UNTIL: Final = NOW + 7 * 86_400
K: Final = Secret(bytes(range(100, 132)))
FORK: Final = b"fork-one"
M = TypeVar("M", bound=Wire)


class Alice(Stage):
    """A UE host with alice's device on it, which has dialled bob."""

    def __init__(self, profile: Profile = HARDENED, **settings: Any) -> None:
        lines = (MediaAddress("127.0.0.1", 9),)
        super().__init__(Ue(profile, UeSettings(host="alice", lines=lines, **settings)))
        self.key = Secret(random.Random(1).randbytes(32))
        key = HandsetKey(key_id=KEY_ID, key=self.key, not_after=NOW + 9999, obtained=NOW, attached=True)
        self.put(Handset.key_for(DEVICE), Handset(impi=DEVICE, identity=ALICE, key=key))
        dialled = self.give(Dial(request=b"r" * 16, to=DEVICE, callee=BOB))
        self.invite = only(Invite, dialled)

    @property
    def call(self) -> UeCall:
        [found] = [record for record in self.records.values() if isinstance(record, UeCall)]
        return found

    @property
    def run(self) -> Run:
        return self.call.run

    @property
    def about(self) -> dict[str, Any]:
        return {**clear(self.run), "to": DEVICE}

    @property
    def outbox(self) -> Outbox:
        record = self.records.get(Outbox.key_for(DEVICE).name, Outbox())
        assert isinstance(record, Outbox)
        return record

    @property
    def holder(self) -> Holder:
        return Holder(Role.CALLER, KEY_ID, self.key)

    def grant(self, **changes: Any) -> MailboxGrant:
        fields: dict[str, Any] = {
            "call": self.run.call,
            "n": 0,
            "caller": ALICE,
            "callee": BOB,
            "nonce": self.call.nonce,
            "key": K,
            "now": NOW,
            "not_before": NOW - SKEW_S,
            "not_after": UNTIL,
            "kind": Kind.MAILBOX,
            "mailbox": MAILBOX,
            "answer_hash": digest(ANSWER),
        }
        return MailboxGrant(**{**fields, **changes})

    def ok_of_mailbox(self, grant_m: bytes | None = None, **changes: Any) -> MailboxOk:
        """The 200 OK; changes: of what is inside grant_m."""
        if grant_m is None:
            grant_m = seal_mailbox_grant(
                self.holder,
                self.run,
                self.grant(**changes),
                token_a=self.invite.token_a,
                random=self.random,
            )
        return MailboxOk(
            mailbox=MAILBOX,
            answer=ANSWER,
            grant_m=grant_m,
            media=RECORDER,
            diverted=DeclineReason.NOT_REGISTERED,
            **self.about,
        )

    def peer_grant(self, fork: bytes = FORK) -> bytes:
        grant = Grant(
            *self.run.clear,
            nonce=self.call.nonce,
            key=K,
            now=NOW,
            not_before=NOW - SKEW_S,
            not_after=NOW + 3600,
            fork=fork,
            kind=Kind.PEER,
        )
        return HARDENED.seal_grant(
            self.holder, self.run, grant, token=self.invite.token_a, random=self.random
        )

    def ok_of_device(self, grant_a: bytes | None = None) -> Ok:
        """A valid 200 OK of bob's device, unless it has another grant in it."""
        grant_a = grant_a or self.peer_grant()
        answer = Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMU",), Flow.SENDRECV).octets
        seen = transcript(
            self.run,
            offer=OFFER,
            answer=answer,
            fork=FORK,
            token_a=self.invite.token_a,
            nonce_b=bytes(16),
            grant_a=grant_a,
        )
        return Ok(
            fork=FORK,
            nonce_b=bytes(16),
            answer=answer,
            grant_a=grant_a,
            confirm_b=HARDENED.confirm(K, Role.CALLEE, seen),
            media=MediaAddress("bob", 40_000),
            **self.about,
        )

    def leaving(self) -> Alice:
        """So far that the mailbox has been taken."""
        self.give(self.ok_of_mailbox())
        assert self.call.state is CallState.LEAVING
        return self

    def hang_up(self) -> Decision:
        return self.give(HangUp(to=DEVICE, caller=ALICE, call=self.run.call))

    def bye_ok(self, **changes: Any) -> ByeOk:
        return ByeOk(**{"fork": None, "by": Role.MAILBOX, "kept": 321, **self.about, **changes})


def sent(decision: Decision, kind: type[M]) -> list[M]:
    return [send.message for send in decision.sends if isinstance(send.message, kind)]


def only(kind: type[M], decision: Decision) -> M:
    [message] = sent(decision, kind)
    return message


def events(decision: Decision) -> list[ReportEvent]:
    return [report.event for report in sent(decision, Report)]
