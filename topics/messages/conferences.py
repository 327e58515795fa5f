"""Conferences (section 8): members, call control, focus, KMS, and what operators ask of a focus."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from protocol.checks import RefusalCode
from protocol.conference import REFRESH, absent_change, join_change, leave_change, remove_change
from protocol.limits import CHANGES_MAX, MEMBERS_MAX, ROSTER_SEAL_OCTETS_MAX
from protocol.names import CallId, Epoch, GroupId, Identity, Impi, KeyId, Nonce, RunNumber, Suite, Time
from protocol.transport import MediaAddress
from topics.messages.form import Contact, DescriptionOctets, Sealed, Text, Wire

RosterSealed = Annotated[bytes, Meta(min_length=28, max_length=ROSTER_SEAL_OCTETS_MAX)]


class OfGroup(Wire, frozen=True, kw_only=True):
    """G and ID-C in clear, which every message of a conference carries."""

    group: GroupId
    focus: Identity


def named_group(message: OfGroup) -> dict[str, Any]:
    """The same fields, for an answer to a message of the conference."""
    return {"group": message.group, "focus": message.focus}


# Members and the focus. Towards the focus by way of call control, which knows a member's devices; back
# straight into the inbox of the device's host. C names the member's attendance.


class Join(OfGroup, tag="join", frozen=True, kw_only=True):
    """1  i -> CSCF -> C: the INVITE of a conference; repeated until Joined comes."""

    call: CallId
    run: RunNumber
    member: Identity
    member_key: KeyId
    suite: Suite
    offer: DescriptionOctets
    token_g: Sealed
    media: MediaAddress
    sender: Contact


class Joined(OfGroup, tag="joined", frozen=True, kw_only=True):
    """4  C -> i: the 200 OK, with the first epoch that this member is in."""

    call: CallId
    member: Identity
    epoch: Epoch
    grant: RosterSealed
    answer: DescriptionOctets
    media: MediaAddress
    to: Impi


class JoinRefused(OfGroup, tag="join-refused", frozen=True, kw_only=True):
    """C -> i: a hint, since nothing seals it."""

    call: CallId
    member: Identity
    code: RefusalCode
    to: Impi


class Rekey(OfGroup, tag="rekey", frozen=True, kw_only=True):
    """4  C -> i: another epoch, or the same one once more; repeated until InUse comes. media: where the focus
    listens, which changes when another instance takes the conference over."""

    call: CallId
    member: Identity
    epoch: Epoch
    grant: RosterSealed
    media: MediaAddress
    to: Impi


class InUse(OfGroup, tag="in-use", frozen=True, kw_only=True):
    """i -> CSCF -> C: this member has taken the epoch, and sends under it."""

    call: CallId
    member: Identity
    epoch: Epoch
    sender: Contact


class Leave(OfGroup, tag="leave", frozen=True, kw_only=True):
    """i -> CSCF -> C: repeated until LeaveOk comes. epoch: the last one that the member took."""

    call: CallId
    member: Identity
    member_key: KeyId
    epoch: Epoch
    sealed: Sealed
    sender: Contact


class LeaveOk(OfGroup, tag="leave-ok", frozen=True, kw_only=True):
    """C -> i."""

    call: CallId
    member: Identity
    to: Impi


class PutOut(OfGroup, tag="put-out", frozen=True, kw_only=True):
    """C -> i: this member is no longer in, or the conference has ended. A hint: it ends, it never weakens."""

    call: CallId
    member: Identity
    reason: Text
    to: Impi


# The focus and the KMS. `octets` of a change is what token_c binds the hash of.


class JoinChange(msgspec.Struct, tag="join", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Somebody wants to come in. The clear fields are those of its Join."""

    call: CallId
    run: RunNumber
    member: Identity
    member_key: KeyId
    suite: Suite
    token_g: Sealed

    @property
    def octets(self) -> bytes:
        """enc("join", token_g)."""
        return join_change(self.token_g)


class LeaveChange(msgspec.Struct, tag="leave", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Somebody leaves."""

    member: Identity
    member_key: KeyId
    epoch: Epoch
    sealed: Sealed

    @property
    def octets(self) -> bytes:
        """enc("leave", sealed)."""
        return leave_change(self.sealed)


class RemoveChange(msgspec.Struct, tag="remove", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Somebody is put out."""

    member: Identity

    @property
    def octets(self) -> bytes:
        """enc("remove", ID)."""
        return remove_change(self.member)


class AbsentChange(msgspec.Struct, tag="absent", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Somebody takes no epoch any more."""

    member: Identity

    @property
    def octets(self) -> bytes:
        """enc("absent", ID)."""
        return absent_change(self.member)


class RefreshChange(msgspec.Struct, tag="refresh", tag_field="type", frozen=True, forbid_unknown_fields=True):
    """Nobody comes or goes; also those go whose key id has ended."""

    @property
    def octets(self) -> bytes:
        """enc("refresh")."""
        return REFRESH


Change = JoinChange | LeaveChange | RemoveChange | AbsentChange | RefreshChange


class GroupRequest(OfGroup, tag="group-request", frozen=True, kw_only=True):
    """2  C -> KMS: the next epoch, with these changes."""

    epoch: Epoch
    focus_key: KeyId
    suite: Suite
    changes: Annotated[tuple[Change, ...], Meta(min_length=1, max_length=CHANGES_MAX)]
    token_c: Sealed


class GroupResponse(OfGroup, tag="group-response", frozen=True, kw_only=True):
    """3  KMS -> C. A GroupGrant for each member follows."""

    epoch: Epoch
    grant_c: RosterSealed


class GroupGrant(OfGroup, tag="group-grant", frozen=True, kw_only=True):
    """3  KMS -> C: grant_i, for the focus to forward."""

    epoch: Epoch
    member: Identity
    grant: RosterSealed


class GroupRefusal(OfGroup, tag="group-refusal", frozen=True, kw_only=True):
    """3' KMS -> C. sealed: where token_c has opened, else a hint. change: which of the changes was refused,
    from 0; None: the request as a whole."""

    epoch: Epoch
    code: RefusalCode
    sealed: Sealed | None
    change: Annotated[int, Meta(ge=0, lt=CHANGES_MAX)] | None = None


class GroupHint(OfGroup, tag="group-hint", frozen=True, kw_only=True):
    """KMS -> C: a key id of a member has been revoked; ask for the next epoch."""


class WithdrawMember(OfGroup, tag="withdraw-member", frozen=True, kw_only=True):
    """Custodian -> KMS: look at this conference again, since this key id of it has been revoked. It says
    nothing that the records do not."""

    key_id: KeyId


# What an operator asks of a focus, and what it tells.


class CreateConference(Wire, tag="create-conference", frozen=True, kw_only=True):
    """Command line -> C: begin a conference. group: drawn by whoever asks, so that a repeat is no second
    one, and so that the whole conference lives in the partition that G names."""

    group: GroupId
    focus: Identity
    request: Nonce


class RemoveMember(OfGroup, tag="remove-member", frozen=True, kw_only=True):
    """Command line -> C: put this member out."""

    member: Identity
    request: Nonce


class EndConference(OfGroup, tag="end-conference", frozen=True, kw_only=True):
    """Command line -> C: put everybody out, and begin no epoch any more."""

    request: Nonce


class ShowConference(OfGroup, tag="show-conference", frozen=True, kw_only=True):
    """Command line -> C: tell how it stands."""

    request: Nonce


class ConferenceEvent(StrEnum):
    """What a focus tells the world."""

    CREATED = "created"
    EPOCH = "epoch"  # grant_c of a new epoch has been taken
    REFUSED = "refused"  # a change, by the KMS; or a message failed a check of the focus's
    SPEAKERS = "speakers"  # who is heard has changed
    TAKEN_OVER = "taken-over"  # another instance mixes from now on
    STANDS = "stands"  # the answer to ShowConference
    UNKNOWN = "unknown"  # there is no such conference, or no longer
    ENDED = "ended"


class ConferenceReport(OfGroup, tag="conference-report", frozen=True, kw_only=True):
    """C -> ims.reports."""

    event: ConferenceEvent
    at: Time
    epoch: Annotated[int, Meta(ge=0)] = 0
    roster: Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX + 1)] = ()
    in_use: Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX)] = ()  # who has taken this epoch
    speakers: Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX)] = ()
    member: Identity | None = None
    code: RefusalCode | None = None
    reason: Text | None = None
    request: Nonce | None = None
    instance: Text | None = None  # which process mixes
    not_after: Time | None = None
