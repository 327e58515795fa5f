"""The KMS's checks on a GROUP, each broken alone: it refuses, names the change, and changes no record."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.granting import membership
from agents.kms import Kms, KmsSettings
from protocol.checks import Check, RefusalCode
from protocol.limits import EPOCH_S, MEMBERS_MAX, ROSTER_OCTETS_MAX, SEEN_S, SKEW_S, TOKEN_AGE_S
from protocol.literal import Literal
from protocol.names import Owner, Permit, Suite
from protocol.secret import Secret
from storage.kms_records import Site
from tests.agents.chair import Chair, join_of, leave_of, refuses, responses
from tests.agents.hall import FOCUS, GROUP
from tests.agents.scene import BOB, CALL, EVE, NOW
from topics.messages import AbsentChange, JoinChange, RefreshChange, RemoveChange

OTHER = "sip:other@ims.example"


@pytest.fixture
def town() -> Chair:
    return Chair()


def test_a_good_group_is_granted(town: Chair) -> None:
    ann = town.guest("ann")
    response, [grant] = responses(town.give(town.asks(join_of(ann))))
    assert (response.group, response.epoch, grant.member) == (GROUP, 1, ann.identity)


# Of the request as a whole.


def test_or_01_a_suite_of_the_focus_that_is_not_allowed() -> None:
    town = Chair(KmsSettings(suites=frozenset({Suite.AES_256_GCM})))
    request = town.asks(join_of(town.guest("ann")), suite=Suite.CHACHA20_POLY1305)
    refuses(town, request, Check.OR_01, RefusalCode.UNSUPPORTED, change=None, sealed=False)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"revoked": True}, RefusalCode.DENIED),
        ({"not_after": NOW - 1}, RefusalCode.EXPIRED_KEY),
        ({"not_before": NOW + 1}, RefusalCode.EXPIRED_KEY),
    ],
)
def test_or_02_the_key_id_of_the_focus(town: Chair, changes: dict[str, Any], code: RefusalCode) -> None:
    request = town.asks(join_of(town.guest("ann")))
    town.change("psk:focus", **changes)
    refuses(town, request, Check.OR_02, code, change=None, sealed=False)


def test_or_02_a_key_id_that_does_not_exist(town: Chair) -> None:
    request = msgspec.structs.replace(town.asks(join_of(town.guest("ann"))), focus_key="psk:nobody")
    refuses(town, request, Check.OR_02, RefusalCode.DENIED, change=None, sealed=False)


@pytest.mark.parametrize("owner", [Owner.UE, Owner.MAILBOX, Owner.TRANSCODER])
def test_or_03_only_a_focus_asks_for_epochs(town: Chair, owner: Owner) -> None:
    request = town.asks(join_of(town.guest("ann")))
    town.change("psk:focus", owner=owner)
    refuses(town, request, Check.OR_03, RefusalCode.NOT_AUTHORISED, change=None, sealed=False)


def test_or_03_a_focus_is_itself(town: Chair) -> None:
    request = town.asks(join_of(town.guest("ann")), focus=OTHER)
    refuses(town, request, Check.OR_03, RefusalCode.NOT_AUTHORISED, change=None, sealed=False)


@pytest.mark.parametrize("part", ["key", "changes", "order", "epoch", "group", "seal"])
def test_or_05_what_token_c_binds(town: Chair, part: str) -> None:
    changes = [join_of(town.guest("ann")), join_of(town.guest("ben"))]
    request = town.asks(*changes)
    match part:
        case "key":
            town.change("psk:focus", key=Secret(bytes(32)))
        case "changes":
            request = msgspec.structs.replace(request, changes=(*changes, RemoveChange(EVE)))
        case "order":
            request = msgspec.structs.replace(request, changes=tuple(reversed(changes)))
        case "epoch":
            request = msgspec.structs.replace(request, epoch=2)
        case "group":
            request = msgspec.structs.replace(request, group=CALL)
        case _:
            octets = request.token_c[:-1] + bytes([request.token_c[-1] ^ 1])
            request = msgspec.structs.replace(request, token_c=octets)
    refuses(town, request, Check.OR_05, RefusalCode.DENIED, change=None, sealed=False)


@pytest.mark.parametrize("inside", [{"group": CALL}, {"epoch": 2}])
def test_or_07_what_token_c_says(town: Chair, inside: dict[str, Any]) -> None:
    request = town.asks(join_of(town.guest("ann")), inside=inside)
    refuses(town, request, Check.OR_07, RefusalCode.DENIED, change=None)


@pytest.mark.parametrize("time", [NOW - TOKEN_AGE_S - 1, NOW + SKEW_S + 1])
def test_or_09_token_c_is_neither_old_nor_from_the_future(town: Chair, time: int) -> None:
    request = town.asks(join_of(town.guest("ann")), time=time)
    refuses(town, request, Check.OR_09, RefusalCode.STALE, change=None)


def test_or_10_a_kms_that_is_new_or_restored(town: Chair) -> None:
    site = town.records[Site.key().name]
    ann = town.guest("ann")
    town.put(Site.key(), msgspec.structs.replace(site, founded=NOW - 5))
    refuses(town, town.asks(join_of(ann), time=NOW - 6), Check.OR_10, RefusalCode.STALE, change=None)
    early = town.guest("ben", time=NOW - 6)
    refuses(town, town.asks(join_of(early)), Check.OR_10, RefusalCode.STALE)


def test_or_10_another_token_for_an_epoch_that_was_made(town: Chair) -> None:
    town.epoch(join_of(town.guest("ann")))
    again = town.asks(join_of(town.guest("ben")))
    refuses(town, again, Check.OR_10, RefusalCode.REPLAY, change=None)


def test_or_10_an_older_epoch_is_not_made_again(town: Chair) -> None:
    first = town.epoch(join_of(town.guest("ann")))
    town.epoch(RefreshChange(), epoch=2)
    refuses(town, first, Check.OR_10, RefusalCode.REPLAY, change=None)


def test_or_10_an_epoch_that_has_ended_is_not_granted_again(town: Chair) -> None:
    town.change("psk:focus", not_after=NOW + 50)
    request = town.epoch(join_of(town.guest("ann")))
    town.change("psk:focus", not_after=NOW + 5_000)
    refuses(town, request, Check.OR_10, RefusalCode.EXPIRED, change=None, now=NOW + 51)


def test_or_11_requests_a_second_of_a_focus() -> None:
    town = Chair(KmsSettings(mailbox_requests_per_s=2))
    request = town.asks(join_of(town.guest("ann")))
    responses(town.give(request))
    responses(town.give(request))
    refuses(town, request, Check.OR_11, RefusalCode.TOO_MANY, change=None)
    responses(town.give(request, NOW + 1))


def test_or_11_what_does_not_open_counts_against_the_focus_that_is_named(town: Chair) -> None:
    town.agent = Kms(town.profile, KmsSettings(host_requests_per_s=1))
    good = town.asks(join_of(town.guest("ann")))
    bad = msgspec.structs.replace(good, token_c=bytes(60))
    refuses(town, bad, Check.OR_05, RefusalCode.DENIED, change=None, sealed=False)
    refuses(town, bad, Check.OR_11, RefusalCode.TOO_MANY, change=None, sealed=False)
    responses(town.give(good))  # what opens is not delayed by junk in its name


def test_or_14_the_ten_steps_have_no_conferences(town: Chair) -> None:
    request = town.asks(join_of(town.guest("ann")))
    town.agent = Kms(Literal())
    decision = town.give(request)
    assert decision.audit[0].check is Check.OR_14


@pytest.mark.parametrize("epoch", [2, 3, 2**32 - 1])
def test_or_15_the_first_epoch_is_1(town: Chair, epoch: int) -> None:
    request = town.asks(join_of(town.guest("ann")), epoch=epoch)
    refuses(town, request, Check.OR_15, RefusalCode.NOT_FOUND, change=None)


def test_or_15_an_epoch_comes_only_after_the_one_before(town: Chair) -> None:
    town.epoch(join_of(town.guest("ann")))
    refuses(town, town.asks(RefreshChange(), epoch=3), Check.OR_15, RefusalCode.NOT_FOUND, change=None)
    town.epoch(RefreshChange(), epoch=2)


def test_or_15_another_focus_does_not_go_on_with_a_conference(town: Chair) -> None:
    town.subscribe("psk:other", OTHER, owner=Owner.FOCUS)
    town.epoch(join_of(town.guest("ann")))
    request = town.asks(RefreshChange(), epoch=2, focus=OTHER, focus_key="psk:other")
    refuses(town, request, Check.OR_15, RefusalCode.NOT_FOUND, change=None)


# Of a join; a good one before it is not made either.


def spoilt(town: Chair, check: Check, code: RefusalCode, *, now: int = NOW, **changes: Any) -> None:
    """Ben's join is refused, and with it ann's, which was good; alone it is granted."""
    ben, ann = town.guest("ben"), town.guest("ann", time=now)
    request = town.asks(join_of(ann), join_of(ben, **changes), time=now)
    refuses(town, request, check, code, change=1, now=now)
    responses(town.give(town.asks(join_of(ann), time=now), now))


def test_or_01_a_members_suite_that_is_not_allowed() -> None:
    town = Chair(KmsSettings(suites=frozenset({Suite.AES_256_GCM})))
    spoilt(town, Check.OR_01, RefusalCode.UNSUPPORTED, suite=Suite.CHACHA20_POLY1305)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"revoked": True}, RefusalCode.DENIED),
        ({"not_after": NOW - 1}, RefusalCode.EXPIRED_KEY),
        ({"not_before": NOW + 1}, RefusalCode.EXPIRED_KEY),
    ],
)
def test_or_02_a_members_key_id(town: Chair, changes: dict[str, Any], code: RefusalCode) -> None:
    town.guest("ben")
    town.change("psk:ben", **changes)
    spoilt(town, Check.OR_02, code)


def test_or_03_a_member_is_itself_and_a_handset(town: Chair) -> None:
    spoilt(town, Check.OR_03, RefusalCode.NOT_AUTHORISED, member=EVE)


@pytest.mark.parametrize("owner", [Owner.FOCUS, Owner.MAILBOX, Owner.TRANSCODER])
def test_or_03_only_handsets_are_members(town: Chair, owner: Owner) -> None:
    town.guest("ben")
    town.change("psk:ben", owner=owner)
    spoilt(town, Check.OR_03, RefusalCode.NOT_AUTHORISED)


@pytest.mark.parametrize("part", ["key", "call", "suite", "seal"])
def test_or_04_what_token_g_binds(town: Chair, part: str) -> None:
    ben = town.guest("ben")
    changes: dict[str, Any] = {}
    match part:
        case "key":
            town.change("psk:ben", key=Secret(bytes(32)))
            changes = {"token_g": ben.token_g}
        case "call":
            changes = {"call": CALL}
        case "suite":
            changes = {"suite": Suite.CHACHA20_POLY1305}
        case _:
            changes = {"token_g": ben.token_g[:-1] + bytes([ben.token_g[-1] ^ 1])}
    spoilt(town, Check.OR_04, RefusalCode.DENIED, **changes)


def test_or_04_a_token_of_another_conference_or_focus(town: Chair) -> None:
    ben = town.guest("ben")
    elsewhere = town.asks(join_of(ben), group=CALL)
    refuses(town, elsewhere, Check.OR_04, RefusalCode.DENIED)
    town.subscribe("psk:other", OTHER, owner=Owner.FOCUS)
    request = town.asks(join_of(ben), focus=OTHER, focus_key="psk:other")
    refuses(town, request, Check.OR_04, RefusalCode.DENIED)


@pytest.mark.parametrize(
    "inside",
    [{"call": CALL}, {"n": 1}, {"member": EVE}, {"focus": OTHER}, {"group": CALL}],
    ids=lambda inside: next(iter(inside)),
)
def test_or_06_what_token_g_says(town: Chair, inside: dict[str, Any]) -> None:
    ben = town.guest("ben")
    if "group" in inside:  # G is bound as well: only its own member could seal such a one
        spoilt(town, Check.OR_04, RefusalCode.DENIED, token_g=ben.seal(**inside))
    else:
        spoilt(town, Check.OR_06, RefusalCode.DENIED, token_g=ben.seal(**inside))


def test_or_08_a_focus_is_no_member_of_its_own(town: Chair) -> None:
    town.subscribe("psk:both", FOCUS)
    both = town.guest("focus", device="both")
    refuses(town, town.asks(join_of(both)), Check.OR_08, RefusalCode.DENIED)


@pytest.mark.parametrize("time", [NOW - TOKEN_AGE_S - 1, NOW + SKEW_S + 1])
def test_or_09_token_g_is_neither_old_nor_from_the_future(town: Chair, time: int) -> None:
    ben = town.guest("ben", time=time)
    spoilt(town, Check.OR_09, RefusalCode.STALE, token_g=ben.token_g)


@pytest.mark.parametrize("how", ["the same", "sealed again for the same call"])
@pytest.mark.parametrize("after", ["in", "left", "removed", "replaced"])
def test_or_10_a_token_serves_one_join(how: str, after: str) -> None:
    town = Chair(KmsSettings(removed_may_return=True))
    ben = town.guest("ben")
    town.epoch(join_of(ben))
    match after:
        case "left":
            town.epoch(leave_of(ben, 1), epoch=2)
        case "removed":
            town.epoch(RemoveChange(ben.identity), epoch=2)
        case "replaced":
            town.epoch(join_of(town.guest("ben", 2)), epoch=2)
        case _:
            pass
    token_g = ben.token_g if how == "the same" else ben.seal(time=NOW)
    epoch = 2 if after == "in" else 3
    for now in (NOW, NOW + TOKEN_AGE_S):
        request = town.asks(join_of(ben, token_g=token_g), epoch=epoch, time=now)
        refuses(town, request, Check.OR_10, RefusalCode.REPLAY, now=now)
    request = town.asks(join_of(ben, token_g=token_g), epoch=epoch, time=NOW + SEEN_S + 1)
    refuses(town, request, Check.OR_09, RefusalCode.STALE, now=NOW + SEEN_S + 1)


def test_or_10_a_token_serves_one_join_of_one_request(town: Chair) -> None:
    ben = town.guest("ben")
    request = town.asks(join_of(ben), join_of(ben))
    refuses(town, request, Check.OR_10, RefusalCode.REPLAY, change=1)


def test_or_11_requests_a_second_of_a_member() -> None:
    town = Chair(KmsSettings(key_requests_per_s=1))
    town.epoch(join_of(town.guest("ben")))
    refuses(town, town.asks(join_of(town.guest("ben", 2)), epoch=2), Check.OR_11, RefusalCode.TOO_MANY)


def fill(town: Chair, count: int, user: str = "guest") -> None:
    for first in range(0, count, 16):
        guests = [town.guest(f"{user}{number}") for number in range(first, min(first + 16, count))]
        town.epoch(*map(join_of, guests), epoch=first // 16 + 1)


def test_or_11_members_of_a_conference(town: Chair) -> None:
    fill(town, MEMBERS_MAX)
    late = town.guest("late")
    epoch = MEMBERS_MAX // 16 + 1
    refuses(town, town.asks(join_of(late), epoch=epoch), Check.OR_11, RefusalCode.TOO_MANY)
    second = town.guest("guest0", 2)
    town.epoch(join_of(second), epoch=epoch)  # in another one's place
    town.epoch(leave_of(second, epoch), join_of(late), epoch=epoch + 1)
    assert len(town.group.members) == MEMBERS_MAX


def test_or_11_octets_of_a_roster(town: Chair) -> None:
    most = ROSTER_OCTETS_MAX // 255
    host = f"@{'h' * 230}.example"
    for number in range(most + 1):
        user = f"u{number}".ljust(255 - len("sip:") - len(host), "x")
        town.subscribe(f"psk:u{number}", f"sip:{user}{host}")

    def long(number: int) -> JoinChange:
        identity = town.subscriber(f"psk:u{number}").identities[0]
        return join_of(town.guest("long", number, device=f"u{number}", identity=identity))

    for number in range(most):
        town.epoch(long(number), epoch=number + 1)
    request = town.asks(long(most), epoch=most + 1)
    refuses(town, request, Check.OR_11, RefusalCode.TOO_MANY)


@pytest.mark.parametrize("permits", [(), (Permit.DEFERRED,), (Permit.DEFERRED, Permit.TRANSCODE)])
def test_or_13_token_g_permits_a_conference(town: Chair, permits: tuple[Permit, ...]) -> None:
    ben = town.guest("ben", permits=permits)
    spoilt(town, Check.OR_13, RefusalCode.NOT_PERMITTED, token_g=ben.token_g)


def test_or_14_a_focus_serves_the_users_of_its_hosts() -> None:
    town = Chair(serves=("other.example",))
    refuses(town, town.asks(join_of(town.guest("ann"))), Check.OR_14, RefusalCode.NOT_PERMITTED)
    town.change("psk:focus", serves=("other.example", "ims.example"))
    town.epoch(join_of(town.guest("ann")))


def test_or_14_who_was_put_out_comes_back_by_policy_only(town: Chair) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann), join_of(ben))
    town.epoch(RemoveChange(ben.identity), epoch=2)
    again = join_of(town.guest("ben", 2))
    refuses(town, town.asks(again, epoch=3), Check.OR_14, RefusalCode.NOT_PERMITTED)
    tablet = join_of(town.guest("ben", 3, device="ben-2"))
    refuses(town, town.asks(tablet, epoch=3), Check.OR_14, RefusalCode.NOT_PERMITTED)
    town.agent = Kms(town.profile, KmsSettings(removed_may_return=True))
    town.epoch(again, epoch=3)
    assert town.group.removed == ()


def test_or_15_a_join_is_the_first_run_of_its_call(town: Chair) -> None:
    ben = town.guest("ben", n=1)
    spoilt(town, Check.OR_15, RefusalCode.NOT_FOUND, run=1, token_g=ben.token_g)


# Of a leave, and of a removal.


def test_or_05_a_leave_that_its_member_has_not_sealed(town: Chair) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann), join_of(ben))
    forged = leave_of(ben, 1, sealed=leave_of(ann, 1).sealed)
    refuses(town, town.asks(forged, epoch=2), Check.OR_05, RefusalCode.DENIED)
    of_ann = leave_of(ann, 1, member=ben.identity, member_key=ben.key_id)
    refuses(town, town.asks(of_ann, epoch=2), Check.OR_05, RefusalCode.DENIED)


@pytest.mark.parametrize("other", ["before it joined", "in another conference"])
def test_or_05_a_leave_is_of_this_conference_and_epoch(town: Chair, other: str) -> None:
    ben = town.guest("ben")
    town.epoch(join_of(ben))
    town.epoch(RefreshChange(), epoch=2)
    if other == "before it joined":
        change = leave_of(ben, 1, epoch=2)
        refuses(town, town.asks(change, epoch=3), Check.OR_05, RefusalCode.DENIED)
        return
    elsewhere = town.guest("ben", 5)
    sealed = elsewhere.seal(group=CALL)  # any other seal under the same key
    refuses(town, town.asks(leave_of(ben, 1, sealed=sealed), epoch=3), Check.OR_05, RefusalCode.DENIED)


def test_or_07_a_leave_of_an_earlier_join(town: Chair) -> None:
    ben = town.guest("ben")
    town.epoch(join_of(ben))
    old = leave_of(ben, 1)
    town.epoch(old, epoch=2)
    again = town.guest("ben", 2)
    town.epoch(join_of(again), epoch=3)
    refuses(town, town.asks(old, epoch=4), Check.OR_15, RefusalCode.NOT_FOUND)  # of before its join
    forward = leave_of(ben, 3)  # the earlier nonce with a later epoch
    refuses(town, town.asks(forward, epoch=4), Check.OR_07, RefusalCode.DENIED)
    town.epoch(leave_of(again, 3), epoch=4)


def test_or_15_a_leave_of_who_is_not_in(town: Chair) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann))
    refuses(town, town.asks(leave_of(ben, 1), epoch=2), Check.OR_15, RefusalCode.NOT_FOUND)


@pytest.mark.parametrize("how", ["was never in", "has left", "has no key id any more"])
def test_or_14_who_is_put_out_and_is_not_in_does_not_come_either(town: Chair, how: str) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann), *([] if how == "was never in" else [join_of(ben)]))
    now = NOW
    if how == "has left":
        town.epoch(leave_of(ben, 1), RemoveChange(ben.identity), epoch=2)
    else:
        ends = town.group.members[-1].not_after if how == "has no key id any more" else NOW
        now = ends + 1
        town.change("psk:focus", not_after=now + EPOCH_S)
        town.epoch(RemoveChange(ben.identity), epoch=2, now=now)
    assert town.group.removed == (ben.identity,)
    tablet = join_of(town.guest("ben", 3, device="ben-2", time=now))
    town.change("psk:ben-2", not_after=now + EPOCH_S)
    request = town.asks(tablet, epoch=3, time=now)
    refuses(town, request, Check.OR_14, RefusalCode.NOT_PERMITTED, now=now)


def test_or_11_so_many_are_kept_out_who_were_never_in(town: Chair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "_BARRED_MAX", 1)
    ann = town.guest("ann")
    town.epoch(join_of(ann))
    town.epoch(RemoveChange(EVE), RemoveChange(EVE), epoch=2)
    refuses(town, town.asks(RemoveChange(BOB), epoch=3), Check.OR_11, RefusalCode.TOO_MANY)
    town.epoch(RemoveChange(ann.identity), epoch=3)  # who is in is always put out
    assert town.group.removed == (ann.identity, EVE)


def test_who_is_absent_is_out_and_may_come_again(town: Chair) -> None:
    ann, ben = town.guest("ann"), town.guest("ben")
    town.epoch(join_of(ann), join_of(ben))
    town.epoch(AbsentChange(ben.identity), AbsentChange(EVE), epoch=2)
    assert [each.identity for each in town.group.members] == [ann.identity]
    assert town.group.removed == ()
    town.epoch(join_of(town.guest("ben", 2)), epoch=3)
    assert len(town.group.members) == 2


def test_or_15_a_leave_of_the_device_that_was_replaced(town: Chair) -> None:
    phone, tablet = town.guest("ben"), town.guest("ben", 2, device="ben-2")
    town.epoch(join_of(phone))
    town.epoch(join_of(tablet), epoch=2)
    refuses(town, town.asks(leave_of(phone, 1), epoch=3), Check.OR_15, RefusalCode.NOT_FOUND)
    refuses(town, town.asks(leave_of(phone, 2), epoch=3), Check.OR_15, RefusalCode.NOT_FOUND)


def test_or_15_a_leave_of_an_epoch_that_is_still_to_come(town: Chair) -> None:
    ben = town.guest("ben")
    town.epoch(join_of(ben))
    refuses(town, town.asks(leave_of(ben, 2), epoch=2), Check.OR_15, RefusalCode.NOT_FOUND)
    refuses(town, town.asks(leave_of(ben, 9), epoch=2), Check.OR_15, RefusalCode.NOT_FOUND)
