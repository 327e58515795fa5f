"""A KMS, and what a focus would ask it, right or wrong: for tests of its checks on a GROUP."""

from __future__ import annotations

from typing import Any

from agents.decision import Decision
from agents.kms import KmsSettings
from protocol.checks import Check, RefusalCode
from protocol.conference import (
    EpochName,
    open_focus_grant,
    open_focus_token,
    open_group_refusal,
    seal_focus_token,
)
from protocol.encoding import digest
from protocol.evidence import FocusGrant, FocusToken
from protocol.names import Owner, Role, Suite
from storage.kms_records import Group, Subscriber
from tests.agents.hall import FOCUS, GROUP, Guest
from tests.agents.scene import NOW, Town
from topics.messages import (
    Change,
    GroupGrant,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    JoinChange,
    LeaveChange,
)


def responses(decision: Decision) -> tuple[GroupResponse, list[GroupGrant]]:
    """GROUP-RESPONSE, and the grants after it."""
    first, *rest = [send.message for send in decision.sends]
    assert isinstance(first, GroupResponse), first
    grants = [each for each in rest if isinstance(each, GroupGrant)]
    assert len(grants) == len(rest)
    return first, grants


class Chair(Town):
    """A KMS, and what a focus would ask it, right or wrong."""

    def __init__(self, settings: KmsSettings | None = None, **changes: Any) -> None:
        """changes: of what the KMS knows of the focus."""
        super().__init__(settings)
        self.subscribe("psk:focus", FOCUS, owner=Owner.FOCUS, **changes)

    def guest(self, user: str, call: int = 1, *, device: str = "", **changes: Any) -> Guest:
        key_id = f"psk:{device or user}"
        if Subscriber.key_for(key_id).name not in self.records:
            self.subscribe(key_id, f"sip:{user}@ims.example")
        return Guest(self, user, digest(f"{user} {call}".encode())[:16], key_id, **changes)

    def asks(
        self,
        *changes: Change,
        epoch: int = 1,
        focus: str = FOCUS,
        focus_key: str = "psk:focus",
        group: bytes = GROUP,
        suite: Suite = Suite.AES_256_GCM,
        time: int = NOW,
        inside: dict[str, Any] | None = None,
        binds: list[bytes] | None = None,
    ) -> GroupRequest:
        """GROUP. inside: what token_c says otherwise; binds: the changes that it is sealed for."""
        name = EpochName(group=group, epoch=epoch, focus=focus, suite=suite)
        body = {"group": group, "epoch": epoch, "nonce": self.random(16), "time": time, **(inside or {})}
        token_c = seal_focus_token(
            self.holder(Role.FOCUS, focus_key),
            name,
            FocusToken(**body),
            changes=[change.octets for change in changes] if binds is None else binds,
            random=self.random,
        )
        return GroupRequest(
            group=group,
            focus=focus,
            epoch=epoch,
            focus_key=focus_key,
            suite=suite,
            changes=changes,
            token_c=token_c,
        )

    def epoch(self, *changes: Change, now: int = NOW, **fields: Any) -> GroupRequest:
        """One that is granted."""
        request = self.asks(*changes, time=now, **fields)
        responses(self.give(request, now))
        return request

    def nonce_of(self, request: GroupRequest) -> bytes:
        body = open_focus_token(
            self.holder(Role.FOCUS, request.focus_key),
            name_of_epoch(request),
            request.token_c,
            changes=[change.octets for change in request.changes],
        )
        return body.nonce

    def opened(self, request: GroupRequest, response: GroupResponse, now: int = NOW) -> FocusGrant:
        """grant_c, as its focus does."""
        return open_focus_grant(
            self.holder(Role.FOCUS, request.focus_key),
            name_of_epoch(request),
            response.grant_c,
            token_c=request.token_c,
            nonce=self.nonce_of(request),
            now=now,
        )

    @property
    def group(self) -> Group:
        record = self.records[Group.key_for(FOCUS, GROUP).name]
        assert isinstance(record, Group)
        return record


def name_of_epoch(request: GroupRequest) -> EpochName:
    return EpochName(group=request.group, epoch=request.epoch, focus=request.focus, suite=request.suite)


def join_of(guest: Guest, **changes: Any) -> JoinChange:
    """Its join, as a focus forwards it."""
    fields: dict[str, Any] = {
        "call": guest.call,
        "run": guest.n,
        "member": guest.identity,
        "member_key": guest.key_id,
        "suite": guest.suite,
        "token_g": guest.token_g,
        **changes,
    }
    return JoinChange(**fields)


def leave_of(guest: Guest, epoch: int, /, **changes: Any) -> LeaveChange:
    """Its leave after this epoch, as a focus forwards it."""
    leave = guest.leave(epoch)
    fields: dict[str, Any] = {
        "member": guest.identity,
        "member_key": guest.key_id,
        "epoch": epoch,
        "sealed": leave.sealed,
        **changes,
    }
    return LeaveChange(**fields)


def refuses(
    town: Chair,
    request: GroupRequest,
    check: Check,
    code: RefusalCode,
    *,
    change: int | None = 0,
    sealed: bool = True,
    now: int = NOW,
) -> None:
    """It is refused by this check alone: the change is named, and nothing but counters has changed."""
    decision = town.give(request, now)
    [refusal] = [send.message for send in decision.sends]
    assert isinstance(refusal, GroupRefusal), refusal
    [audit] = decision.audit
    assert (audit.event, audit.check, audit.code) == ("refused", check, code)
    assert (refusal.code, refusal.change) == (code, change)
    assert (refusal.sealed is not None) is sealed
    assert all(":rate:" in put.key.name for put in decision.puts), "a refusal changed a record"
    assert not decision.wakes
    if refusal.sealed is not None:
        opened = open_group_refusal(
            town.holder(Role.FOCUS, request.focus_key),
            name_of_epoch(request),
            refusal.sealed,
            token_c=request.token_c,
            nonce=town.nonce_of(request),
        )
        assert opened is code
