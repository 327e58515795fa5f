"""Real agents without a bus: records in a dictionary, one message at a time, for tests of one check each."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from agents.decision import Agent, Decision, Input, Records
from agents.kms import Kms, KmsSettings
from protocol.checks import Check, RefusalCode
from protocol.deferred import (
    open_fetch_grant,
    open_mailbox_grant,
    open_mailbox_token,
    open_receipt,
    seal_fetch,
    seal_mailbox_token,
)
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import (
    FetchGrant,
    FetchToken,
    Grant,
    Holder,
    MailboxGrant,
    MailboxToken,
    Receipt,
    Token,
)
from protocol.names import Owner, Permit, Role, Run, Suite
from protocol.profile import HARDENED, Profile
from protocol.secret import Secret
from storage.kms_records import Agreement, Site, Subscriber
from storage.records import Key, Record
from topics.catalogue import VOICEMAIL
from topics.messages import (
    Audit,
    Contact,
    Deposit,
    DepositResponse,
    Fetch,
    FetchResponse,
    KeyRequest,
    KeyResponse,
    Refusal,
    Settled,
    clear,
    run_of,
)

NOW: Final = 1_800_000_000
ALICE: Final = "sip:alice@ims.example"
BOB: Final = "sip:bob@ims.example"
EVE: Final = "sip:eve@ims.example"
MAILBOX: Final = "sip:voicemail@ims.example"
CALL: Final = bytes(range(16))
OFFER: Final = Description(tuple(SrtpSuite), ("PCMU",), Flow.SENDRECV).octets
ANSWER: Final = Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMU",), Flow.RECVONLY).octets
KEEP_S: Final = 3 * 86_400


class Stage:
    """One agent with its records; what it decides is written, as its loop would."""

    def __init__(self, agent: Agent, seed: int = 1) -> None:
        self.agent = agent
        self.records: dict[str, Record] = {}
        self.random = random.Random(seed).randbytes

    def put(self, key: Key[Any], record: Record) -> None:
        self.records[key.name] = record

    def give(self, message: Input, now: int = NOW) -> Decision:
        """The agent's decision, applied."""
        named = {key.name for key in self.agent.reads(message)}
        found = {name: record for name, record in self.records.items() if name in named}
        decision = self.agent.handle(message, Records(found), now, self.random)
        for put in decision.puts:
            fresh = put.key.name not in self.records  # what was not read is expected to be absent
            assert fresh or put.key.name in named, f"{put.key.name} is written and was not read"
            if put.record is None:
                self.records.pop(put.key.name, None)
            else:
                self.records[put.key.name] = put.record
        return decision


class Town(Stage):
    """A KMS that knows alice, two devices of bob, eve, and a mailbox; and what they would send it."""

    def __init__(self, settings: KmsSettings | None = None, profile: Profile = HARDENED) -> None:
        super().__init__(Kms(profile, settings or KmsSettings()))
        self.profile = profile
        self.put(
            Site.key(), Site(fork_key=self.key(), zn_key=self.key(), naf_id=b"kms12345", founded=NOW - 99_999)
        )
        self.subscribe("psk:alice", ALICE)
        self.subscribe("psk:bob", BOB)
        self.subscribe("psk:bob2", BOB)
        self.subscribe("psk:eve", EVE)
        self.subscribe("psk:voicemail", MAILBOX, owner=Owner.MAILBOX)

    def key(self) -> Secret:
        return Secret(self.random(32))

    def subscribe(self, key_id: str, identity: str, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "key_id": key_id,
            "key": self.key(),
            "impi": f"{key_id.removeprefix('psk:')}@ims.example",
            "identities": (identity,),
            "not_before": NOW - 1000,
            "not_after": NOW + 100_000,
        }
        self.put(Subscriber.key_for(key_id), Subscriber(**{**fields, **changes}))

    def change(self, key_id: str, **changes: Any) -> None:
        """Change what the KMS has of a key id."""
        self.put(Subscriber.key_for(key_id), msgspec.structs.replace(self.subscriber(key_id), **changes))

    def subscriber(self, key_id: str) -> Subscriber:
        record = self.records[Subscriber.key_for(key_id).name]
        assert isinstance(record, Subscriber)
        return record

    def holder(self, role: Role, key_id: str) -> Holder:
        return Holder(role, key_id, self.subscriber(key_id).key)

    def run(self, **changes: Any) -> Run:
        fields: dict[str, Any] = {
            "call": CALL,
            "n": 0,
            "caller": ALICE,
            "callee": BOB,
            "suite": Suite.AES_256_GCM,
        }
        return Run(**{**fields, **changes})

    def body(
        self, run: Run, *, time: int = NOW, offer: bytes = OFFER, permits: tuple[Permit, ...] = ()
    ) -> Token:
        return Token(*run.clear, self.random(16), time, permits, digest(offer))

    def body_v(self, run: Run, **changes: Any) -> MailboxToken:
        fields: dict[str, Any] = {
            "mailbox": MAILBOX,
            "nonce": self.random(16),
            "time": NOW,
            "keep_s": KEEP_S,
            "offer_hash": digest(OFFER),
            "answer_hash": digest(ANSWER),
        }
        return MailboxToken(*run.clear, **{**fields, **changes})

    def body_f(self, run: Run, *, time: int = NOW) -> FetchToken:
        return FetchToken(*run.clear, self.random(16), time)

    def token_a(self, run: Run, body: Token | None = None, key_id: str = "psk:alice") -> bytes:
        holder = self.holder(Role.CALLER, key_id)
        return self.profile.seal_token(holder, run, body or self.body(run), binds=None, random=self.random)

    def request(
        self,
        run: Run | None = None,
        *,
        body_a: Token | None = None,
        body_b: Token | None = None,
        token_a: bytes | None = None,
        token_b: bytes | None = None,
        caller_key: str = "psk:alice",
        callee_key: str = "psk:bob",
        host: str = "bob",
    ) -> KeyRequest:
        """What bob would ask; each part may be given."""
        run = run or self.run()
        token_a = token_a or self.token_a(run, body_a, caller_key)
        if token_b is None:
            holder = self.holder(Role.CALLEE, callee_key)
            body = body_b or self.body(run)
            token_b = self.profile.seal_token(holder, run, body, binds=token_a, random=self.random)
        return KeyRequest(
            caller_key=caller_key,
            callee_key=callee_key,
            suite=run.suite,
            token_a=token_a,
            token_b=token_b,
            sender=Contact(host, "bob@ims.example"),
            **clear(run),
        )

    def deposit(
        self,
        run: Run | None = None,
        *,
        body_a: Token | None = None,
        body_v: MailboxToken | None = None,
        token_a: bytes | None = None,
        token_v: bytes | None = None,
        caller_key: str = "psk:alice",
        mailbox: str = MAILBOX,
        mailbox_key: str = "psk:voicemail",
    ) -> Deposit:
        """What the mailbox would ask; each part may be given."""
        run = run or self.run()
        if token_a is None:
            token_a = self.token_a(run, body_a or self.body(run, permits=(Permit.DEFERRED,)), caller_key)
        if token_v is None:
            holder, body = self.holder(Role.MAILBOX, mailbox_key), body_v or self.body_v(run, mailbox=mailbox)
            token_v = seal_mailbox_token(holder, run, body, token_a=token_a, random=self.random)
        return Deposit(
            mailbox=mailbox,
            caller_key=caller_key,
            mailbox_key=mailbox_key,
            suite=run.suite,
            token_a=token_a,
            token_v=token_v,
            **clear(run),
        )

    def fetch(
        self,
        run: Run | None = None,
        *,
        body: FetchToken | None = None,
        caller_key: str = "psk:alice",
        callee_key: str = "psk:bob",
        time: int = NOW,
    ) -> Fetch:
        """What a device of bob would ask; each part may be given."""
        run = run or self.run()
        holder, body = self.holder(Role.CALLEE, callee_key), body or self.body_f(run, time=time)
        return Fetch(
            caller_key=caller_key,
            callee_key=callee_key,
            suite=run.suite,
            token_f=seal_fetch(holder, run, body, random=self.random),
            sender=Contact("bob", "bob@ims.example"),
            **clear(run),
        )

    def settled(self, request: KeyRequest | Deposit, fork: bytes | None, **changes: Any) -> Settled:
        """What alice sends once she has taken an answer, None: the mailbox's; changes: of what is sealed."""
        run = self.run(call=request.call, caller=request.caller, callee=request.callee, suite=request.suite)
        caller = self.holder(Role.CALLER, request.caller_key)
        nonce = self.profile.open_token(caller, run, request.token_a, binds=None).nonce
        sealed = self.profile.seal_settled(
            caller,
            run,
            **{"token_a": request.token_a, "nonce": nonce, "fork": fork, "random": self.random, **changes},
        )
        return Settled(
            caller_key=request.caller_key,
            suite=run.suite,
            sealed=sealed,
            sender=Contact("alice", "alice@ims.example"),
            **clear(run),
        )

    def grants(self, request: KeyRequest, response: KeyResponse, now: int = NOW) -> tuple[Grant, Grant]:
        """grant_a and grant_b, opened as the two ends would."""
        run = Run(
            call=request.call,
            n=request.run,
            caller=request.caller,
            callee=request.callee,
            suite=request.suite,
        )
        opened = []
        for role, key_id, token, sealed in (
            (Role.CALLER, request.caller_key, request.token_a, response.grant_a),
            (Role.CALLEE, request.callee_key, request.token_b, response.grant_b),
        ):
            holder = self.holder(role, key_id)
            binds = request.token_a if role is Role.CALLEE else None
            nonce = self.profile.open_token(holder, run, token, binds=binds).nonce
            opened.append(
                self.profile.open_grant(
                    holder, run, sealed, token=token, nonce=nonce, fork=response.fork, now=now
                )
            )
        return opened[0], opened[1]

    def left(
        self, deposit: Deposit, response: DepositResponse, now: int = NOW, *, answer: bytes = ANSWER
    ) -> tuple[MailboxGrant, Receipt]:
        """grant_m and receipt_v, opened as the caller and the mailbox would."""
        run, token_a = run_of(deposit, deposit.suite), deposit.token_a
        caller = self.holder(Role.CALLER, deposit.caller_key)
        mailbox = self.holder(Role.MAILBOX, deposit.mailbox_key)
        grant = open_mailbox_grant(
            caller,
            run,
            response.grant_m,
            token_a=token_a,
            nonce=self.profile.open_token(caller, run, token_a, binds=None).nonce,
            mailbox=deposit.mailbox,
            answer=answer,
            now=now,
        )
        token_v = open_mailbox_token(mailbox, run, deposit.mailbox, deposit.token_v, token_a=token_a)
        receipt = open_receipt(
            mailbox,
            run,
            deposit.mailbox,
            response.receipt_v,
            token_v=deposit.token_v,
            nonce=token_v.nonce,
            now=now,
        )
        return grant, receipt

    def heard(self, fetch: Fetch, body: FetchToken, response: FetchResponse, now: int = NOW) -> FetchGrant:
        """grant_f, opened as bob's device would. body: of its token_f."""
        return open_fetch_grant(
            self.holder(Role.CALLEE, fetch.callee_key),
            run_of(fetch, fetch.suite),
            response.grant_f,
            token_f=fetch.token_f,
            nonce=body.nonce,
            mailbox=MAILBOX,
            offer=OFFER,
            answer=ANSWER,
            now=now,
        )

    def agreement(self, caller: str = ALICE, call: bytes = CALL) -> Agreement | None:
        record = self.records.get(Agreement.key_for(caller, call).name)
        assert record is None or isinstance(record, Agreement)
        return record


def granted(decision: Decision) -> KeyResponse:
    """The RESPONSE, with its audit record before it."""
    [response] = [send.message for send in decision.sends]
    assert isinstance(response, KeyResponse), response
    [audit] = decision.audit
    assert audit.event == "granted"
    return response


def deposited(decision: Decision) -> DepositResponse:
    """The DEPOSIT-RESPONSE, for whoever has bob's mailbox, with its audit record before it."""
    [send] = decision.sends
    assert (send.topic, send.key) == (VOICEMAIL, BOB)
    assert isinstance(send.message, DepositResponse), send.message
    [audit] = decision.audit
    assert audit.event == "deposited"
    return send.message


def fetched(decision: Decision) -> FetchResponse:
    """The FETCH-RESPONSE, with its audit record before it; nothing but counters has changed."""
    [response] = [send.message for send in decision.sends]
    assert isinstance(response, FetchResponse), response
    [audit] = decision.audit
    assert audit.event == "fetched"
    assert all(":rate:" in put.key.name for put in decision.puts)
    return response


def refused(decision: Decision) -> tuple[Refusal, Audit]:
    """The REFUSAL and what the audit knows; nothing but counters may have changed (section 11)."""
    [refusal] = [send.message for send in decision.sends]
    assert isinstance(refusal, Refusal), refusal
    [audit] = decision.audit
    assert audit.event == "refused"
    assert all(":rate:" in put.key.name for put in decision.puts), "a refusal changed a record"
    assert not decision.wakes
    return refusal, audit


def expect(decision: Decision, check: Check, code: RefusalCode, *, sealed: bool) -> Refusal:
    """It was refused by this check and with this code."""
    refusal, audit = refused(decision)
    assert (audit.check, audit.code) == (check, code)
    assert refusal.code is code
    assert (refusal.sealed is not None) is sealed
    return refusal
