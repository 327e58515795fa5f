"""Every seal of sections 4, 5 and 9, octet for octet, against tests/vectors/otway1.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from protocol.description import Flow, SrtpSuite, read_description
from protocol.encoding import digest
from protocol.evidence import Grant, Holder, Token
from protocol.exchange import Hardened, fork_name, transcript
from protocol.names import Kind, Permit, Role, Run, Suite
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "otway1.json").read_text()
)["vectors"]


def stream(seed: bytes) -> Random:
    """The fixed stream of randomness that the vectors were drawn from."""
    counter, pool = 0, b""

    def draw(octets: int) -> bytes:
        nonlocal counter, pool
        while len(pool) < octets:
            pool += hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
            counter += 1
        drawn, pool = pool[:octets], pool[octets:]
        return drawn

    return draw


@pytest.fixture(params=VECTORS, ids=lambda v: f"suite{v['suite']}-n{v['n']}")
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    value: dict[str, Any] = request.param
    return value


def octets(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def run_of(vector: dict[str, Any]) -> Run:
    return Run(
        call=octets(vector, "C"),
        n=vector["n"],
        caller=vector["ID_A"],
        callee=vector["ID_B"],
        suite=Suite(vector["suite"]),
    )


def nonce_of(seal: bytes) -> Random:
    """A seal draws nothing but its nonce, which stands first in it."""
    return lambda count: seal[:count]


def test_exchange_octet_for_octet(vector: dict[str, Any]) -> None:
    run, profile, now = run_of(vector), Hardened(), vector["now"]
    a = Holder(Role.CALLER, vector["KID"]["A"], Secret(octets(vector, "Ka")))
    b = Holder(Role.CALLEE, vector["KID"]["B"], Secret(octets(vector, "Kb")))
    offer_hash = digest(octets(vector, "offer"))
    permits = tuple(Permit(name) for name in vector["permits"])
    token_a, token_b = octets(vector, "token_a"), octets(vector, "token_b")
    grant_a, grant_b = octets(vector, "grant_a"), octets(vector, "grant_b")
    na, nb, key, fork = (octets(vector, name) for name in ("Na", "Nb", "K", "F"))

    body_a = Token(*run.clear, na, now, permits, offer_hash)
    body_b = Token(*run.clear, nb, now, permits, offer_hash)
    assert profile.seal_token(a, run, body_a, binds=None, random=nonce_of(token_a)) == token_a
    assert profile.seal_token(b, run, body_b, binds=token_a, random=nonce_of(token_b)) == token_b
    assert profile.open_token(a, run, token_a, binds=None) == body_a
    assert profile.open_token(b, run, token_b, binds=token_a) == body_b

    assert fork_name(Secret(octets(vector, "K_F")), run, vector["IMPI_B"]) == fork
    life = (vector["now"], vector["not_before"], vector["not_after"])
    for holder, token, nonce, sealed in ((a, token_a, na, grant_a), (b, token_b, nb, grant_b)):
        grant = Grant(*run.clear, nonce, Secret(key), *life, fork, Kind.PEER)
        assert profile.seal_grant(holder, run, grant, token=token, random=nonce_of(sealed)) == sealed
        assert profile.open_grant(holder, run, sealed, token=token, nonce=nonce, fork=fork, now=now) == grant

    subject = transcript(
        run,
        offer=octets(vector, "offer"),
        answer=octets(vector, "answer"),
        fork=fork,
        token_a=token_a,
        nonce_b=nb,
        grant_a=grant_a,
    )
    assert subject == octets(vector, "transcript")
    assert profile.confirm(Secret(key), Role.CALLEE, subject) == octets(vector, "confirm_b")
    assert profile.confirm(Secret(key), Role.CALLER, subject) == octets(vector, "confirm_a")
    assert profile.bye(Secret(key), Role.CALLER, run, fork) == octets(vector, "bye_a")
    assert profile.bye(Secret(key), Role.CALLEE, run, fork) == octets(vector, "bye_b")
    settled = octets(vector, "settled")
    assert (
        profile.seal_settled(a, run, token_a=token_a, nonce=na, fork=fork, random=nonce_of(settled))
        == settled
    )
    assert profile.open_settled(a, run, settled, token_a_hash=digest(token_a)).fork == fork


def test_the_order_of_draws(vector: dict[str, Any]) -> None:
    """C, then G, come from the seed's stream; so do the nonces, each when its seal is made."""
    drawn = stream(octets(vector, "seed"))
    pool = drawn(65_536)
    for name in ("C", "Na", "Nb", "K"):
        assert octets(vector, name) in pool
    assert octets(vector, "token_a")[:12] in pool


def test_descriptions(vector: dict[str, Any]) -> None:
    offer = read_description(octets(vector, "offer"))
    assert offer.octets == octets(vector, "offer")
    assert offer.flow is Flow.SENDRECV
    assert offer.srtp_suites == tuple(SrtpSuite)


def test_srtp_master_keys(vector: dict[str, Any]) -> None:
    srtp, run = vector["srtp"], run_of(vector)
    ends = {"A to B": (run.caller, run.callee), "B to A": (run.callee, run.caller)}
    seen = 0
    for label, expected in srtp.items():
        suite, _, rest = label.partition(" ")
        direction, _, root = rest.partition(" under ")
        if root != "K":
            continue
        sender, receiver = ends[direction]
        master = srtp_master(
            Secret(octets(vector, "K")),
            SrtpSuite(suite),
            sender=sender,
            receiver=receiver,
            media_line=srtp["media_line"],
            ssrc=srtp["ssrc"],
            n=run.n,
        )
        assert (master.key.reveal().hex(), master.salt.reveal().hex()) == (expected["key"], expected["salt"])
        seen += 1
    assert seen == 4
