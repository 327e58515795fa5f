"""Every seal of section 8, octet for octet, against tests/vectors/otway1.json."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import conference
from protocol.checks import Check, RefusalCode, Refused
from protocol.conference import EpochName
from protocol.description import SrtpSuite
from protocol.encoding import digest
from protocol.evidence import Departure, EpochGrant, FocusGrant, FocusToken, Holder, MemberToken
from protocol.names import Permit, Role, Run, Suite
from protocol.sealing import down_key
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master
from tests.protocol.test_vectors import nonce_of, octets, stream, vector

__all__ = ["vector"]


def test_or_29_a_join_octet_for_octet_and_an_epoch_once(vector: dict[str, Any]) -> None:
    told, now, focus = vector["conference"], vector["now"], vector["ID_C"]
    group, epoch, suite = octets(vector, "G"), told["e"], Suite(vector["suite"])
    run = Run(call=octets(told, "C"), n=vector["n"], caller=vector["ID_A"], callee=focus, suite=suite)
    member = Holder(Role.MEMBER, vector["KID"]["A"], Secret(octets(vector, "Ka")))
    holder = Holder(Role.FOCUS, vector["KID"]["C"], Secret(octets(vector, "Kc")))
    ni, nc, key = octets(told, "Ni"), octets(told, "Nc"), Secret(octets(told, "K_e"))
    token_g, token_c, grant_c, grant_g = (
        octets(told, name) for name in ("token_g", "token_c", "grant_c", "grant_g")
    )
    permits = tuple(Permit(name) for name in told["permits"])

    body_g = MemberToken(*run.clear, ni, now, permits, digest(octets(vector, "offer")), group)
    assert conference.seal_member_token(member, run, body_g, random=nonce_of(token_g)) == token_g
    assert conference.open_member_token(member, run, group, token_g) == body_g
    conference.compare_join(run, group, body_g, now)

    change = conference.join_change(token_g)
    assert change == octets(told, "change")
    name = EpochName(group=group, epoch=epoch, focus=focus, suite=suite)
    body_c = FocusToken(group, epoch, nc, now)
    sealed = conference.seal_focus_token(holder, name, body_c, changes=[change], random=nonce_of(token_c))
    assert sealed == token_c
    assert conference.open_focus_token(holder, name, token_c, changes=[change]) == body_c
    conference.compare_group(name, body_c, now)

    roster = tuple(told["roster"])
    times = (now, vector["not_before"], told["not_after"])
    to_focus = FocusGrant(group, epoch, nc, key, *times, roster)
    sealed = conference.seal_focus_grant(holder, name, to_focus, token_c=token_c, random=nonce_of(grant_c))
    assert sealed == grant_c
    opened = conference.open_focus_grant(holder, name, grant_c, token_c=token_c, nonce=nc, now=now)
    assert opened == to_focus

    to_member = EpochGrant(group, epoch, ni, key, *times, roster)
    sealed = conference.seal_epoch_grant(
        down_key(member.key, suite, Role.MEMBER),
        suite,
        to_member,
        focus=focus,
        member=run.caller,
        key_id=member.key_id,
        token_hash=digest(token_g),
        random=nonce_of(grant_g),
    )
    assert sealed == grant_g

    def taken(epoch_taken: int) -> EpochGrant:
        return conference.open_epoch_grant(
            member,
            suite,
            grant_g,
            group=group,
            epoch=epoch,
            focus=focus,
            member=run.caller,
            token_g=token_g,
            nonce=ni,
            epoch_taken=epoch_taken,
            now=now,
        )

    assert taken(0) == to_member
    with pytest.raises(Refused) as refused:
        taken(epoch)
    assert (refused.value.check, refused.value.code) == (Check.OR_29, RefusalCode.REPLAY)


def test_a_leave_opens_for_its_own_join_only(vector: dict[str, Any]) -> None:
    told, suite, group = vector["conference"], Suite(vector["suite"]), octets(vector, "G")
    member = Holder(Role.MEMBER, vector["KID"]["A"], Secret(octets(vector, "Ka")))
    ni, identity = octets(told, "Ni"), vector["ID_A"]
    sealed = conference.seal_leave(
        member, suite, group, identity, Departure(ni, 3), random=stream(b"a leave of the third epoch")
    )
    conference.open_leave(member, suite, group, 3, identity, sealed, nonce=ni)
    with pytest.raises(Refused) as refused:
        conference.open_leave(member, suite, group, 3, identity, sealed, nonce=bytes(16))
    assert refused.value.check is Check.OR_07
    with pytest.raises(Refused) as refused:
        conference.open_leave(member, suite, group, 4, identity, sealed, nonce=ni)
    assert refused.value.check is Check.OR_05


def test_the_srtp_key_of_a_member(vector: dict[str, Any]) -> None:
    told, srtp = vector["conference"], vector["srtp"]
    for suite in SrtpSuite:
        master = srtp_master(
            Secret(octets(told, "K_e")),
            suite,
            sender=vector["ID_A"],
            receiver=octets(vector, "G"),
            media_line=srtp["media_line"],
            ssrc=srtp["ssrc"],
            n=told["e"],
        )
        expected = srtp[f"{suite} A to G under K_e"]
        assert (master.key.reveal().hex(), master.salt.reveal().hex()) == (expected["key"], expected["salt"])
