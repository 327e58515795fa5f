"""Which keys of a call are kept, and until when (section 5).

    A -> KMS  SETTLED  C, n, ID-A, ID-B, KID-A, suite, sealed    F of the device that A took, nil: the mailbox

The keys of all others are destroyed at once, and any key by an alarm when its time is over. The record stays
a while longer, so that a token that may still be accepted is still remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from agents.alarms import KeysEnd
from agents.decision import NOTHING, Decision, Put, Records, Wake, to_device
from agents.granting.hearing import Hearing
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest, enc
from protocol.evidence import Holder
from protocol.limits import RING_S, SEEN_S, SKEW_S
from protocol.names import Role
from protocol.sealing import Random
from protocol.sharding import call_key
from storage.kms_records import AgreedRun, Agreement, Deposited, Fork, Subscriber
from topics.messages import Audit, AuditEvent, Settled, SettledOk, clear

MAILBOX: Final = b""  # AgreedRun.settled of a run whose caller took the mailbox


def settle(hearing: Hearing, settled: Settled, random: Random) -> tuple[Decision, AgreedRun | None]:
    """SETTLED: the caller says whose answer it took; the first one counts. Returns the run as well, if these
    are the caller's own words, whatever becomes of them."""
    run, said = hearing.run, None
    try:
        said = _said(hearing, settled)
        agreement, agreed = _settled(hearing, settled, *said)
    except Refused as refused:
        named = {"caller_key": settled.caller_key}
        return hearing.refuse(refused, random, to=settled.sender, named=named), said and said[1]
    noted = Audit(
        id=digest(enc("settled", *run.clear)),
        event=AuditEvent.SETTLED,
        at=hearing.now,
        caller_key=settled.caller_key,
        fork=agreed.settled or None,
        mailbox=agreed.deposit.mailbox if agreed.settled == MAILBOX and agreed.deposit is not None else None,
        **clear(run),
    )
    answer = to_device(settled.sender, SettledOk(to=settled.sender.device, **clear(run)))
    kept = keep(run.caller, run.call, with_run(agreement, agreed), hearing.now)
    return kept + Decision(puts=hearing.rates.puts(), audit=(noted,), sends=(answer,)), agreed


def _said(hearing: Hearing, settled: Settled) -> tuple[Agreement, AgreedRun, bytes]:
    """What was granted of this call and of this run, and whose answer the caller says that it took. Whether
    its key id is still good is not looked at here. Raises Refused."""
    run, records = hearing.run, hearing.records
    with hearing.opening(f"host {settled.sender.host}"):
        subscriber = records.get(Subscriber.key_for(settled.caller_key))
        if subscriber is None:  # OR-02
            raise Refused(Check.OR_02)
        agreement = records.get(Agreement.key_for(run.caller, run.call)) or Agreement()
        agreed = next((known for known in agreement.runs if known.n == run.n), None)
        caller = Holder(Role.CALLER, settled.caller_key, subscriber.key)
        if agreed is None or agreed.caller_key != caller.key_id or agreed.callee != run.callee:  # OR-17
            raise Refused(Check.OR_17, RefusalCode.NOT_FOUND)
        body = hearing.profile.open_settled(caller, run, settled.sealed, token_a_hash=agreed.token_a_hash)
        if (body.call, body.n, body.nonce) != (run.call, run.n, agreed.nonce_a):  # OR-17
            raise Refused(Check.OR_17)
    hearing.count(caller)
    return agreement, agreed, MAILBOX if body.fork is None else body.fork


def _settled(
    hearing: Hearing, settled: Settled, agreement: Agreement, agreed: AgreedRun, winner: bytes
) -> tuple[Agreement, AgreedRun]:
    """The same, the run without the losers' keys. Raises Refused."""
    hearing.holder(settled.caller_key, hearing.run.caller, Role.CALLER)
    if winner not in {_name(made) for made in made_in(agreed)}:  # OR-17
        raise Refused(Check.OR_17)
    if agreed.settled not in {None, winner}:  # OR-17
        raise Refused(Check.OR_17)
    alone = _without(_alive(agreed, hearing.now), lambda made: _name(made) != winner)
    return agreement, msgspec.structs.replace(alone, settled=winner)


def keys_end(alarm: KeysEnd, records: Records, now: int) -> Decision:
    """The time of one of the call's keys is over."""
    agreement = records.get(Agreement.key_for(alarm.caller, alarm.call))
    return NOTHING if agreement is None else keep(alarm.caller, alarm.call, agreement, now)


def keep(caller: str, call: bytes, agreement: Agreement, now: int) -> Decision:
    """Write what was granted of a call, without what is over, and see to the end of the next key."""
    kept = msgspec.structs.replace(agreement, runs=_remembered(agreement.runs, now))
    ends = _ends(kept)
    forgotten = forgotten_at(kept)
    key, about = Agreement.key_for(caller, call), call_key(caller, call)
    if now >= forgotten:
        return Decision(puts=(Put(key, None),))
    at = min(ends, default=forgotten)
    return Decision(
        puts=(Put(key, kept, forgotten),),
        wakes=(Wake(f"keys-end {about}", about, at, KeysEnd(caller, call)),),
    )


def forgotten_at(agreement: Agreement) -> int:
    """When no key of the call is left, and no token of it can be accepted any more (OR-10)."""
    return max((*_ends(agreement), *(_seen_until(agreed) for agreed in agreement.runs)))


def _ends(agreement: Agreement) -> list[int]:
    """When each key that is left will be over."""
    return [
        ends_at(agreed, made) + 1
        for agreed in agreement.runs
        for made in made_in(agreed)
        if made.key is not None
    ]


def _seen_until(agreed: AgreedRun) -> int:
    """How long the run is remembered: its tokens, and that its ends are to be told that it was withdrawn."""
    return max(max(made.granted, made.withdrawn) for made in made_in(agreed)) + SEEN_S + SKEW_S


def _remembered(runs: tuple[AgreedRun, ...], now: int) -> tuple[AgreedRun, ...]:
    """Without the keys whose time is over; a run that has none is forgotten, but for the greatest, from which
    a renewal goes on (OR-15)."""
    alive = tuple(_alive(agreed, now) for agreed in runs)
    greatest = max(agreed.n for agreed in alive)
    return tuple(
        agreed
        for agreed in alive
        if agreed.n == greatest
        or now < _seen_until(agreed)
        or any(made.key is not None for made in made_in(agreed))
    )


def ends_at(agreed: AgreedRun, made: Fork | Deposited) -> int:
    """The last second of a key: a device's that was not settled for has RING_S from its grant (section 5)."""
    if isinstance(made, Deposited) or made.name == agreed.settled:
        return made.not_after
    return min(made.not_after, made.granted + RING_S)


def with_run(agreement: Agreement, agreed: AgreedRun) -> Agreement:
    """The same with this run as it now stands."""
    others = (known for known in agreement.runs if known.n != agreed.n)
    return msgspec.structs.replace(agreement, runs=(*others, agreed))


def made_in(agreed: AgreedRun) -> tuple[Fork | Deposited, ...]:
    """All that a run has keys for, or had."""
    return agreed.forks if agreed.deposit is None else (*agreed.forks, agreed.deposit)


def _name(made: Fork | Deposited) -> bytes:
    return made.name if isinstance(made, Fork) else MAILBOX


def _without(agreed: AgreedRun, over: Callable[[Fork | Deposited], bool]) -> AgreedRun:
    """The run with the keys destroyed that are over."""
    forks = tuple(msgspec.structs.replace(fork, key=None) if over(fork) else fork for fork in agreed.forks)
    deposit = agreed.deposit
    if deposit is not None and over(deposit):
        deposit = msgspec.structs.replace(deposit, key=None)
    return msgspec.structs.replace(agreed, forks=forks, deposit=deposit)


def _alive(agreed: AgreedRun, now: int) -> AgreedRun:
    """The run without keys whose time is over."""
    return _without(agreed, lambda made: now > ends_at(agreed, made))
