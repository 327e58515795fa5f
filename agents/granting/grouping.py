"""The next epoch of a conference (section 8): the KMS decides who is in, and gives them a key of its own.

    C   -> KMS  GROUP           G, e, ID-C, KID-C, suite, changes, token_c
    KMS -> C    GROUP-RESPONSE  grant_c, and for each member GROUP-GRANT with grant_i     or GROUP-REFUSAL

K_e is drawn, and follows from no other. The same token_c gets it once more, freshly sealed.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.decision import NOTHING, Decision, Keys, Records, Send
from agents.granting.epoch_keys import keep
from agents.granting.hearing import Hearing, KmsSettings
from agents.granting.membership import Membership
from agents.granting.uses import note_conference, uses_keys
from protocol.checks import Check, RefusalCode, Refused
from protocol.conference import (
    EpochName,
    compare_group,
    open_focus_token,
    seal_epoch_grant,
    seal_focus_grant,
    seal_group_refusal,
)
from protocol.encoding import digest, enc
from protocol.evidence import EpochGrant, FocusGrant, FocusToken, Holder
from protocol.limits import EPOCH_S, SKEW_S
from protocol.names import MASTER_KEY_OCTETS, Role, Run
from protocol.profile import Profile
from protocol.sealing import Random
from protocol.secret import Secret
from storage.kms_records import Group, Rate, Site, Subscriber
from topics.catalogue import CONFERENCE
from topics.messages import (
    Audit,
    AuditEvent,
    GroupGrant,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    JoinChange,
    LeaveChange,
    OfGroup,
    RefreshChange,
    named_group,
)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A GROUP that may be answered."""

    group: Group
    focus: Holder
    token_c: FocusToken


@dataclass(slots=True)
class _Progress:
    """How far a GROUP has come: what its refusal is sealed with and names."""

    requester: tuple[Holder, FocusToken] | None = None  # once token_c has opened
    change: int | None = None


def reads(request: GroupRequest) -> Keys:
    """The records that a GROUP is judged by."""
    key_ids = {
        change.member_key: None
        for change in request.changes
        if isinstance(change, JoinChange | LeaveChange) and change.member_key != request.focus_key
    }
    return (
        Site.key(),
        Subscriber.key_for(request.focus_key),
        Group.key_for(request.focus, request.group),
        Rate.key_for(f"focus {request.focus}"),
        Rate.key_for(f"kid {request.focus_key}"),
        *(Subscriber.key_for(key_id) for key_id in key_ids),
        *(Rate.key_for(f"kid {key_id}") for key_id in key_ids),
        *uses_keys(request.group.hex(), request.focus_key, *key_ids),
    )


def group(
    profile: Profile, settings: KmsSettings, request: GroupRequest, records: Records, now: int, random: Random
) -> Decision:
    """A focus asks for the next epoch."""
    name = EpochName(group=request.group, epoch=request.epoch, focus=request.focus, suite=request.suite)
    run = Run(  # G and e name what is asked for, as C and n do elsewhere
        call=request.group, n=request.epoch, caller=request.focus, callee=request.focus, suite=request.suite
    )
    hearing, progress = Hearing(profile, settings, run, request.token_c, records, now), _Progress()
    try:
        judged = _judge(hearing, name, request, progress, random)
    except Refused as refused:
        return _refuse(hearing, name, request, progress, refused, random)
    return _grant(hearing, name, request, judged, random)


def _judge(
    hearing: Hearing, name: EpochName, request: GroupRequest, progress: _Progress, random: Random
) -> _Judged:
    """The conference in this epoch. Raises Refused."""
    with hearing.opening(f"focus {request.focus}"):
        focus, subscriber = hearing.holder(request.focus_key, request.focus, Role.FOCUS)
        token_c = open_focus_token(
            focus, name, request.token_c, changes=[change.octets for change in request.changes]
        )  # OR-05
    progress.requester = focus, token_c
    hearing.count(focus)
    if hearing.profile.lab_only:  # OR-14: the ten steps have no conferences
        raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
    compare_group(name, token_c, hearing.now)  # OR-07, OR-09
    hearing.site(token_c.time)  # OR-10

    known = hearing.records.get(Group.key_for(request.focus, request.group))
    if known is not None and request.epoch <= known.epoch:
        if request.epoch != known.epoch or known.token_hash != digest(request.token_c):  # OR-10
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        if known.key is None or hearing.now > known.not_after:  # OR-10: ended, and never made anew
            raise Refused(Check.OR_10, RefusalCode.EXPIRED)
        return _Judged(known, focus, token_c)
    if request.epoch != (known.epoch + 1 if known else 1):  # OR-15: only after the one before it
        raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
    membership = Membership(hearing, request, known, subscriber)
    for number, change in enumerate(request.changes):
        progress.change = None if isinstance(change, RefreshChange) else number
        membership.make(change)
    progress.change = None
    made = Group(
        epoch=request.epoch,
        token_hash=digest(request.token_c),
        key=Secret(random(MASTER_KEY_OCTETS)),
        granted=hearing.now,
        not_before=hearing.now - SKEW_S,
        not_after=min(hearing.now + EPOCH_S, subscriber.not_after),
        members=tuple(membership.members[each] for each in sorted(membership.members)),
        removed=tuple(sorted(membership.removed)),
        spent=tuple(membership.spent.items()),
        focus_key=focus.key_id,
        mixes=subscriber.mixes,
    )
    return _Judged(made, focus, token_c)


def roster_of(focus: str, group: Group) -> tuple[str, ...]:
    """Those whom K_e was given to, sorted: a focus that mixes is one of them."""
    members = [member.identity for member in group.members]
    return tuple(sorted([*members, focus] if group.mixes else members))


def _grant(
    hearing: Hearing, name: EpochName, request: GroupRequest, judged: _Judged, random: Random
) -> Decision:
    group, now = judged.group, hearing.now
    assert group.key is not None  # _judge refuses what was destroyed
    roster = roster_of(request.focus, group)
    to_focus = FocusGrant(
        request.group,
        request.epoch,
        judged.token_c.nonce,
        group.key if group.mixes else None,
        now,
        group.not_before,
        group.not_after,
        roster,
    )
    grant_c = seal_focus_grant(judged.focus, name, to_focus, token_c=request.token_c, random=random)
    about = named_group(request)
    answers: list[OfGroup] = [GroupResponse(epoch=request.epoch, grant_c=grant_c, **about)]
    for member in group.members:
        if member.revoked:
            continue
        to_member = EpochGrant(
            request.group,
            request.epoch,
            member.nonce,
            group.key,
            now,
            group.not_before,
            group.not_after,
            roster,
        )
        sealed = seal_epoch_grant(
            member.notify,
            member.suite,
            to_member,
            focus=request.focus,
            member=member.identity,
            key_id=member.key_id,
            token_hash=member.token_hash,
            random=random,
        )
        answers.append(GroupGrant(epoch=request.epoch, member=member.identity, grant=sealed, **about))
    noted = Audit(
        id=digest(enc("epoch", *_clear(request))),
        event=AuditEvent.EPOCH,
        at=group.granted,
        key_id=judged.focus.key_id,
        epoch=request.epoch,
        roster=roster,
        not_after=group.not_after,
        **about,
    )
    kept = keep(request.focus, request.group, group, now) + _note_uses(hearing, request, group)
    return kept + Decision(
        puts=hearing.rates.puts(),
        audit=(noted,),  # OR-16: who is in is written down before anything leaves
        sends=tuple(_to_focus(answer) for answer in answers),
    )


def _refuse(
    hearing: Hearing,
    name: EpochName,
    request: GroupRequest,
    progress: _Progress,
    refused: Refused,
    random: Random,
) -> Decision:
    """GROUP-REFUSAL with the change that it is about, and the truth for the audit."""
    sealed = None
    if progress.requester is not None:
        focus, token_c = progress.requester
        sealed = seal_group_refusal(
            focus, name, refused.code, token_c=request.token_c, nonce=token_c.nonce, random=random
        )
    change = None if progress.change is None else request.changes[progress.change]
    about = named_group(request)
    refusal = GroupRefusal(
        epoch=request.epoch, code=refused.code, sealed=sealed, change=progress.change, **about
    )
    noted = Audit(
        id=digest(enc("refused", *_clear(request), digest(request.token_c), refused.check)),
        event=AuditEvent.REFUSED,
        at=hearing.now,
        key_id=request.focus_key,
        caller=None if change is None or isinstance(change, RefreshChange) else change.member,
        caller_key=change.member_key if isinstance(change, JoinChange | LeaveChange) else None,
        epoch=request.epoch,
        check=refused.check,
        code=refused.code,
        **about,
    )
    return Decision(puts=hearing.rates.puts(), audit=(noted,), sends=(_to_focus(refusal),))


def _note_uses(hearing: Hearing, request: GroupRequest, group: Group) -> Decision:
    """The focus has a key until the epoch ends; who has joined, for as long as its key id lives: it may be in
    through many epochs that it is not named in."""
    ends = {request.focus_key: group.not_after}
    for member in group.members:
        if member.joined == group.epoch:
            ends[member.key_id] = member.not_after
    return sum(
        (
            note_conference(hearing.records, request.focus, request.group, [key_id], until, hearing.now)
            for key_id, until in ends.items()
        ),
        NOTHING,
    )


def _clear(request: GroupRequest) -> tuple[str, bytes, int]:
    return (request.focus, request.group, request.epoch)


def _to_focus(answer: OfGroup) -> Send:
    return Send(CONFERENCE, answer.group.hex(), answer)
