"""A mailbox beside a real KMS, for tests of one message or one check each."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from agents.alarms import ForgetParts, MessageAlarm
from agents.decision import NOTHING, Decision
from agents.kms import KmsSettings
from agents.mailbox.stored_message import session_of
from agents.voicemail import Voicemail, VoicemailSettings
from media.leg import Recorded, RecordingClosed
from protocol.checks import RefusalCode
from protocol.deferred import (
    open_mailbox_grant,
    proof_of,
)
from protocol.evidence import MailboxGrant
from protocol.limits import SEEN_S, SKEW_S
from protocol.names import Permit, Role
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.voicemail_records import MailboxOf, StoredMessage
from tests.agents.scene import ALICE, BOB, CALL, MAILBOX, NOW, OFFER, Stage, Town
from topics.catalogue import CSCF, ue_inbox
from topics.messages import (
    Bye,
    Collected,
    Contact,
    Decline,
    DeclineReason,
    Deposit,
    DepositResponse,
    Invite,
    MailboxOk,
    MailboxRefusal,
    Present,
    Refusal,
    Retrieve,
    Waiting,
    clear,
)

M = TypeVar("M")

SESSION: Final = session_of(ALICE, BOB, CALL)
LINES: Final = tuple(MediaAddress("127.0.0.1", 40_000 + n) for n in range(12))
PHONE: Final = Contact("bob", "bob-1@ims.example")
TABLET: Final = Contact("bob-2", "bob-2@ims.example")
ALICES: Final = Contact("alice", "alice-1@ims.example")
DAY_S: Final = 86_400
FORGOTTEN_S: Final = SEEN_S + SKEW_S


class Office(Stage):
    """One mailbox process, or two of them in turn, with a town around it."""

    def __init__(self, *, kms: KmsSettings | None = None, **changes: Any) -> None:
        self.town = Town(kms)
        self.settings = VoicemailSettings(
            **{
                "identity": MAILBOX,
                "key_id": "psk:voicemail",
                "key": self.town.subscriber("psk:voicemail").key,
                "instance": "one",
                "lines": LINES,
                **changes,
            }
        )
        super().__init__(Voicemail(self.settings))
        self.runs = self.town.run
        self.parts: dict[str, int] = {}

    def other_process(self, instance: str = "two") -> None:
        """From now on another process has the partition, and the records."""
        fields = {name: getattr(self.settings, name) for name in VoicemailSettings.__dataclass_fields__}
        self.agent = Voicemail(VoicemailSettings(**{**fields, "instance": instance}))

    def invite(self, call: bytes = CALL, caller: str = ALICE, **changes: Any) -> Invite:
        """As call control hands it over. permits: of its token."""
        permits = changes.pop("permits", (Permit.DEFERRED,))
        time = changes.pop("time", NOW)
        callee = changes.pop("callee", BOB)
        run = self.runs(call=call, caller=caller, callee=callee)
        key_id = f"psk:{caller.partition('@')[0].removeprefix('sip:')}"
        offer = changes.get("offer", OFFER)
        body = self.town.body(run, time=time, offer=offer, permits=permits)
        fields: dict[str, Any] = {
            "caller_key": key_id,
            "suite": run.suite,
            "offer": offer,
            "token_a": self.town.token_a(run, body, key_id),
            "media": MediaAddress("127.0.0.1", 9),
            "diverted": DeclineReason.NO_ANSWER,
            **clear(run),
            **changes,
        }
        return Invite(**fields)

    def ask_kms(self, decision: Decision, now: int = NOW) -> DepositResponse | Refusal:
        """What the KMS says to the DEPOSIT in a decision."""
        answer = self.town.give(only(decision, Deposit), now)
        [message] = [send.message for send in answer.sends]
        assert isinstance(message, DepositResponse | Refusal)
        return message

    def answered(self, invite: Invite | None = None, now: int = NOW) -> MailboxOk:
        """INVITE up to 200 OK."""
        response = self.ask_kms(self.give(invite or self.invite(), now), now)
        return only(self.give(response, now), MailboxOk)

    def hear(self, count: int = 1, now: int = NOW, session: str = SESSION, octets: int = 188) -> Decision:
        """The recorder has so many parts, of 50 packets each."""
        decision = NOTHING
        for _ in range(count):
            part = self.parts.get(session, 0)
            self.parts[session] = part + 1
            decision = self.give(Recorded(session, part, packets(part, octets)), now)
        return decision

    def leave(self, parts: int = 1, now: int = NOW, **changes: Any) -> Decision:
        """A whole message; the last decision."""
        invite = self.invite(**changes)
        self.answered(invite, now)
        session = session_of(invite.caller, invite.callee, invite.call)
        self.hear(parts, now, session)
        self.give(self.bye(call=invite.call, caller=invite.caller, callee=invite.callee), now)
        return self.give(RecordingClosed(session), now)

    def bye(self, **changes: Any) -> Bye:
        return Bye(**{"fork": None, "by": Role.CALLER, "proof": None, **about(), **changes})

    def register(self, device: Contact = PHONE, now: int = NOW, until: int = NOW + 3600) -> Decision:
        return self.give(Present(identity=BOB, device=device, not_after=until), now)

    def retrieve(self, part: int, device: Contact = PHONE, now: int = NOW) -> list[Any]:
        decision = self.give(Retrieve(part=part, sender=device, **about()), now)
        assert all(send.topic == ue_inbox(device.host) for send in decision.sends)
        return [send.message for send in decision.sends]

    def grant_m(self, invite: Invite, ok: MailboxOk) -> MailboxGrant:
        """What the caller makes of the mailbox's 200 OK."""
        run, alice = self.runs(), self.town.holder(Role.CALLER, "psk:alice")
        return open_mailbox_grant(
            alice,
            run,
            ok.grant_m,
            token_a=invite.token_a,
            nonce=HARDENED.open_token(alice, run, invite.token_a, binds=None).nonce,
            mailbox=ok.mailbox,
            answer=ok.answer,
            now=NOW,
        )

    def proof(self) -> bytes:
        """What a holder of K has for the message."""
        agreement = self.town.agreement()
        assert agreement is not None
        deposit = agreement.runs[0].deposit
        assert deposit is not None
        assert deposit.key is not None
        return proof_of(deposit.key, self.runs())

    def collect(self, proof: bytes, device: Contact = PHONE, now: int = NOW) -> Any:
        decision = self.give(Collected(proof=proof, sender=device, **about()), now)
        [send] = decision.sends
        return send.message

    def later(self, now: int) -> Decision:
        """The message's alarm."""
        return self.give(MessageAlarm(ALICE, BOB, CALL), now)

    def sweep(self, now: int = NOW) -> None:
        """All alarms that delete parts."""
        decision = self.give(ForgetParts(ALICE, BOB, CALL, 0, self.parts[SESSION]), now)
        while decision.wakes:
            [wake] = decision.wakes
            assert isinstance(wake.alarm, ForgetParts)
            decision = self.give(wake.alarm, now)

    @property
    def message(self) -> StoredMessage:
        record = self.records[StoredMessage.key_for(ALICE, BOB, CALL).name]
        assert isinstance(record, StoredMessage)
        return record

    @property
    def mailbox(self) -> MailboxOf:
        record = self.records[MailboxOf.key_for(BOB).name]
        assert isinstance(record, MailboxOf)
        return record

    def labels(self) -> list[str]:
        """What kinds of records there are, but for lines and devices."""
        found = {name.partition("}:")[2].partition(":")[0] for name in self.records}
        return sorted(found - {"lines", "mailbox"})


def about(**changes: Any) -> dict[str, Any]:
    return {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB, **changes}


def packets(part: int, octets: int = 188) -> tuple[bytes, ...]:
    return tuple(bytes([0x80, part % 256, number]).ljust(octets, b"\0") for number in range(50))


def only(decision: Decision, kind: type[M]) -> M:
    """The one message of this kind in it."""
    [found] = [send.message for send in decision.sends if isinstance(send.message, kind)]
    return found


def declined(decision: Decision) -> DeclineReason:
    """It was declined, and nothing else."""
    [send] = decision.sends
    assert send.topic == CSCF
    assert isinstance(send.message, Decline)
    assert (send.message.sender, send.message.to) == (None, None)
    return send.message.reason


def other(number: int) -> bytes:
    return bytes([number]) * 16


def waitings(decision: Decision) -> list[Waiting]:
    return [send.message for send in decision.sends if isinstance(send.message, Waiting)]


def refusal_of(answers: list[Any]) -> RefusalCode:
    [refusal] = answers
    assert isinstance(refusal, MailboxRefusal)
    return refusal.code
