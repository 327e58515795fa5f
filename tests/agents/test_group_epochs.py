"""What a granted epoch is: who gets its key, until when, and what becomes of the one before it."""

from __future__ import annotations

from typing import Any

import pytest

from agents.alarms import EpochEnds
from agents.decision import NOTHING
from protocol.checks import Check, RefusalCode, Refused
from protocol.encoding import digest
from protocol.evidence import EpochGrant
from protocol.limits import CHANGES_MAX, EPOCH_S, LIFE_S, MEMBERS_MAX, SEEN_S, SKEW_S
from protocol.names import Suite
from protocol.secret import Secret
from storage.kms_records import Group, Uses
from storage.records import RecordCodec
from storage.wrapping import KeyEncryptionKey, Wrapping
from tests.agents.chair import Chair, join_of, leave_of, refuses, responses
from tests.agents.hall import FOCUS, GROUP, Guest, name_of
from tests.agents.scene import ALICE, NOW
from topics.codec import encode
from topics.messages import Change, GroupGrant, GroupHint, RefreshChange, RemoveChange, WithdrawMember


def given(
    town: Chair, guests: list[Guest], *changes: Change, epoch: int, now: int = NOW
) -> tuple[Secret | None, dict[str, EpochGrant]]:
    """One more epoch: what the focus gets, and what each of these guests opens of what came for it."""
    request = town.asks(*changes, epoch=epoch, time=now)
    response, grants = responses(town.give(request, now))
    to_focus = town.opened(request, response, now)
    opened = {}
    for grant in grants:
        for guest in guests:
            try:
                opened[guest.user] = guest.open(grant, now)
            except Refused:
                continue
            guest.taken = epoch
            break
    assert len(opened) == len(grants), "each grant is for one guest"
    for each in opened.values():
        assert (each.roster, each.not_after) == (to_focus.roster, to_focus.not_after)
        assert to_focus.key in {None, each.key}
    holders = {guest.identity for guest in guests if guest.user in opened}
    assert set(to_focus.roster) == holders | ({FOCUS} if to_focus.key is not None else set())
    return to_focus.key, opened


@pytest.fixture
def town() -> Chair:
    return Chair()


def test_the_roster_of_every_grant_are_those_who_got_the_key(town: Chair) -> None:
    ann, ben, cat = guests = [town.guest(user) for user in ("ann", "ben", "cat")]
    keys = []
    steps: list[list[Change]] = [
        [join_of(ann)],
        [join_of(ben), join_of(cat)],
        [leave_of(ann, 1)],
        [RemoveChange(cat.identity)],
    ]
    for epoch, changes in enumerate(steps, 1):
        key, opened = given(town, guests, *changes, epoch=epoch)
        keys.append(key)
        expected = [{"ann"}, {"ann", "ben", "cat"}, {"ben", "cat"}, {"ben"}][epoch - 1]
        assert set(opened) == expected
    assert len(set(map(Secret.reveal, filter(None, keys)))) == 4, "independent keys"


def test_a_focus_that_does_not_mix_gets_no_key_and_is_not_on_the_roster() -> None:
    town = Chair(mixes=False)
    ann = town.guest("ann")
    key, opened = given(town, [ann], join_of(ann), epoch=1)
    assert key is None
    assert opened["ann"].roster == (ann.identity,)


def test_a_focus_that_begins_to_mix_gets_the_key_of_no_epoch_before() -> None:
    town = Chair(mixes=False)
    ann = town.guest("ann")
    request = town.epoch(join_of(ann))
    town.change("psk:focus", mixes=True)
    response, _ = responses(town.give(request))
    assert town.opened(request, response).key is None
    key, _ = given(town, [ann], RefreshChange(), epoch=2)
    assert key is not None


@pytest.mark.parametrize("suite", Suite)
def test_each_grant_goes_under_its_members_own_suite(suite: Suite) -> None:
    town = Chair()
    guests = [town.guest("ann", suite=suite), town.guest("ben")]
    _, opened = given(town, guests, *map(join_of, guests), epoch=1)
    assert len(opened) == 2


def test_or_10_the_same_token_gets_the_same_key_freshly_sealed(town: Chair) -> None:
    ann = town.guest("ann")
    request = town.asks(join_of(ann))
    first, [for_ann] = responses(town.give(request))
    decision = town.give(request, NOW + 200)
    again, [for_ann_again] = responses(decision)
    assert again.grant_c != first.grant_c
    assert for_ann_again.grant != for_ann.grant
    one, other = town.opened(request, first), town.opened(request, again, NOW + 200)
    assert (one.key, one.not_after, one.roster) == (other.key, other.not_after, other.roster)
    assert (one.now, other.now) == (NOW, NOW + 200)
    assert ann.open(for_ann, NOW).key == ann.open(for_ann_again, NOW + 200).key


def test_or_10_a_repeat_is_one_audit_record(town: Chair) -> None:
    request = town.asks(join_of(town.guest("ann")))
    first, again = town.give(request), town.give(request, NOW + 1)
    assert first.audit == again.audit


def test_or_16_the_roster_is_in_the_audit_before_anything_leaves(town: Chair) -> None:
    ann = town.guest("ann")
    [audit] = town.give(town.asks(join_of(ann))).audit
    assert (audit.event, audit.group, audit.focus, audit.epoch) == ("epoch", GROUP, FOCUS, 1)
    assert audit.roster == tuple(sorted([ann.identity, FOCUS]))
    assert audit.key_id == "psk:focus"


def test_an_epoch_lives_epoch_s_or_as_long_as_the_key_id_of_the_focus(town: Chair) -> None:
    ann = town.guest("ann")
    request = town.asks(join_of(ann))
    response, _ = responses(town.give(request))
    grant = town.opened(request, response)
    assert (grant.not_before, grant.not_after) == (NOW - SKEW_S, NOW + EPOCH_S)
    town.change("psk:focus", not_after=NOW + 70)
    request = town.asks(RefreshChange(), epoch=2)
    response, _ = responses(town.give(request))
    assert town.opened(request, response).not_after == NOW + 70


@pytest.mark.parametrize("other", ["refresh", "join"])
def test_a_member_whose_key_id_has_ended_is_off_at_the_next_epoch(town: Chair, other: str) -> None:
    ann, ben = guests = [town.guest("ann"), town.guest("ben")]
    town.change("psk:ben", not_after=NOW + 100)
    given(town, guests, *[join_of(guest) for guest in guests], epoch=1)
    cat = town.guest("cat", time=NOW + 101)
    change = RefreshChange() if other == "refresh" else join_of(cat)
    _, opened = given(town, [*guests, cat], change, epoch=2, now=NOW + 101)
    assert "ben" not in opened
    assert set(opened) == ({"ann"} if other == "refresh" else {"ann", "cat"})
    town.change("psk:ben", not_after=NOW + 10_000)
    anew = town.guest("ben", 2, time=NOW + 110)
    _, opened = given(town, [ann, anew, cat], join_of(anew), epoch=3, now=NOW + 110)
    assert "ben" in opened
    assert ben.taken == 1


def test_a_second_device_takes_the_place_of_the_first(town: Chair) -> None:
    phone, ann = town.guest("ben"), town.guest("ann")
    tablet = town.guest("ben", 2, device="ben-2")
    given(town, [phone, ann], join_of(phone), join_of(ann), epoch=1)
    request = town.asks(join_of(tablet), epoch=2)
    _, grants = responses(town.give(request))
    [for_ben] = [grant for grant in grants if grant.member == phone.identity]
    assert tablet.open(for_ben, NOW).epoch == 2
    with pytest.raises(Refused):
        phone.open(for_ben, NOW)
    assert town.group.removed == ()


def test_two_devices_in_one_request(town: Chair) -> None:
    phone, tablet = town.guest("ben"), town.guest("ben", 2, device="ben-2")
    request = town.asks(join_of(phone), join_of(tablet))
    _, [grant] = responses(town.give(request))
    assert tablet.open(grant, NOW).roster == tuple(sorted([phone.identity, FOCUS]))


@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_a_leave_after_any_epoch_since_the_join(town: Chair, epoch: int) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann))
    town.epoch(join_of(ben), epoch=2)
    town.epoch(RefreshChange(), epoch=3)
    town.epoch(RefreshChange(), epoch=4)
    _, opened = given(town, [ann, ben], leave_of(ben, epoch), epoch=5)
    assert set(opened) == {"ann"}


def test_who_has_left_may_come_again(town: Chair) -> None:
    ben = town.guest("ben")
    town.epoch(join_of(ben))
    town.epoch(leave_of(ben, 1), epoch=2)
    again = town.guest("ben", 2)
    _, opened = given(town, [again], join_of(again), epoch=3)
    assert set(opened) == {"ben"}


def test_a_focus_asks_in_vain_for_who_never_presented_a_token(town: Chair) -> None:
    ann = town.guest("ann")
    eve = town.guest("eve")
    forged = join_of(ann, member=eve.identity, member_key=eve.key_id)
    refuses(town, town.asks(forged), Check.OR_04, RefusalCode.DENIED)
    town.epoch(join_of(ann))
    assert [member.identity for member in town.group.members] == [ann.identity]


def test_a15_a_grant_of_an_old_epoch_is_no_grant_of_a_later_one(town: Chair) -> None:
    ann = town.guest("ann")
    first = town.asks(join_of(ann))
    _, [old] = responses(town.give(first))
    _, [new] = responses(town.give(town.asks(RefreshChange(), epoch=2)))
    ann.open(new, NOW)
    ann.taken = 2
    with pytest.raises(Refused) as refused:
        ann.open(old, NOW)
    assert refused.value.check is Check.OR_29
    refuses(town, first, Check.OR_10, RefusalCode.REPLAY, change=None)


def test_64_members_and_what_they_are_sent_fits_into_messages(town: Chair) -> None:
    guests = [town.guest(f"g{number}") for number in range(MEMBERS_MAX)]
    grants: list[GroupGrant] = []
    for epoch, some in enumerate(_parts(guests), 1):
        request = town.asks(*map(join_of, some), epoch=epoch)
        encode(request)
        response, grants = responses(town.give(request))
        encode(response)
    assert len(grants) == MEMBERS_MAX
    for message in grants:
        encode(message)


def _parts(guests: list[Guest]) -> list[list[Guest]]:
    return [guests[first : first + CHANGES_MAX] for first in range(0, len(guests), CHANGES_MAX)]


# What is kept, and for how long.


def stored(town: Chair) -> bytes:
    """The conference's record as octets, unwrapped."""
    key = Group.key_for(FOCUS, GROUP)
    record = town.records[key.name]
    wrapping = Wrapping((KeyEncryptionKey(bytes(4), Secret(bytes(32)), NOW),), town.random)
    codec = RecordCodec(wrapping)
    octets = codec.encode(key, record)
    assert codec.decode(key, octets) == record
    return wrapping.unwrap(key.name, octets)


def test_the_key_before_is_destroyed_with_the_next_epoch_and_the_last_by_an_alarm(town: Chair) -> None:
    ann = town.guest("ann")
    first, _ = given(town, [ann], join_of(ann), epoch=1)
    assert first is not None
    assert first.reveal() in stored(town)
    decision = town.give(town.asks(RefreshChange(), epoch=2))
    assert first.reveal() not in stored(town)
    [wake] = decision.wakes
    assert (wake.at, wake.alarm) == (NOW + EPOCH_S + 1, EpochEnds(FOCUS, GROUP))
    last = town.group.key
    assert last is not None
    assert town.give(EpochEnds(FOCUS, GROUP), NOW + EPOCH_S).wakes[0].at == NOW + EPOCH_S + 1
    assert town.group.key == last, "not before its time"
    [wake] = town.give(EpochEnds(FOCUS, GROUP), NOW + EPOCH_S + 1).wakes
    assert last.reveal() not in stored(town)
    assert wake.at == NOW + EPOCH_S + LIFE_S + SEEN_S
    town.give(EpochEnds(FOCUS, GROUP), wake.at)
    assert Group.key_for(FOCUS, GROUP).name not in town.records
    assert town.give(EpochEnds(FOCUS, GROUP), wake.at + 1) == NOTHING


def test_a_conference_goes_on_after_its_last_epoch_has_ended(town: Chair) -> None:
    ann = town.guest("ann")
    given(town, [ann], join_of(ann), epoch=1)
    later = NOW + EPOCH_S + 500
    town.give(EpochEnds(FOCUS, GROUP), later)
    refuses(
        town, town.asks(RefreshChange(), time=later), Check.OR_10, RefusalCode.REPLAY, change=None, now=later
    )
    _, opened = given(town, [ann], RefreshChange(), epoch=2, now=later)
    assert set(opened) == {"ann"}


# Revocation.


def withdraw(key_id: str = "psk:ann", **changes: Any) -> WithdrawMember:
    return WithdrawMember(**{"group": GROUP, "focus": FOCUS, "key_id": key_id, **changes})


def test_a_revoked_member_is_out_and_the_focus_is_told_to_ask(town: Chair) -> None:
    guests = [town.guest("ann"), town.guest("ben")]
    request = town.epoch(*map(join_of, guests))
    town.change("psk:ann", revoked=True, revoked_at=NOW + 5)
    decision = town.give(withdraw(), NOW + 5)
    [send] = decision.sends
    assert isinstance(send.message, GroupHint)
    [audit] = decision.audit
    assert (audit.event, audit.key_id, audit.epoch) == ("withdrawn", "psk:ann", 1)
    assert town.group.key is None
    refuses(town, request, Check.OR_10, RefusalCode.EXPIRED, change=None, now=NOW + 6)
    again = town.give(withdraw(), NOW + 6)
    assert [each.id for each in again.audit] == [audit.id], "the process may have died before it told"
    assert again.sends == decision.sends
    _, opened = given(town, guests, RefreshChange(), epoch=2, now=NOW + 7)
    assert set(opened) == {"ben"}
    assert town.give(withdraw(), NOW + 8) == NOTHING, "there is nobody any more"
    ann = town.guest("ann", 2)
    refuses(town, town.asks(join_of(ann), epoch=3), Check.OR_02, RefusalCode.DENIED)


def test_a_revoked_member_may_leave_before_its_withdrawal_was_heard_of(town: Chair) -> None:
    """Else its focus would ask for it, and give it another epoch to leave, for ever."""
    guests = [town.guest("ann"), town.guest("ben")]
    town.epoch(*map(join_of, guests))
    town.change("psk:ann", revoked=True, revoked_at=NOW + 5)
    _, opened = given(town, guests, leave_of(guests[0], 1), epoch=2, now=NOW + 6)
    assert set(opened) == {"ben"}


def test_who_forges_a_withdrawal_changes_nothing(town: Chair) -> None:
    town.epoch(join_of(town.guest("ann")))
    for message in (withdraw(), withdraw("psk:nobody"), withdraw(focus=ALICE), withdraw("psk:focus")):
        assert town.give(message) == NOTHING


def test_who_has_joined_with_a_new_key_since_is_not_withdrawn(town: Chair) -> None:
    town.guest("ann")
    town.change("psk:ann", key=town.key(), revoked_at=NOW - 10)
    ann = town.guest("ann")
    town.epoch(join_of(ann))
    assert town.give(withdraw()) == NOTHING
    town.change("psk:ann", key=town.key(), revoked_at=0)
    assert town.give(withdraw()) == NOTHING, "a key id with a new key, of which none was revoked"
    town.change("psk:ann", key=town.key(), revoked_at=NOW + 1)
    assert town.give(withdraw(), NOW + 2) != NOTHING, "it joined with the key that was revoked"


def test_a_revoked_focus_gets_no_epoch_any_more(town: Chair) -> None:
    town.epoch(join_of(town.guest("ann")))
    request = town.asks(RefreshChange(), epoch=2)
    town.change("psk:focus", revoked=True, revoked_at=NOW)
    assert town.give(withdraw("psk:focus")).audit[0].key_id == "psk:focus"
    assert town.group.key is None
    refuses(town, request, Check.OR_02, RefusalCode.DENIED, change=None, sealed=False)


def test_a_revocation_finds_everybody_who_is_in(town: Chair) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann))
    town.epoch(join_of(ben), epoch=2)
    for key_id, until in (
        ("psk:ann", NOW + 100_000),
        ("psk:ben", NOW + 100_000),
        ("psk:focus", NOW + EPOCH_S),
    ):
        uses = town.records[Uses.key_for(key_id, GROUP.hex()).name]
        assert isinstance(uses, Uses)
        assert uses.conferences == ((FOCUS, GROUP, until),)


def test_the_octets_of_a_seal_are_no_name_of_a_join(town: Chair) -> None:
    """What is remembered of a join is its call, so that no other token of it serves either."""
    ann = town.guest("ann")
    town.epoch(join_of(ann))
    [(served, until)] = town.group.spent
    assert served != digest(ann.token_g)
    assert until == NOW + SEEN_S
    assert name_of(town.group.members[0].identity) == "ann"
