"""Members of a conference and the real KMS: what the one seals the other opens; who has gone has no key."""

from __future__ import annotations

from typing import Any, Final

from media.leg import OpenMedia, RenewMedia
from protocol.conference import EpochName, seal_focus_token
from protocol.evidence import FocusToken, Holder
from protocol.limits import OVERLAP_S
from protocol.names import Owner, Role, Suite
from storage.attendance_records import AttendanceState
from tests.agents.collector import only
from tests.agents.member import ALONE, ANSWER, AT, FOCUS, GROUP, KEY_ID, WITH_BOB, Alice, join, leave
from tests.agents.scene import ALICE, BOB, NOW, Town
from topics.messages import (
    Change,
    GroupGrant,
    GroupRequest,
    InUse,
    Join,
    JoinChange,
    Joined,
    Leave,
    LeaveChange,
    LeaveOk,
    Rekey,
)

FOCUS_KEY: Final = "psk:conference"


class Bob(Alice):
    """Another host, with bob's device on it."""

    identity = BOB
    device = "bob@ims.example"
    key_id = "psk:bob"


class Room(Town):
    """A KMS that knows a focus, and what that focus would ask and hand on."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribe(FOCUS_KEY, FOCUS, owner=Owner.FOCUS)
        self.subscribe(KEY_ID, ALICE)
        self.epoch = 0

    def next_epoch(self, *changes: Change) -> dict[str, bytes]:
        """grant_i of each member."""
        self.epoch += 1
        holder = Holder(Role.FOCUS, FOCUS_KEY, self.subscriber(FOCUS_KEY).key)
        name = EpochName(group=GROUP, epoch=self.epoch, focus=FOCUS, suite=Suite.AES_256_GCM)
        token_c = seal_focus_token(
            holder,
            name,
            FocusToken(GROUP, self.epoch, self.random(16), NOW),
            changes=[change.octets for change in changes],
            random=self.random,
        )
        request = GroupRequest(
            group=GROUP,
            focus=FOCUS,
            epoch=self.epoch,
            focus_key=FOCUS_KEY,
            suite=Suite.AES_256_GCM,
            changes=changes,
            token_c=token_c,
        )
        messages = [send.message for send in self.give(request).sends]
        return {each.member: each.grant for each in messages if isinstance(each, GroupGrant)}


def joining(asked: Join) -> JoinChange:
    return JoinChange(
        call=asked.call,
        run=asked.run,
        member=asked.member,
        member_key=asked.member_key,
        suite=asked.suite,
        token_g=asked.token_g,
    )


def going(left: Leave) -> LeaveChange:
    return LeaveChange(member=left.member, member_key=left.member_key, epoch=left.epoch, sealed=left.sealed)


def to(asked: Join) -> dict[str, Any]:
    return {
        "group": GROUP,
        "focus": FOCUS,
        "call": asked.call,
        "member": asked.member,
        "to": asked.sender.device,
    }


def joined(asked: Join, epoch: int, grant: bytes) -> Joined:
    return Joined(epoch=epoch, grant=grant, answer=ANSWER, media=AT, **to(asked))


def rekey(asked: Join, epoch: int, grant: bytes) -> Rekey:
    return Rekey(epoch=epoch, grant=grant, media=AT, **to(asked))


def roster(member: Alice) -> tuple[str, ...]:
    return member.attendance.roster


def test_two_join_and_one_leaves() -> None:
    room = Room()
    alice = Alice(key=room.subscriber(KEY_ID).key)
    bob = Bob(key=room.subscriber(Bob.key_id).key)

    of_alice = only(Join, alice.give(join()))
    grants = room.next_epoch(joining(of_alice))
    first = alice.give(joined(of_alice, 1, grants[ALICE]))
    assert only(InUse, first).epoch == 1
    assert roster(alice) == ALONE
    [opened] = first.media
    assert isinstance(opened, OpenMedia)

    of_bob = only(Join, bob.give(join(to=bob.device)))
    grants = room.next_epoch(joining(of_bob))
    second = alice.give(rekey(of_alice, 2, grants[ALICE]))
    [renewed] = second.media
    assert isinstance(renewed, RenewMedia)
    assert renewed.overlap_s == OVERLAP_S
    only(InUse, bob.give(joined(of_bob, 2, grants[BOB])))
    assert roster(alice) == roster(bob) == WITH_BOB
    assert alice.epoch_keys == bob.epoch_keys != [opened.leg.root]

    left = only(Leave, bob.give(leave(to=bob.device)))
    grants = room.next_epoch(going(left))
    assert set(grants) == {ALICE}
    third = alice.give(rekey(of_alice, 3, grants[ALICE]))
    [renewed] = third.media
    assert isinstance(renewed, RenewMedia)
    assert (renewed.overlap_s, renewed.leg.n) == (0, 3)
    assert roster(alice) == ALONE
    bob.give(LeaveOk(**to(of_bob)))
    assert (bob.state, bob.epoch_keys) == (AttendanceState.OUT, [])


def test_who_is_let_in_after_she_gave_up_is_out_again_by_her_own_leave() -> None:
    room = Room()
    alice = Alice(key=room.subscriber(KEY_ID).key)
    bob = Bob(key=room.subscriber(Bob.key_id).key)
    of_alice = only(Join, alice.give(join()))
    of_bob = only(Join, bob.give(join(to=bob.device)))
    alice.give(alice.alarm(), NOW + 32)
    assert alice.state is AttendanceState.OUT
    grants = room.next_epoch(joining(of_alice), joining(of_bob))
    left = only(Leave, alice.give(joined(of_alice, 1, grants[ALICE])))
    assert set(room.next_epoch(going(left))) == {BOB}
