"""Which epoch key of a conference is kept, and until when (section 8).

One at a time: that of an epoch takes the place of the one before it. The last is destroyed when its time is
over, or when a key id of a member has been revoked. The record stays, so that the conference goes on with the
next number, who was put out stays out, and a token that may still be accepted is still remembered.
"""

from __future__ import annotations

import msgspec

from agents.alarms import EpochEnds
from agents.decision import NOTHING, Decision, Put, Records, Send, Wake
from protocol.encoding import digest, enc
from protocol.limits import LIFE_S, SEEN_S
from protocol.names import Role
from protocol.sealing import down_key
from storage.kms_records import Group, Member, Subscriber
from topics.catalogue import CONFERENCE
from topics.messages import Audit, AuditEvent, GroupHint, WithdrawMember, named_group


def keep(focus: str, group_id: bytes, group: Group, now: int) -> Decision:
    """Write the conference, without a key that is over, and see to the end of it."""
    key, about = Group.key_for(focus, group_id), group_id.hex()
    forgotten = group.not_after + LIFE_S + SEEN_S  # OR-10
    if now >= forgotten:
        return Decision(puts=(Put(key, None),))
    live = group.key is not None and now <= group.not_after
    kept = msgspec.structs.replace(
        group,
        key=group.key if live else None,
        spent=tuple(each for each in group.spent if each[1] >= now),
    )
    at = group.not_after + 1 if live else forgotten
    alarm = EpochEnds(focus, group_id)
    return Decision(
        puts=(Put(key, kept, forgotten),),
        wakes=(Wake(f"epoch-ends {focus} {about}", about, at, alarm),),
    )


def epoch_ends(alarm: EpochEnds, records: Records, now: int) -> Decision:
    """The time of the last epoch is over."""
    group = records.get(Group.key_for(alarm.focus, alarm.group))
    return NOTHING if group is None else keep(alarm.focus, alarm.group, group, now)


def withdraw(message: WithdrawMember, records: Records, now: int) -> Decision:
    """A key id that somebody has joined with, or the focus asks with, is revoked: so says its record, whoever
    says so here. The key of the epoch is destroyed, and the focus asked to ask for the next one; once more at
    each repeat, until it has."""
    group = records.get(Group.key_for(message.focus, message.group))
    subscriber = records.get(Subscriber.key_for(message.key_id))
    if group is None or subscriber is None:
        return NOTHING
    gone = {
        member.identity
        for member in group.members
        if member.key_id == message.key_id and (member.revoked or _lost(member, subscriber))
    }
    of_focus = group.focus_key == message.key_id and subscriber.revoked and now <= group.not_after
    if not gone and not of_focus:
        return NOTHING
    members = tuple(
        msgspec.structs.replace(member, revoked=True) if member.identity in gone else member
        for member in group.members
    )
    withdrawn = msgspec.structs.replace(group, members=members, key=None)
    noted = Audit(
        id=digest(enc("withdrawn", message.focus, message.group, group.epoch, message.key_id)),
        event=AuditEvent.WITHDRAWN,
        at=now,
        key_id=message.key_id,
        epoch=group.epoch,
        **named_group(message),
    )
    hint = Send(CONFERENCE, message.group.hex(), GroupHint(**named_group(message)))
    return keep(message.focus, message.group, withdrawn, now) + Decision(audit=(noted,), sends=(hint,))


def _lost(member: Member, subscriber: Subscriber) -> bool:
    """It joined with a key that was revoked; the key id may have a new one since."""
    if subscriber.revoked:
        return True
    same_key = member.notify == down_key(subscriber.key, member.suite, Role.MEMBER)
    return bool(subscriber.revoked_at) and not same_key
