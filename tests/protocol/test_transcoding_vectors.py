"""Every seal of section 7, octet for octet, against tests/vectors/otway1.json."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import transcoding
from protocol.checks import Check, RefusalCode, Refused
from protocol.description import SrtpSuite
from protocol.evidence import Holder, LegGrant, Notice, TranscoderToken
from protocol.names import NoticeKind, Role
from protocol.sealing import down_key
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master
from tests.protocol.test_vectors import nonce_of, octets, run_of, vector

__all__ = ["vector"]


def test_a_release_octet_for_octet(vector: dict[str, Any]) -> None:
    told, now, transcoder = vector["transcoder"], vector["now"], vector["ID_T"]
    run, fork = run_of(vector), octets(vector, "F")
    holder = Holder(Role.TRANSCODER, vector["KID"]["T"], Secret(octets(vector, "Kt")))
    nonce, token_t, grant_t = (octets(told, name) for name in ("Nt", "token_t", "grant_t"))

    body = TranscoderToken(run.call, run.n, fork, run.caller, run.callee, transcoder, nonce, now)
    sealed = transcoding.seal_transcoder_token(holder, run, body, random=nonce_of(token_t))
    assert sealed == token_t
    assert transcoding.open_transcoder_token(holder, run, fork, transcoder, token_t) == body
    transcoding.compare_release(run, fork, transcoder, body, now)

    key = Secret(octets(vector, "K"))
    leg_a, leg_b = (
        transcoding.leg_key(key, run, fork, transcoder, identity) for identity in (run.caller, run.callee)
    )
    assert (leg_a.reveal(), leg_b.reveal()) == (octets(told, "L_A"), octets(told, "L_B"))
    grant = LegGrant(
        run.call,
        run.n,
        fork,
        run.caller,
        run.callee,
        nonce,
        leg_a,
        leg_b,
        now,
        vector["not_before"],
        vector["not_after"],
    )
    sealed = transcoding.seal_leg_grant(
        holder, run, grant, transcoder=transcoder, token_t=token_t, random=nonce_of(grant_t)
    )
    assert sealed == grant_t
    opened = transcoding.open_leg_grant(
        holder, run, fork, transcoder, grant_t, token_t=token_t, nonce=nonce, now=now
    )
    assert opened == grant


@pytest.mark.parametrize(("letter", "role"), [("a", Role.CALLER), ("b", Role.CALLEE)])
def test_or_27_a_notice_octet_for_octet_and_once(vector: dict[str, Any], letter: str, role: Role) -> None:
    told, transcoder, run = vector["transcoder"], vector["ID_T"], run_of(vector)
    fork, nonce = octets(vector, "F"), octets(vector, f"N{letter}")
    identity = run.caller if role is Role.CALLER else run.callee
    holder = Holder(role, vector["KID"][letter.upper()], Secret(octets(vector, f"K{letter}")))
    wanted = octets(told, f"notice_{letter}")
    body = Notice(
        run.call, run.n, fork, run.caller, run.callee, transcoder, nonce, told["serial"], NoticeKind.LEG
    )
    channel = down_key(holder.key, run.suite, role)
    sealed = transcoding.seal_notice(channel, run.suite, identity, body, random=nonce_of(wanted))
    assert sealed == wanted

    def opened(serial_taken: int) -> Notice:
        return transcoding.open_notice(
            holder,
            run,
            identity,
            wanted,
            fork=fork,
            transcoder=transcoder,
            nonce=nonce,
            serial_taken=serial_taken,
        )

    assert opened(told["serial"] - 1) == body
    with pytest.raises(Refused) as refused:
        opened(told["serial"])
    assert (refused.value.check, refused.value.code) == (Check.OR_27, RefusalCode.REPLAY)


def test_the_srtp_key_of_a_leg(vector: dict[str, Any]) -> None:
    srtp, run = vector["srtp"], run_of(vector)
    for suite in SrtpSuite:
        master = srtp_master(
            Secret(octets(vector["transcoder"], "L_A")),
            suite,
            sender=run.caller,
            receiver=vector["ID_T"],
            media_line=srtp["media_line"],
            ssrc=srtp["ssrc"],
            n=run.n,
        )
        expected = srtp[f"{suite} A to T under L_A"]
        assert (master.key.reveal().hex(), master.salt.reveal().hex()) == (expected["key"], expected["salt"])
