"""A member whose key id ends while it is in a conference joins anew with the next one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.decision import NOTHING
from media.leg import CloseMedia
from protocol.conference import open_member_token
from protocol.evidence import Holder
from protocol.names import Permit, Role
from protocol.secret import Secret
from storage.attendance_records import AttendanceState
from storage.ue_records import Handset, HandsetKey
from tests.agents.collector import only
from tests.agents.member import (
    ANOTHER,
    DEVICE,
    FOCUS,
    GROUP,
    KEY_ID,
    REQUEST,
    Alice,
    is_told,
    join,
    medium,
    put_out,
    run_of,
)
from tests.agents.scene import NOW
from topics.messages import Join, ReportEvent


def has_another_key(alice: Alice, **changes: Any) -> HandsetKey:
    """Her handset has got another key while she was in."""
    handset = alice.records[Handset.key_for(DEVICE).name]
    assert isinstance(handset, Handset)
    fields = {"key_id": "psk:another", "key": Secret(bytes(32)), "not_after": NOW + 9999, "attached": True}
    key = HandsetKey(**{**fields, "obtained": NOW, **changes})
    alice.put(Handset.key_for(DEVICE), msgspec.structs.replace(handset, key=key))
    return key


@pytest.mark.parametrize("reason", ["key-ended", "absent", "not-in"])
def test_who_is_out_for_its_key_id_alone_joins_anew_under_the_next_one(reason: str) -> None:
    alice = Alice()
    first, sound = alice.asked(join(sound=ANOTHER)), ANOTHER
    alice.give(alice.joined(first, 3))
    session = alice.attendance.session
    key = has_another_key(alice)
    decision = alice.give(put_out(first, reason))
    again = only(Join, decision)
    assert (again.member_key, again.group, again.focus) == (key.key_id, GROUP, FOCUS)
    assert again.call != first.call
    assert again.token_g != first.token_g
    assert medium(decision) == CloseMedia(session)
    is_told(decision, ReportEvent.JOINING, request=REQUEST)
    assert (alice.state, alice.attendance.sound, alice.attendance.epoch) == (
        AttendanceState.JOINING,
        sound,
        3,
    )
    assert alice.lines == (alice.attendance.session, None)
    assert f"attendance {session}" in {wake.about for wake in decision.wakes if wake.at is None}
    holder = Holder(Role.MEMBER, key.key_id, key.key)
    token = open_member_token(holder, run_of(again), GROUP, again.token_g)
    assert Permit.CONFERENCE in token.permits
    assert alice.give(put_out(first, reason)) == NOTHING


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("put-out", {}),
        ("ended", {}),
        ("replaced", {}),
        ("absent", {"key_id": KEY_ID}),
        ("key-ended", {"attached": False}),
        ("key-ended", {"not_after": NOW - 1}),
    ],
)
def test_who_is_out_for_another_reason_or_has_no_key_stays_out(reason: str, changes: dict[str, Any]) -> None:
    alice = Alice()
    asked = alice.inside()
    has_another_key(alice, **changes)
    decision = alice.give(put_out(asked, reason))
    is_told(decision, ReportEvent.LEFT_CONFERENCE, reason=reason)
    assert alice.state is AttendanceState.OUT
