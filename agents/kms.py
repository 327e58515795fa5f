"""The key management server: S in the exchange.

    B   -> KMS  REQUEST   C, n, ID-A, ID-B, KID-A, KID-B, suite, token_a, token_b
    KMS -> B    RESPONSE  C, n, F, grant_a, grant_b          or REFUSAL
    A   -> KMS  SETTLED   C, n, ID-A, ID-B, KID-A, suite, sealed      agents/granting/settling.py
    V   -> KMS  DEPOSIT   a message is left                           agents/granting/deferring.py
    B   -> KMS  FETCH     and heard
    C   -> KMS  GROUP     the next epoch of a conference              agents/granting/grouping.py
    T   -> KMS  RELEASE   keys for the legs of a transcoded call      agents/granting/releasing.py
    UE  -> KMS  ATTACH    B-TID                                       agents/granting/attaching.py
    custodian -> KMS      WITHDRAW                                    agents/granting/withdrawing.py

It holds no state of its own: subscribers' keys and what was granted are records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from agents.alarms import EpochEnds, KeysEnd
from agents.decision import NOTHING, Decision, Input, Keys, Records, Send, to_device
from agents.granting import attaching, deferring, epoch_keys, grouping, releasing, settling, withdrawing
from agents.granting.hearing import Hearing, KmsSettings
from agents.granting.uses import note_call, uses_keys
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.evidence import Grant, Holder, Token
from protocol.exchange import fork_name
from protocol.limits import FORKS_MAX, LIFE_S, SKEW_S
from protocol.names import MASTER_KEY_OCTETS, Kind, Role, Suite
from protocol.profile import Profile
from protocol.sealing import Random, down_key
from protocol.secret import Secret
from protocol.sharding import call_key
from storage.kms_records import AgreedRun, Agreement, Fork, Group, PendingAttach, Rate, Site, Subscriber
from topics.catalogue import AUDIT, Party
from topics.messages import (
    Attach,
    Audit,
    AuditEvent,
    Deposit,
    Fetch,
    GroupRequest,
    KeyRequest,
    KeyResponse,
    OfRun,
    Release,
    Settled,
    Withdraw,
    WithdrawMember,
    ZnResponse,
    clear,
    run_of,
)

__all__ = ["Kms", "KmsSettings", "audit_send"]


@dataclass(frozen=True, slots=True)
class _Judged:
    """A REQUEST that may be answered."""

    agreement: Agreement
    fork: Fork
    caller: Holder
    callee: Holder
    token_a: Token
    token_b: Token


class Kms:
    """Draws K once for each run and answering device, and seals it to the two that proved themselves."""

    party: ClassVar[Party] = Party.KMS
    accepts: ClassVar[frozenset[type]] = frozenset(
        {
            KeyRequest,
            Settled,
            Deposit,
            Fetch,
            Attach,
            ZnResponse,
            Release,
            Withdraw,
            GroupRequest,
            WithdrawMember,
        }
    )

    def __init__(self, profile: Profile, settings: KmsSettings | None = None) -> None:
        self._profile = profile
        self._settings = settings or KmsSettings()

    def reads(self, message: Input) -> Keys:
        match message:
            case KeyRequest():
                return (
                    *_keys_of(message, message.caller_key, message.callee_key),
                    *uses_keys(
                        call_key(message.caller, message.call), message.caller_key, message.callee_key
                    ),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case Fetch():
                return (
                    *_keys_of(message, message.caller_key, message.callee_key),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case Deposit():
                return (
                    *_keys_of(message, message.caller_key, message.mailbox_key),
                    *uses_keys(call_key(message.caller, message.call), message.caller_key),
                    Rate.key_for(f"mailbox {message.mailbox}"),
                )
            case Settled():
                return (
                    Subscriber.key_for(message.caller_key),
                    Agreement.key_for(message.caller, message.call),
                    Rate.key_for(f"kid {message.caller_key}"),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case Release():
                return (
                    Site.key(),
                    Subscriber.key_for(message.transcoder_key),
                    Agreement.key_for(message.caller, message.call),
                    Rate.key_for(f"kid {message.transcoder_key}"),
                    Rate.key_for(f"transcoder {message.transcoder}"),
                    *uses_keys(call_key(message.caller, message.call), message.transcoder_key),
                )
            case KeysEnd():
                return (Agreement.key_for(message.caller, message.call),)
            case Withdraw():
                agreement = Agreement.key_for(message.caller, message.call)
                key_id = message.key_id
                return (agreement,) if key_id is None else (agreement, Subscriber.key_for(key_id))
            case Attach():
                return (
                    Site.key(),
                    Subscriber.key_for(message.btid),
                    PendingAttach.key_for(message.btid),
                    Rate.key_for(f"host {message.sender.host}"),
                )
            case GroupRequest():
                return grouping.reads(message)
            case EpochEnds():
                return (Group.key_for(message.focus, message.group),)
            case WithdrawMember():
                return (Group.key_for(message.focus, message.group), Subscriber.key_for(message.key_id))
            case ZnResponse():
                return (Site.key(), Subscriber.key_for(message.btid), PendingAttach.key_for(message.btid))
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        match message:
            case KeyRequest():
                hearing = self._hearing(message, message.suite, message.token_b, records, now)
                return _key_request(hearing, message, random)
            case Deposit():
                hearing = self._hearing(message, message.suite, message.token_v, records, now)
                return deferring.deposit(hearing, message, random)
            case Fetch():
                hearing = self._hearing(message, message.suite, message.token_f, records, now)
                return deferring.fetch(hearing, message, random)
            case Release():
                hearing = self._hearing(message, message.suite, message.token_t, records, now)
                return releasing.release(hearing, message, random)
            case Settled():
                hearing = self._hearing(message, message.suite, message.sealed, records, now)
                decision, said = settling.settle(hearing, message, random)
                if said is None:
                    return decision
                return decision + withdrawing.settled_too_late(message, said, random)
            case Withdraw():
                return withdrawing.withdraw(message, records, now, random)
            case KeysEnd():
                return settling.keys_end(message, records, now)
            case Attach():
                return attaching.attach(
                    message, records, now, random, most=self._settings.host_requests_per_s
                )
            case GroupRequest():
                return grouping.group(self._profile, self._settings, message, records, now, random)
            case EpochEnds():
                return epoch_keys.epoch_ends(message, records, now)
            case WithdrawMember():
                return epoch_keys.withdraw(message, records, now)
            case ZnResponse():
                return attaching.handed_over(message, records, now, random)
            case _:
                return NOTHING

    def _hearing(self, message: OfRun, suite: Suite, token: bytes, records: Records, now: int) -> Hearing:
        return Hearing(self._profile, self._settings, run_of(message, suite), token, records, now)


def _keys_of(message: OfRun, caller_key: str, requester_key: str) -> Keys:
    """What is read for every request of a run."""
    return (
        Site.key(),
        Subscriber.key_for(caller_key),
        Subscriber.key_for(requester_key),
        Agreement.key_for(message.caller, message.call),
        Rate.key_for(f"kid {caller_key}"),
        Rate.key_for(f"kid {requester_key}"),
    )


# REQUEST


def _key_request(hearing: Hearing, request: KeyRequest, random: Random) -> Decision:
    try:
        judged = _judge(hearing, request, random)
    except Refused as refused:
        named = {"caller_key": request.caller_key, "callee_key": request.callee_key}
        return hearing.refuse(refused, random, to=request.sender, named=named)
    return _grant(hearing, request, judged, random)


def _judge(hearing: Hearing, request: KeyRequest, random: Random) -> _Judged:
    """The request with the fork that answers it. Raises Refused."""
    run, profile = hearing.run, hearing.profile
    with hearing.opening(f"host {request.sender.host}"):
        callee, device = hearing.holder(request.callee_key, run.callee, Role.CALLEE)
        token_b = profile.open_token(callee, run, request.token_b, binds=request.token_a)  # OR-05
    hearing.opened(callee, token_b.nonce)
    caller, caller_record = hearing.holder(request.caller_key, run.caller, Role.CALLER)
    if run.caller == run.callee or caller.key_id == callee.key_id:  # OR-08
        raise Refused(Check.OR_08)
    token_a = profile.open_token(caller, run, request.token_a, binds=None)  # OR-04
    hearing.count(caller)
    profile.compare(run, token_a, token_b, hearing.now)  # OR-06, OR-07, OR-09, OR-12

    site = hearing.site(token_a.time, token_b.time)
    agreement, agreed = hearing.agreed(caller, request.token_a, token_a, devices=(caller_record, device))
    fork = _fork_for(agreed, device, digest(request.token_b), hearing.now)
    if fork is None:
        if agreed.settled is not None:  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        if len(agreed.forks) >= FORKS_MAX:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)
        life_s = min(hearing.settings.life_s, LIFE_S)
        fork = Fork(
            name=fork_name(site.fork_key, run, device.impi),
            impi=device.impi,
            callee_key=callee.key_id,
            token_b_hash=digest(request.token_b),
            key=Secret(random(MASTER_KEY_OCTETS)),
            granted=hearing.now,
            not_before=hearing.now - SKEW_S,
            not_after=min(hearing.now + life_s, caller_record.not_after, device.not_after),
            nonce_b=token_b.nonce,
            notify_b=down_key(callee.key, run.suite, Role.CALLEE),
            permits_b=token_b.permits,
        )
        settled = fork.name if run.n else None  # a later run has no other device
        agreed = msgspec.structs.replace(agreed, forks=(*agreed.forks, fork), settled=settled)
    return _Judged(settling.with_run(agreement, agreed), fork, caller, callee, token_a, token_b)


def _fork_for(agreed: AgreedRun, device: Subscriber, token_b_hash: bytes, now: int) -> Fork | None:
    """The fork that this very token_b has been given already; None for a new device. Raises Refused."""
    fork = next((known for known in agreed.forks if known.callee_key == device.key_id), None)
    if fork is None:
        if any(known.impi == device.impi for known in agreed.forks):  # OR-15: made for its other KID
            raise Refused(Check.OR_15, RefusalCode.REPLAY)
        return None
    if fork.token_b_hash != token_b_hash:  # OR-10
        raise Refused(Check.OR_10, RefusalCode.REPLAY)
    if fork.key is None or now > settling.ends_at(agreed, fork):  # OR-10: ended, and never made anew
        raise Refused(Check.OR_10, RefusalCode.EXPIRED)
    return fork


def _grant(hearing: Hearing, request: KeyRequest, judged: _Judged, random: Random) -> Decision:
    run, fork = hearing.run, judged.fork
    assert fork.key is not None  # _fork_for refuses what was destroyed
    grant_a, grant_b = (
        hearing.profile.seal_grant(
            holder,
            run,
            Grant(
                *run.clear,
                nonce=token.nonce,
                key=fork.key,
                now=hearing.now,
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
    kept = settling.keep(run.caller, run.call, judged.agreement, hearing.now)
    key_ids = (judged.caller.key_id, fork.callee_key)
    noted = note_call(hearing.records, run, key_ids, fork.not_after, hearing.now)
    return (
        kept
        + noted
        + Decision(
            puts=hearing.rates.puts(),
            audit=(granted,),  # OR-16: the loop has it acknowledged before anything is sent
            sends=(to_device(request.sender, response),),
        )
    )


def audit_send(audit: Audit) -> Send:
    """Where an audit record goes: keyed by its call or conference, or by the key id that it is about."""
    if audit.group:
        return Send(AUDIT, audit.group.hex(), audit)
    about = call_key(audit.caller or "", audit.call) if audit.call else (audit.key_id or audit.impi or "")
    return Send(AUDIT, about, audit)
