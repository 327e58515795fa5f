"""Who is in a conference once some changes were made: the KMS's own word on each of them (section 8).

A change is judged alone, in the order in which they came; one that fails fails all, and is named. token_g
serves one join; a leave is the member's own; who was put out comes back by policy only; a second device of an
identity takes the first one's place.
"""

from __future__ import annotations

from typing import Final

from agents.granting.hearing import Hearing
from protocol.checks import Check, RefusalCode, Refused
from protocol.conference import (
    compare_join,
    open_leave,
    open_member_token,
)
from protocol.encoding import digest, enc
from protocol.limits import MEMBERS_MAX, ROSTER_OCTETS_MAX, SEEN_S
from protocol.names import Permit, Role, Run
from protocol.sealing import down_key
from storage.kms_records import Group, Member, Subscriber
from topics.messages import (
    AbsentChange,
    Change,
    GroupRequest,
    JoinChange,
    LeaveChange,
    RefreshChange,
    RemoveChange,
)

_BARRED_MAX: Final = 1_024  # identities that were put out of one conference without having been in


class Membership:
    """Those who are in, while changes are made; whose key id has ended or was revoked is in no more."""

    def __init__(
        self, hearing: Hearing, request: GroupRequest, group: Group | None, focus: Subscriber
    ) -> None:
        """group: at its last epoch; None: it has had none. focus: what is known of it."""
        self._hearing: Final = hearing
        self._request: Final = request
        self._focus: Final = focus
        stay = [each for each in group.members if not self._ended(each)] if group else []
        self.members: dict[str, Member] = {each.identity: each for each in stay}
        self.removed: set[str] = set(group.removed) if group else set()
        self.spent: dict[bytes, int] = dict(group.spent) if group else {}

    def make(self, change: Change) -> None:
        """Raises Refused, and has changed nothing then."""
        match change:
            case JoinChange():
                self._join(change)
            case LeaveChange():
                self._leave(change)
            case RemoveChange():  # also who has just left, or is not in yet: he is not to come
                self._bar(change.member)
            case AbsentChange():  # the focus's word alone: it costs what not handing over a grant would
                self.members.pop(change.member, None)
            case RefreshChange():
                pass

    def _bar(self, identity: str) -> None:
        known = identity in self.members or identity in self.removed
        if not known and len(self.removed) >= _BARRED_MAX:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)
        self.members.pop(identity, None)
        self.removed.add(identity)

    def _ended(self, member: Member) -> bool:
        return member.revoked or self._hearing.now > member.not_after

    def _join(self, change: JoinChange) -> None:
        hearing, request = self._hearing, self._request
        run = Run(
            call=change.call, n=change.run, caller=change.member, callee=request.focus, suite=change.suite
        )
        if run.suite not in hearing.settings.suites:  # OR-01
            raise Refused(Check.OR_01, RefusalCode.UNSUPPORTED, "suite")
        holder, device = hearing.holder(change.member_key, run.caller, Role.MEMBER)
        if run.caller == run.callee or holder.key_id == request.focus_key:  # OR-08
            raise Refused(Check.OR_08)
        token = open_member_token(holder, run, request.group, change.token_g)  # OR-04
        hearing.count(holder)
        compare_join(run, request.group, token, hearing.now)  # OR-06, OR-09
        if run.n != 0:  # OR-15: a join is the first run of its call
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        if Permit.CONFERENCE not in token.permits:  # OR-13
            raise Refused(Check.OR_13, RefusalCode.NOT_PERMITTED)
        if not self._focus.may_serve(run.caller):  # OR-14
            raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
        if run.caller in self.removed and not hearing.settings.removed_may_return:  # OR-14
            raise Refused(Check.OR_14, RefusalCode.NOT_PERMITTED)
        hearing.site(token.time)  # OR-10
        served = digest(enc(run.caller, run.call))
        if served in self.spent:  # OR-10: token_g serves one join, and a call has one token_g
            raise Refused(Check.OR_10, RefusalCode.REPLAY)
        others = self.members.keys() - {run.caller}
        if len(others) >= MEMBERS_MAX:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)
        if sum(map(len, others | {run.caller, request.focus})) > ROSTER_OCTETS_MAX:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)
        self.spent[served] = token.time + SEEN_S
        self.removed.discard(run.caller)
        self.members[run.caller] = Member(
            identity=run.caller,
            key_id=holder.key_id,
            impi=device.impi,
            suite=run.suite,
            nonce=token.nonce,
            token_hash=digest(change.token_g),
            notify=down_key(holder.key, run.suite, Role.MEMBER),
            not_after=device.not_after,
            joined=request.epoch,
        )

    def _leave(self, change: LeaveChange) -> None:
        member = self.members.get(change.member)
        if member is None:  # OR-15
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        if member.key_id != change.member_key:  # OR-15: another device of this identity is in
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        if not member.joined <= change.epoch < self._request.epoch:  # OR-15: any epoch since it joined
            raise Refused(Check.OR_15, RefusalCode.NOT_FOUND)
        subscriber = self._hearing.records.get(Subscriber.key_for(member.key_id))
        if subscriber is None or not subscriber.revoked:  # else it is in no more, whoever says so
            holder, _ = self._hearing.holder(member.key_id, member.identity, Role.MEMBER)
            open_leave(
                holder,
                member.suite,
                self._request.group,
                change.epoch,
                member.identity,
                change.sealed,
                nonce=member.nonce,
            )  # OR-05, OR-07
        del self.members[member.identity]
