"""The key management server: S in the exchange.

    B   -> KMS  REQUEST   C, n, ID-A, ID-B, KID-A, KID-B, suite, token_a, token_b
    KMS -> B    RESPONSE  C, n, F, grant_a, grant_b          or REFUSAL
    A   -> KMS  SETTLED   C, n, ID-A, ID-B, KID-A, suite, sealed      answered by SETTLED-OK
    UE  -> KMS  ATTACH    B-TID                              agents/attaching.py

It holds no state of its own: subscribers' keys and what was granted are records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from agents import attaching
from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, Send, to_device
from agents.rates import Rates
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.evidence import Grant, Holder, Token
from protocol.exchange import fork_name
from protocol.limits import FORKS_MAX, LIFE_S, RING_S, SEEN_S, SKEW_S
from protocol.names import MASTER_KEY_OCTETS, Kind, Role, Run, Suite
from protocol.profile import Profile
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.sharding import call_key
from storage.kms_records import AgreedRun, Agreement, Fork, PendingAttach, Rate, Site, Subscriber
from topics.catalogue import AUDIT, Party
from topics.messages import (
    Attach,
    Audit,
    AuditEvent,
    KeyRequest,
    KeyResponse,
    Refusal,
    Settled,
    SettledOk,
    ZnResponse,
    clear,
    run_of,
)


@dataclass(frozen=True, slots=True)
class KmsSettings:
    """What an operator may choose."""

    suites: frozenset[Suite] = frozenset(Suite)
    """The suites that are allowed; a request under another one is refused as `unsupported`."""
    key_requests_per_s: int = 50
    """Requests a second of one key id, as caller and as callee together (OR-11)."""
    host_requests_per_s: int = 1000
    """Requests a second of one UE host that do not open, or come before there is a key (OR-11)."""


@dataclass(slots=True)
class _Hearing:
    """One REQUEST as far as it has been judged: what a refusal may still tell the requester."""

    run: Run
    rates: Rates
    callee: Holder | None = None
    token_b: Token | None = None  # set once it has opened


@dataclass(frozen=True, slots=True)
class _Judged:
    """A REQUEST that may be answered."""

    agreement: Agreement
    fork: Fork
    caller: Holder
    callee: Holder
    token_a: Token
    token_b: Token
    expires: int


class Kms:
    """Draws K once for each run and answering device, and seals it to the two that proved themselves."""

    party: ClassVar[Party] = Party.KMS
    accepts: ClassVar[frozenset[type]] = frozenset({KeyRequest, Settled, Attach, ZnResponse})

    def __init__(self, profile: Profile, settings: KmsSettings = KmsSettings()) -> None:
        self._profile = profile
        self._settings = settings

    def reads(self, message: Input) -> Keys:
        match message:
            case KeyRequest():
                return (
                    Site.key(),
                    Subscriber.key_for(message.caller_key),
                    Subscriber.key_for(message.callee_key),
                    Agreement.key_for(message.caller, message.call),
                    Rate.key_for(f"kid {message.caller_key}"),
                    Rate.key_for(f"kid {message.callee_key}"),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case Settled():
                return (
                    Subscriber.key_for(message.caller_key),
                    Agreement.key_for(message.caller, message.call),
                )
            case Attach():
                return (
                    Site.key(),
                    Subscriber.key_for(message.btid),
                    PendingAttach.key_for(message.btid),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case ZnResponse():
                return (Site.key(), Subscriber.key_for(message.btid), PendingAttach.key_for(message.btid))
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        match message:
            case KeyRequest():
                return self._key_request(message, records, now, random)
            case Settled():
                return self._settled(message, records, now)
            case Attach():
                return attaching.attach(
                    message, records, now, random, most=self._settings.host_requests_per_s
                )
            case ZnResponse():
                return attaching.handed_over(message, records, now, random)
            case _:
                return NOTHING

    # REQUEST

    def _key_request(self, request: KeyRequest, records: Records, now: int, random: Random) -> Decision:
        hearing = _Hearing(run_of(request, request.suite), Rates(records, now))
        try:
            judged = self._judge(hearing, request, records, now, random)
        except Refused as refused:
            return self._refuse(hearing, request, refused, now, random)
        return self._grant(hearing, request, judged, now, random)

    def _judge(
        self, hearing: _Hearing, request: KeyRequest, records: Records, now: int, random: Random
    ) -> _Judged:
        """The request with the fork that answers it. Raises Refused."""
        run, rates, settings = hearing.run, hearing.rates, self._settings
        host = f"host {request.sender.host}"
        rates.admit(host, settings.host_requests_per_s)  # OR-11
        try:
            if run.suite not in settings.suites:
                raise Refused(Check.OR_01, RefusalCode.UNSUPPORTED, "suite")
            callee, callee_record = self._holder(records, request.callee_key, run.callee, Role.CALLEE, now)
            token_b = self._profile.open_token(callee, run, request.token_b, binds=request.token_a)  # OR-05
        except Refused:
            rates.count(host)
            raise
        hearing.callee, hearing.token_b = callee, token_b
        rates.admit(f"kid {callee.key_id}", settings.key_requests_per_s)  # OR-11
        rates.count(f"kid {callee.key_id}")
        caller, caller_record = self._holder(records, request.caller_key, run.caller, Role.CALLER, now)
        if run.caller == run.callee or caller.key_id == callee.key_id:  # OR-08
            raise Refused(Check.OR_08)
        token_a = self._profile.open_token(caller, run, request.token_a, binds=None)  # OR-04
        rates.admit(f"kid {caller.key_id}", settings.key_requests_per_s)  # OR-11
        rates.count(f"kid {caller.key_id}")
        self._profile.compare(run, token_a, token_b, now)  # OR-06, OR-07, OR-09, OR-12

        site = records.get(Site.key())
        made = min(token_a.time, token_b.time)
        if site is None or (made < site.founded and not self._profile.lab_only):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.STALE)
        if run.n != 0:  # OR-15: renewal is not built yet, and no first run has another number
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        agreement = records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
        agreed = next((known for known in agreement.runs if known.n == run.n), None)
        if agreed is None:
            agreed = AgreedRun(
                n=run.n,
                suite=run.suite,
                callee=run.callee,
                caller_key=caller.key_id,
                token_a_hash=digest(request.token_a),
                nonce_a=token_a.nonce,
                forks=(),
            )
        if agreed.token_a_hash != digest(request.token_a):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        fork = self._fork_for(agreed, callee_record, digest(request.token_b), now)
        if fork is None:
            if agreed.settled is not None:  # OR-10
                raise Refused(Check.OR_10, RefusalCode.REPLAY)
            if len(agreed.forks) >= FORKS_MAX:  # OR-11
                raise Refused(Check.OR_11, RefusalCode.TOO_MANY)
            fork = Fork(
                name=fork_name(site.fork_key, run, callee_record.impi),
                impi=callee_record.impi,
                callee_key=callee.key_id,
                token_b_hash=digest(request.token_b),
                key=Secret(random(MASTER_KEY_OCTETS)),
                granted=now,
                not_before=now - SKEW_S,
                not_after=min(now + LIFE_S, caller_record.not_after, callee_record.not_after),
            )
            agreed = msgspec.structs.replace(agreed, forks=(*agreed.forks, fork))
        others = tuple(known for known in agreement.runs if known.n != run.n)
        return _Judged(
            agreement=Agreement(runs=(*others, agreed)),
            fork=fork,
            caller=caller,
            callee=callee,
            token_a=token_a,
            token_b=token_b,
            expires=max(fork.not_after, now + SEEN_S + SKEW_S),
        )

    def _holder(
        self, records: Records, key_id: str, identity: str, role: Role, now: int
    ) -> tuple[Holder, Subscriber]:
        """The holder of a KID that may act as the identity now. Raises Refused."""
        subscriber = records.get(Subscriber.key_for(key_id))
        if subscriber is None or subscriber.revoked:  # OR-02
            raise Refused(Check.OR_02)
        if not subscriber.not_before <= now <= subscriber.not_after:  # OR-02
            raise Refused(Check.OR_02, RefusalCode.EXPIRED_KEY)
        if identity not in subscriber.identities:  # OR-03
            raise Refused(Check.OR_03, RefusalCode.NOT_AUTHORISED)
        return Holder(role, key_id, subscriber.key), subscriber

    def _fork_for(self, agreed: AgreedRun, callee: Subscriber, token_b_hash: bytes, now: int) -> Fork | None:
        """The fork that this very token_b has been given already; None for a new device. Raises Refused."""
        fork = next((known for known in agreed.forks if known.callee_key == callee.key_id), None)
        if fork is None:
            if any(known.impi == callee.impi for known in agreed.forks):  # OR-15: made for its other KID
                raise Refused(Check.OR_15, RefusalCode.REPLAY)
            return None
        if fork.token_b_hash != token_b_hash:  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        ends = fork.not_after if agreed.settled == fork.name else min(fork.not_after, fork.granted + RING_S)
        if fork.key is None or now > ends:  # OR-10: ended, and never made anew
            raise Refused(Check.OR_10, RefusalCode.EXPIRED)
        return fork

    def _grant(
        self, hearing: _Hearing, request: KeyRequest, judged: _Judged, now: int, random: Random
    ) -> Decision:
        run, fork = hearing.run, judged.fork
        assert fork.key is not None  # _fork_for refuses what was destroyed
        grant_a, grant_b = (
            self._profile.seal_grant(
                holder,
                run,
                Grant(
                    *run.clear,
                    nonce=token.nonce,
                    key=fork.key,
                    now=now,
                    not_before=fork.not_before,
                    not_after=fork.not_after,
                    fork=fork.name,
                    kind=Kind.PEER,
                ),
                token=sealed_token,
                random=random,
            )
            for holder, token, sealed_token in (
                (judged.caller, judged.token_a, request.token_a),
                (judged.callee, judged.token_b, request.token_b),
            )
        )
        granted = Audit(
            id=digest(enc("granted", *run.clear, fork.callee_key)),
            event=AuditEvent.GRANTED,
            at=fork.granted,
            caller_key=judged.caller.key_id,
            callee_key=fork.callee_key,
            fork=fork.name,
            not_after=fork.not_after,
            **clear(run),
        )
        response = KeyResponse(
            fork=fork.name,
            grant_a=grant_a,
            grant_b=grant_b,
            to=request.sender.device,
            **clear(run),
        )
        return Decision(
            puts=(
                Put(Agreement.key_for(run.caller, run.call), judged.agreement, judged.expires),
                *hearing.rates.puts(),
            ),
            audit=(granted,),  # OR-16: the loop has it acknowledged before anything is sent
            sends=(to_device(request.sender, response),),
        )

    def _refuse(
        self, hearing: _Hearing, request: KeyRequest, refused: Refused, now: int, random: Random
    ) -> Decision:
        run, sealed = hearing.run, None
        if hearing.callee is not None and hearing.token_b is not None:
            sealed = self._profile.seal_refusal(
                hearing.callee,
                run,
                refused.code,
                token=request.token_b,
                nonce=hearing.token_b.nonce,
                random=random,
            )
        refusal = Refusal(
            code=refused.code,
            sealed=sealed,
            to=request.sender.device,
            **clear(run),
        )
        noted = Audit(
            id=digest(enc("refused", *run.clear, digest(request.token_b), refused.check)),
            event=AuditEvent.REFUSED,
            at=now,
            caller_key=request.caller_key,
            callee_key=request.callee_key,
            check=refused.check,
            code=refused.code,
            **clear(run),
        )
        return Decision(
            puts=hearing.rates.puts(), audit=(noted,), sends=(to_device(request.sender, refusal),)
        )

    # SETTLED

    def _settled(self, settled: Settled, records: Records, now: int) -> Decision:
        run = run_of(settled, settled.suite)
        about = clear(run)
        try:
            agreement, fork = self._settle(run, settled, records, now)
        except Refused as refused:
            noted = Audit(
                id=digest(enc("refused", *run.clear, digest(settled.sealed), refused.check)),
                event=AuditEvent.REFUSED,
                at=now,
                caller_key=settled.caller_key,
                check=refused.check,
                code=refused.code,
                **about,
            )
            refusal = Refusal(code=refused.code, sealed=None, to=settled.sender.device, **about)
            return Decision(audit=(noted,), sends=(to_device(settled.sender, refusal),))
        noted = Audit(
            id=digest(enc("settled", *run.clear)),
            event=AuditEvent.SETTLED,
            at=now,
            caller_key=settled.caller_key,
            fork=fork.name,
            **about,
        )
        key = Agreement.key_for(run.caller, run.call)
        return Decision(
            puts=(Put(key, agreement, max(fork.not_after, fork.granted + SEEN_S + SKEW_S)),),
            audit=(noted,),
            sends=(to_device(settled.sender, SettledOk(to=settled.sender.device, **about)),),
        )

    def _settle(self, run: Run, settled: Settled, records: Records, now: int) -> tuple[Agreement, Fork]:
        """The agreement without the losers' keys, and the winner. Raises Refused."""
        agreement = records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
        agreed = next((known for known in agreement.runs if known.n == run.n), None)
        caller, _ = self._holder(records, settled.caller_key, run.caller, Role.CALLER, now)
        if agreed is None or agreed.caller_key != caller.key_id or agreed.callee != run.callee:  # OR-17
            raise Refused(Check.OR_17, RefusalCode.NOT_FOUND)
        body = self._profile.open_settled(caller, run, settled.sealed, token_a_hash=agreed.token_a_hash)
        if (body.call, body.n, body.nonce) != (run.call, run.n, agreed.nonce_a):  # OR-17
            raise Refused(Check.OR_17)
        winner = next((fork for fork in agreed.forks if fork.name == body.fork), None)
        if winner is None or agreed.settled not in {None, body.fork}:  # OR-17
            raise Refused(Check.OR_17)
        forks = tuple(
            fork if fork is winner else msgspec.structs.replace(fork, key=None) for fork in agreed.forks
        )
        others = tuple(known for known in agreement.runs if known.n != run.n)
        ended = msgspec.structs.replace(agreed, forks=forks, settled=winner.name)
        return Agreement(runs=(*others, ended)), winner


def audit_send(audit: Audit) -> Send:
    """Where an audit record goes: keyed by its call, or by the key id that it is about."""
    about = call_key(audit.caller or "", audit.call) if audit.call else (audit.key_id or audit.impi or "")
    return Send(AUDIT, about, audit)
