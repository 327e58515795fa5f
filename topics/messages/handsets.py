"""What a user says to a handset, and what handsets tell the world."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from protocol.checks import Check
from protocol.limits import MEMBERS_MAX, SOUND_PART_OCTETS, SOUND_PARTS_MAX
from protocol.names import CallId, Epoch, ForkName, GroupId, Identity, Impi, Nonce, RunNumber, Time
from protocol.transport import Statistics
from topics.messages.form import Text, Wire


class Dial(Wire, tag="dial", frozen=True, kw_only=True):
    """Command line -> UE: call this identity. request: names the wish; its repeat is no second call.
    sound: which one to say, of those that the host was given (see Sound); the host's own when None."""

    request: Nonce
    to: Impi
    callee: Identity
    sound: Nonce | None = None


class ListMessages(Wire, tag="list-messages", frozen=True, kw_only=True):
    """Command line -> UE: tell, by reports that carry the request, what is in this user's mailbox, and which
    messages this device has left in others'."""

    request: Nonce
    to: Impi


class PlayMessage(Wire, tag="play-message", frozen=True, kw_only=True):
    """Command line -> UE: fetch this message, play it, and have it deleted if it was whole."""

    request: Nonce
    to: Impi
    caller: Identity
    call: CallId
    keep: bool = False  # leave it in the mailbox, whole or not


class DeleteMessage(Wire, tag="delete-message", frozen=True, kw_only=True):
    """Command line -> UE: have this message deleted, unheard; one for this user, or one that she has left."""

    request: Nonce
    to: Impi
    caller: Identity
    call: CallId


class JoinConference(Wire, tag="join-conference", frozen=True, kw_only=True):
    """Command line -> UE: go into this conference. sound: as in Dial."""

    request: Nonce
    to: Impi
    group: GroupId
    focus: Identity
    sound: Nonce | None = None


class LeaveConference(Wire, tag="leave-conference", frozen=True, kw_only=True):
    """Command line -> UE: leave it."""

    request: Nonce
    to: Impi
    group: GroupId
    focus: Identity


class HangUp(Wire, tag="hang-up", frozen=True, kw_only=True):
    """Command line -> UE."""

    to: Impi
    caller: Identity
    call: CallId


class SoundUse(StrEnum):
    """What a sound is to its UE host."""

    SAY = "say"  # the command's, to be played into a call
    KEPT = "kept"  # the host's answer: it has the whole sound
    HEARD = "heard"  # the host's: what a handset heard of a call


class Sound(Wire, tag="sound", frozen=True, kw_only=True):
    """One second, at most, of a sound between the command line and a UE host; topics/sounds.py takes a sound
    apart and puts it together. about: the sound's own name, or C of the call that was heard."""

    use: SoundUse
    about: Nonce
    device: Impi | None = None  # who heard it
    part: Annotated[int, Meta(ge=0)] = 0
    parts: Annotated[int, Meta(ge=0, le=SOUND_PARTS_MAX)] = 0
    samples: Annotated[bytes, Meta(max_length=SOUND_PART_OCTETS)] = b""  # 16 bits each, little-endian, 8 kHz


class ReportEvent(StrEnum):
    """What a UE tells the world."""

    ATTACHED = "attached"  # the KMS holds this device's key
    REGISTERED = "registered"
    CALLING = "calling"
    RINGING = "ringing"
    UP = "up"  # grant and confirmation verified, media flows
    CONFIRMED = "confirmed"  # the callee saw confirm_a
    REFUSED = "refused"  # a message failed a check of this device's
    MEDIA = "media"  # how the media of a call went
    ENDED = "ended"
    MAILBOX = "mailbox"  # no device answered; a mailbox does, and keeps messages until `until`
    LEFT = "left"  # the mailbox has confirmed that it has stored the message; of a list: one left before
    WAITING = "waiting"  # a message for this device's user is in the mailbox
    LISTED = "listed"  # what was asked for by ListMessages has been told
    HEARD = "heard"  # a message was fetched, decrypted and played
    COLLECTED = "collected"  # the mailbox has deleted a message
    FAILED = "failed"  # a message was not fetched, or not deleted
    RENEWED = "renewed"  # media goes on under the key of this run
    TRANSCODED = "transcoded"  # a transcoder listens in: `transcoder` says which
    JOINING = "joining"  # a conference
    JOINED = "joined"  # grant verified: in the conference, in `epoch`, with those of `roster`
    EPOCH = "epoch"  # another epoch was taken
    LEFT_CONFERENCE = "left-conference"  # over, at this end


class Report(Wire, tag="report", frozen=True, kw_only=True):
    """UE -> ims.reports."""

    event: ReportEvent
    device: Impi
    at: Time
    call: CallId | None = None
    run: RunNumber | None = None
    caller: Identity | None = None
    callee: Identity | None = None
    fork: ForkName | None = None
    request: Nonce | None = None  # of the Dial
    check: Check | None = None
    reason: Text | None = None
    statistics: Statistics | None = None
    until: Time | None = None  # not_after of a message's key
    left_at: Time | None = None  # when a message was left: not_before + SKEW_S once its key is fetched
    packets: int | None = None  # that a mailbox has of it
    whole: bool | None = None  # heard to its end, the sender's own; else cut short, or perhaps
    transcoder: Identity | None = None
    group: GroupId | None = None
    epoch: Epoch | None = None
    roster: Annotated[tuple[Identity, ...], Meta(max_length=MEMBERS_MAX + 1)] = ()
