"""A UE host with bob's device on it, and what a mailbox and a KMS would send it, for tests of collecting.

The KMS that is played here knows the device's key: what it sends is sealed under the right key, and may be
wrong inside.
"""

from __future__ import annotations

import random
from typing import Any, Final, TypeVar

from agents.decision import Decision
from agents.handset.ue_call import UeSettings, session_of
from agents.ue import Ue
from chaos.eavesdropping import secrets_in
from media.leg import StoredHeard
from protocol.checks import RefusalCode
from protocol.deferred import open_fetch, proof_of, seal_fetch_grant
from protocol.encoding import digest
from protocol.evidence import FetchGrant, Holder
from protocol.limits import SKEW_S
from protocol.names import Kind, Role, Run, Suite
from protocol.profile import HARDENED, Profile
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.ue_records import (
    Collecting,
    CollectingState,
    Handset,
    HandsetKey,
    Inbox,
)
from tests.agents.scene import ALICE, ANSWER, BOB, CALL, MAILBOX, NOW, OFFER, Stage
from topics.codec import decode, encode
from topics.messages import (
    CollectedOk,
    DeleteMessage,
    Fetch,
    FetchResponse,
    MailboxRefusal,
    PlayMessage,
    Refusal,
    Report,
    ReportEvent,
    Stored,
    Waiting,
    Wire,
    run_of,
)

DEVICE: Final = "bob-1@ims.example"
KEY_ID: Final = "psk:bob-1@ims.example"
REQUEST: Final = b"r" * 16
UNTIL: Final = NOW + 86_400
LEFT_AT: Final = NOW - 600  # as the mailbox says
PARTS: Final = 20
K: Final = Secret(bytes(range(100, 132)))
SESSION: Final = session_of(DEVICE, ALICE, CALL)
M = TypeVar("M", bound=Wire)
ABOUT: Final[dict[str, Any]] = {"call": CALL, "run": 0, "caller": ALICE, "callee": BOB}
RUN: Final = Run(call=CALL, n=0, caller=ALICE, callee=BOB, suite=Suite.AES_256_GCM)
PROOF: Final = proof_of(K, RUN)


class Bob(Stage):
    """A UE host with bob's device on it."""

    def __init__(self, profile: Profile = HARDENED, **settings: Any) -> None:
        lines = (MediaAddress("127.0.0.1", 9),)
        super().__init__(Ue(profile, UeSettings(host="bob", lines=lines, **settings)))
        self.key = Secret(random.Random(1).randbytes(32))
        key = HandsetKey(key_id=KEY_ID, key=self.key, not_after=NOW + 9999, obtained=NOW, attached=True)
        self.put(Handset.key_for(DEVICE), Handset(impi=DEVICE, identity=BOB, key=key))

    @property
    def inbox(self) -> Inbox:
        record = self.records.get(Inbox.key_for(DEVICE).name, Inbox())
        assert isinstance(record, Inbox)
        return record

    @property
    def collecting(self) -> Collecting:
        record = self.records[Collecting.key_for(SESSION).name]
        assert isinstance(record, Collecting)
        return record

    @property
    def state(self) -> CollectingState:
        return self.collecting.state

    @property
    def holder(self) -> Holder:
        return Holder(Role.CALLEE, KEY_ID, self.key)

    def grant(self, fetch: Fetch, now: int = NOW, **changes: Any) -> FetchGrant:
        token = open_fetch(self.holder, run_of(fetch, fetch.suite), fetch.token_f)
        fields: dict[str, Any] = {
            "call": CALL,
            "n": 0,
            "caller": ALICE,
            "callee": BOB,
            "nonce": token.nonce,
            "key": K,
            "now": now,
            "not_before": NOW - 1000 - SKEW_S,
            "not_after": UNTIL,
            "kind": Kind.MAILBOX,
            "mailbox": MAILBOX,
            "offer_hash": digest(OFFER),
            "answer_hash": digest(ANSWER),
        }
        return FetchGrant(**{**fields, **changes})

    def response(self, fetch: Fetch, now: int = NOW, **changes: Any) -> FetchResponse:
        """What the KMS answers to a FETCH; changes: of what is inside."""
        grant = self.grant(fetch, now, **changes)
        sealed = seal_fetch_grant(self.holder, RUN, grant, token_f=fetch.token_f, random=self.random)
        return FetchResponse(grant_f=sealed, to=DEVICE, **ABOUT)

    def refusal(self, fetch: Fetch, code: RefusalCode, **changes: Any) -> Refusal:
        nonce = open_fetch(self.holder, RUN, fetch.token_f).nonce
        fields = {"token": fetch.token_f, "nonce": nonce, **changes}
        sealed = HARDENED.seal_refusal(self.holder, RUN, code, random=self.random, **fields)
        return Refusal(code=code, sealed=sealed, to=DEVICE, **ABOUT)

    def told(self, **changes: Any) -> Bob:
        """A message waits."""
        self.give(waiting(**changes))
        return self

    def asked(self, wish: PlayMessage | DeleteMessage | None = None, **changes: Any) -> Fetch:
        """A message waits, and the user wants it."""
        self.told(**changes)
        return only(Fetch, self.give(wish or play()))

    def fetched(self, wish: PlayMessage | DeleteMessage | None = None, **changes: Any) -> Decision:
        """So far that the key is there."""
        return self.give(self.response(self.asked(wish, **changes)))

    def retrieved(self, wish: PlayMessage | None = None) -> Decision:
        """So far that all parts are there."""
        self.fetched(wish)
        for number in range(PARTS - 1):
            self.give(stored(number))
        return self.give(stored(PARTS - 1))


def waiting(**changes: Any) -> Waiting:
    fields: dict[str, Any] = {
        **ABOUT,
        "mailbox": MAILBOX,
        "caller_key": "psk:alice",
        "offer": OFFER,
        "answer": ANSWER,
        "packets": 1000,
        "parts": PARTS,
        "left_at": LEFT_AT,
        "not_after": UNTIL,
        "to": DEVICE,
    }
    return Waiting(**{**fields, **changes})


def play(**changes: Any) -> PlayMessage:
    return PlayMessage(**{"request": REQUEST, "to": DEVICE, "caller": ALICE, "call": CALL, **changes})


def delete(**changes: Any) -> DeleteMessage:
    return DeleteMessage(**{"request": REQUEST, "to": DEVICE, "caller": ALICE, "call": CALL, **changes})


def packets(number: int) -> tuple[bytes, ...]:
    return (b"packets of part %d" % number,)


def stored(number: int, **changes: Any) -> Stored:
    return Stored(**{**ABOUT, "part": number, "packets": packets(number), "to": DEVICE, **changes})


def heard(*, whole: bool = True) -> StoredHeard:
    return StoredHeard(SESSION, packets=1000, refused=3, whole=whole)


def collected_ok(**changes: Any) -> CollectedOk:
    return CollectedOk(**{**ABOUT, "to": DEVICE, **changes})


def refused_by_mailbox(code: RefusalCode) -> MailboxRefusal:
    return MailboxRefusal(code=code, to=DEVICE, **ABOUT)


def sent(decision: Decision) -> list[Wire]:
    """What goes to somebody, in its order, each as it would be read from the bus."""
    messages = [send.message for send in decision.sends if not isinstance(send.message, Report)]
    assert [decode(encode(message)) for message in messages] == messages
    return messages


def only(kind: type[M], decision: Decision) -> M:
    """The one message."""
    [message] = sent(decision)
    assert isinstance(message, kind)
    return message


def reports(decision: Decision) -> list[Report]:
    return [send.message for send in decision.sends if isinstance(send.message, Report)]


def report(decision: Decision, event: ReportEvent) -> Report:
    """The one report."""
    [found] = reports(decision)
    assert found.event is event
    return found


def secrets_of(bob: Bob) -> list[Secret]:
    """What follows from K in the record of the collecting, if there is still one."""
    record = bob.records.get(Collecting.key_for(SESSION).name)
    return [secret for secret in secrets_in(record) if secret != bob.key]
