"""Between a focus and its KMS: what is lost, late, repeated or refused."""

from __future__ import annotations

import pytest

from protocol.checks import RefusalCode
from protocol.limits import TOKEN_AGE_S
from tests.agents.hall import (
    ABOUT,
    Hall,
)
from tests.agents.scene import NOW
from topics.messages import (
    ConferenceEvent,
    GroupGrant,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    Joined,
    JoinRefused,
    PutOut,
    WithdrawMember,
)

OTHER = "sip:other@ims.example"


def rosters(hall: Hall) -> list[str]:
    return [" ".join(roster) for roster in hall.rosters()]


@pytest.mark.parametrize("kind", [GroupRequest, GroupResponse, GroupGrant, Joined])
def test_what_is_lost_comes_again(kind: type) -> None:
    hall = Hall()
    hall.create()
    ann = hall.guest("ann")
    hall.lost = [kind]
    hall.give(ann.join())
    hall.batch()
    assert ann.taken == 0
    hall.lost = []
    for second in range(1, 9):
        hall.later(NOW + second)
    assert ann.taken == 1
    assert rosters(hall)[0] == "ann focus"
    assert len({request.token_c for request in hall.asked}) == 1
    asked = len(hall.asked)
    told = len(hall.told)
    for second in range(9, 60):
        hall.later(NOW + second)
    assert (len(hall.asked), len(hall.told)) == (asked, told), "all is said"


def test_a_group_is_repeated_octet_for_octet_after_2_4_8_16_s() -> None:
    hall = Hall()
    hall.create()
    hall.lost = [GroupResponse, GroupRefusal]
    hall.give(hall.guest("ann").join())
    hall.batch()
    times = []
    for second in range(1, 64):
        before = len(hall.asked)
        hall.later(NOW + second)
        if len(hall.asked) > before:
            times.append(second)
    assert times == [2, 6, 14, 30, 46, 62]
    assert len(set(hall.asked)) == 1


def test_an_epoch_that_was_granted_to_an_earlier_request_is_taken() -> None:
    """The KMS refuses a GROUP, grants its repeat, and then hears of the second one."""
    hall = Hall()
    hall.create()
    ann, ben = hall.guest("ann"), hall.guest("ben")
    hall.give(ann.join())
    hall.give(ben.join())
    hall.town.change("psk:ben", not_before=NOW + 1)
    hall.hold = [GroupRefusal]
    hall.batch()
    [first] = hall.asked
    hall.town.change("psk:ben", not_before=NOW - 1)
    repeated = hall.town.give(first)
    refusal = hall.held.popleft()
    hall.hold = [GroupRequest]
    hall.give(refusal.message)  # type: ignore[arg-type]
    assert hall.said(JoinRefused)[0].member == ben.identity
    for send in repeated.sends:
        hall.give(send.message)  # type: ignore[arg-type]
    assert (hall.conference.epoch, ann.taken) == (1, 1)
    hall.release()
    assert (hall.conference.epoch, hall.conference.asked) == (1, ())
    assert ben.identity in hall.conference.roster, "no grant was handed to it, yet the KMS counts it in"
    hall.remove(ben.identity)
    hall.batch()
    assert rosters(hall)[-1:] == ["ann focus"]


def test_a_refusal_that_is_not_sealed_is_a_hint() -> None:
    hall = Hall()
    hall.create()
    hall.hold = [GroupRequest]
    ann = hall.guest("ann")
    hall.give(ann.join())
    hall.batch()
    before = hall.conference
    for sealed in (None, bytes(60)):
        hall.give(GroupRefusal(epoch=1, code=RefusalCode.DENIED, sealed=sealed, change=0, **ABOUT))
        assert hall.conference == before
    hall.release()
    assert ann.taken == 1


def test_answers_that_are_not_for_this_focus_change_nothing() -> None:
    hall, elsewhere = Hall(), Hall()
    hall.create()
    hall.hold = [GroupRequest]
    hall.give(hall.guest("ann").join())
    hall.batch()
    before = hall.conference
    elsewhere.stage.random(1)  # other tokens
    elsewhere.hold = [GroupResponse, GroupGrant]
    elsewhere.meet("ann")
    for send in elsewhere.held:
        hall.give(send.message)  # type: ignore[arg-type]
    assert hall.conference == before
    assert hall.events(ConferenceEvent.REFUSED)[-1].reason == "OR-20"


def test_a_token_that_has_become_stale_is_sealed_anew() -> None:
    hall = Hall()
    hall.meet("ann")
    hall.lost = [GroupRequest]
    ben = hall.guest("ben", time=NOW + 250)
    hall.give(ben.join(), NOW)
    hall.batch()
    later = NOW + TOKEN_AGE_S + 1
    hall.lost = []
    hall.later(later)
    assert ben.taken == 2
    assert len({request.token_c for request in hall.asked if request.epoch == 2}) == 2


def test_an_epoch_whose_answer_is_lost_for_good_is_passed_over() -> None:
    """The KMS has made it, and a revocation has destroyed its key: the next roster tells who is in."""
    hall = Hall()
    ann, cat = hall.meet("ann", "cat")
    hall.lost = [GroupResponse, GroupGrant]
    ben = hall.guest("ben")
    hall.give(ben.join())
    hall.batch()
    assert hall.group.epoch == 2
    hall.town.change("psk:cat", revoked=True, revoked_at=NOW)
    hall.town.give(WithdrawMember(key_id="psk:cat", **ABOUT))
    hall.lost = []
    hall.later(NOW + 2)
    assert rosters(hall)[-1] == "ann ben focus"
    assert (ann.taken, ben.taken, cat.taken) == (3, 3, 1)
    assert not hall.said(JoinRefused)
    assert hall.said(PutOut)[-1].to == cat.contact.device


def test_who_waits_in_vain_for_the_kms_is_told_to_try_again() -> None:
    hall = Hall()
    hall.meet("ann")
    hall.lost = [GroupRequest]
    ben, cat = hall.guest("ben"), hall.guest("cat")
    hall.give(ben.join())
    hall.batch()
    hall.give(cat.join())
    hall.later(NOW + 39)
    assert not hall.said(JoinRefused)
    hall.later(NOW + 40)
    [refusal] = hall.said(JoinRefused)
    assert (refusal.member, refusal.code) == (cat.identity, RefusalCode.BUSY), "ben may be in already"
