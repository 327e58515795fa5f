"""Legs to test with."""

from __future__ import annotations

import random
from typing import Any, Protocol

import msgspec
import pytest

from media.leg import Leg, MediaAddress
from protocol.description import Flow, SrtpSuite
from protocol.sealing import Random
from protocol.secret import Secret

ALICE = Leg(
    session="alice's",
    line=0,
    root=Secret(bytes(range(32))),
    suite=SrtpSuite.AEAD_AES_256_GCM,
    codec="PCMU",
    local="sip:alice@ims.example",
    remote="sip:bob@ims.example",
    remote_address=MediaAddress("127.0.0.1", 9),
    media_line=0,
    n=1,
    flow=Flow.SENDRECV,
    lifetime_s=3600,
)


class MakeLeg(Protocol):
    def __call__(self, leg: Leg = ALICE, **changes: Any) -> Leg: ...


@pytest.fixture(params=list(SrtpSuite))
def suite(request: pytest.FixtureRequest) -> SrtpSuite:
    value: SrtpSuite = request.param
    return value


@pytest.fixture
def alice() -> Leg:
    """Alice's end of a call with Bob."""
    return ALICE


@pytest.fixture
def bob() -> Leg:
    """Bob's end of the same call."""
    return msgspec.structs.replace(ALICE, session="bob's", local=ALICE.remote, remote=ALICE.local)


@pytest.fixture
def draw() -> Random:
    """Random octets from a seed."""
    return random.Random(7).randbytes
