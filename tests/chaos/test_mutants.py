"""The simulator finds what it is there to find: broken handlers, each caught by some seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec
import pytest

from agents.decision import Decision, Input, Put, Records
from agents.handset import leaving
from agents.kms import Kms
from agents.mailbox import handing_out
from agents.runtime import Loop
from chaos.faults import Cast, Faults
from protocol.checks import Check, Refused
from protocol.encoding import BodyMalformed, dec_body, digest
from protocol.evidence import Grant, Holder, MailboxGrant
from protocol.exchange import Hardened, Settlement
from protocol.names import Role, Run
from protocol.profile import HARDENED
from protocol.sealing import Random, SealBroken, down, up
from protocol.secret import Secret
from storage.kms_records import AgreedRun, Agreement, Deposited, Subscriber
from storage.records import Key, Record
from tests.chaos.seeds import assert_found
from topics.bus import Outbound
from topics.messages import Fetch, KeyRequest, OfRun, Settled, run_of

R = TypeVar("R", bound=Record)


class Altered(Records):
    """The records with some others in their place."""

    def __init__(self, records: Records, others: dict[str, Record]) -> None:
        super().__init__(others)
        self._records = records

    def get(self, key: Key[R]) -> R | None:
        return super().get(key) or self._records.get(key)


class SecondK(Kms):
    """A repeated request makes a second K (against OR-10)."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if isinstance(message, KeyRequest):
            records = _changed(message, records, lambda run: msgspec.structs.replace(run, forks=()))
        return super().handle(message, records, now, random)


class CommitFirst(Loop):
    """Offsets are committed before the decisions are written, audited and sent."""

    async def _decide_and_write(self, work: Sequence[Any], now: int) -> tuple[list[Decision], list[Outbound]]:
        self._bus.commit([item.inbound for item in work if item.inbound is not None])
        return await super()._decide_and_write(work, now)


class AnyNonce(Hardened):
    """A handset that does not look for its own nonce in a grant (against OR-21)."""

    def open_grant(
        self, holder: Holder, run: Run, sealed: bytes, *, token: bytes, nonce: bytes, fork: bytes, now: int
    ) -> Grant:
        del nonce
        inside = _nonce_inside(holder, run, sealed, token)
        return super().open_grant(holder, run, sealed, token=token, nonce=inside, fork=fork, now=now)


def _nonce_inside(holder: Holder, run: Run, sealed: bytes, token: bytes) -> bytes:
    label = "grant-a" if holder.role == "caller" else "grant-b"
    context = (*run.clear, holder.key_id, digest(token))
    try:
        return dec_body(down(holder.key, run.suite, holder.role).unseal(label, context, sealed), Grant).nonce
    except SealBroken:
        return b""


class SharedK(Kms):
    """All forks of a call have one K (against section 5)."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if not isinstance(message, KeyRequest):
            return super().handle(message, records, now, random)
        same = digest(message.call)
        return super().handle(message, records, now, lambda n: same if n == len(same) else random(n))


class Hoarder(Kms):
    """SETTLED destroys nobody's key."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        decision = super().handle(message, records, now, random)
        if not isinstance(message, Settled):
            return decision
        before = records.get(Agreement.key_for(message.caller, message.call))
        puts = tuple(_with_keys_of(put, before) for put in decision.puts)
        return replace(decision, puts=puts)


def _with_keys_of(put: Put[Any], before: Agreement | None) -> Put[Any]:
    if not isinstance(put.record, Agreement) or before is None:
        return put
    [old], [new] = before.runs, put.record.runs
    kept = msgspec.structs.replace(new, forks=old.forks, deposit=old.deposit)
    return replace(put, record=Agreement(runs=(kept,)))


class FreshFetch(Kms):
    """A fetch is given a new key."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if isinstance(message, Fetch):
            records = _changed(message, records, lambda run: _fresh(run, random))
        return super().handle(message, records, now, random)


class AnyRecord(Kms):
    """A fetch is served the key of a call, if there is no message (against OR-15)."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if isinstance(message, Fetch):
            records = _changed(message, records, _as_if_deposited)
        return super().handle(message, records, now, random)


class Credulous(Kms):
    """SETTLED is believed from whoever has a key (against OR-17)."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if not isinstance(message, Settled):
            return super().handle(message, records, now, random)
        sender = records.get(Subscriber.key_for(message.caller_key))
        agreement = records.get(Agreement.key_for(message.caller, message.call))
        if sender is None or agreement is None or message.caller in sender.identities:
            return super().handle(message, records, now, random)
        [run] = agreement.runs
        context = (*run_of(message, message.suite).clear, message.caller_key, run.token_a_hash)
        try:
            body = up(sender.key, message.suite, Role.CALLER).unseal("settled", context, message.sealed)
        except SealBroken:
            return super().handle(message, records, now, random)
        nonce = dec_body(body, Settlement).nonce
        believed = {
            Agreement.key_for(message.caller, message.call).name: Agreement(
                runs=(msgspec.structs.replace(run, caller_key=message.caller_key, nonce_a=nonce),)
            ),
            Subscriber.key_for(message.caller_key).name: msgspec.structs.replace(
                sender, identities=(message.caller,)
            ),
        }
        return super().handle(message, Altered(records, believed), now, random)


def _changed(message: OfRun, records: Records, change: Callable[[AgreedRun], AgreedRun]) -> Records:
    """The records with another agreement of this call."""
    key = Agreement.key_for(message.caller, message.call)
    agreement = records.get(key)
    if agreement is None:
        return records
    return Altered(records, {key.name: Agreement(runs=tuple(change(run) for run in agreement.runs))})


def _fresh(run: AgreedRun, random: Random) -> AgreedRun:
    if run.deposit is None:
        return run
    return msgspec.structs.replace(run, deposit=msgspec.structs.replace(run.deposit, key=Secret(random(32))))


def _as_if_deposited(run: AgreedRun) -> AgreedRun:
    live = next((fork for fork in run.forks if fork.key is not None), None)
    if run.deposit is not None or live is None:
        return run
    deposit = Deposited(
        mailbox="sip:voicemail@ims.example",
        mailbox_key="psk:voicemail",
        token_v_hash=bytes(32),
        offer_hash=bytes(32),
        answer_hash=bytes(32),
        key=live.key,
        granted=live.granted,
        not_before=live.not_before,
        not_after=live.not_after,
    )
    return msgspec.structs.replace(run, deposit=deposit)


def any_answer(holder: Holder, run: Run, sealed: bytes, *, token_a: bytes, **_: object) -> MailboxGrant:
    """A caller that does not compare the mailbox's answer with the one that was sealed (against OR-24)."""
    context = (*run.clear, holder.key_id, digest(token_a))
    try:
        body = down(holder.key, run.suite, Role.CALLER).unseal("grant-a", context, sealed)
        return dec_body(body, MailboxGrant)
    except (SealBroken, BodyMalformed):
        raise Refused(Check.OR_20) from None


def any_proof(proof_hash: bytes, proof: bytes) -> None:
    """A mailbox that deletes for anybody (against OR-30)."""
    del proof_hash, proof


def kms(mutant: type[Kms]) -> Cast:
    return Cast(kms=lambda: mutant(HARDENED))


MUTANTS = {
    "second-k-for-a-repeat": (kms(SecondK), "two Ks"),
    "commit-before-send": (Cast(kms_loop=CommitFirst), "committed"),
    "or-21-skipped": (Cast(ue_profile=AnyNonce()), "a K that was not granted"),
    "forks-share-k": (kms(SharedK), "one K for two"),
    "a-fetch-generates": (kms(FreshFetch), "a K that the KMS has no record of"),
    "or-15-a-fetch-of-a-live-call": (kms(AnyRecord), "a fetch has told"),
    "a-losers-key-stays": (kms(Hoarder), "the KMS still holds K of"),
    "or-17-a-loser-settles": (kms(Credulous), "settled for"),
}


def test_or_24_an_answer_of_the_mailbox_that_nobody_checks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "open_mailbox_grant", any_answer)
    assert_found(Cast(), "under an answer that was not sealed", Faults(forge=0.5, away=True))


def test_or_30_a_delete_without_proof_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handing_out, "verify_proof", any_proof)
    assert_found(Cast(), "nobody has proved anything", Faults(insider=1.0, away=True))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_found(name: str) -> None:
    assert_found(*MUTANTS[name])
