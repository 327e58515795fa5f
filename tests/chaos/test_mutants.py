"""The simulator finds what it is there to find: three broken handlers, each caught by some seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agents.decision import Agent, Decision
from agents.kms import Kms
from agents.runtime import Loop
from chaos.invariants import violations
from chaos.simulator import Cast, World
from protocol.encoding import dec_body, digest
from protocol.evidence import Grant, Holder
from protocol.exchange import Hardened
from protocol.names import Run
from protocol.profile import HARDENED
from protocol.sealing import SealBroken, down
from storage.kms_records import AgreedRun, Subscriber
from topics.bus import Outbound

SEEDS = 150


class SecondK(Kms):
    """A repeated request makes a second K (against OR-10)."""

    def _fork_for(self, agreed: AgreedRun, callee: Subscriber, token_b_hash: bytes, now: int) -> None:
        del agreed, callee, token_b_hash, now


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


def second_k() -> Agent:
    return SecondK(HARDENED)


@pytest.mark.parametrize(
    ("cast", "complaint"),
    [
        (Cast(kms=second_k), "two Ks"),
        (Cast(kms_loop=CommitFirst), "committed"),
        (Cast(ue_profile=AnyNonce()), "a K that was not granted"),
    ],
    ids=["second-k-for-a-repeat", "commit-before-send", "or-21-skipped"],
)
def test_a_mutant_is_found(cast: Cast, complaint: str) -> None:
    found = next(
        (
            violation
            for seed in range(SEEDS)
            for violation in violations(World(seed, cast=cast).run())
            if complaint in violation
        ),
        None,
    )
    assert found is not None, f"{SEEDS} seeds and no violation that speaks of {complaint!r}"
