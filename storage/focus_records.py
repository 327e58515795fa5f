"""What a focus remembers: its conferences, who is in them, and which epoch's key they hold.

All records of one conference are in one shard, that of G, and so in the hands of one instance. A focus that
mixes has K_e, so that another instance can take the conference over.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from protocol.names import Suite
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of

ROLE = "conference"


class AttendeeState(StrEnum):
    """How one device's being in a conference stands."""

    ASKING = "asking"  # it wants to come in, and the KMS has not said that it is
    IN = "in"
    GOING = "going"  # it leaves or was put out, and the KMS has not made an epoch without it yet


class Attendee(Record, frozen=True, kw_only=True):
    """One device in a conference, by the call that its join has named."""

    identity: str  # ID-i
    call: bytes
    state: AttendeeState
    host: str
    device: str
    key_id: str
    token_hash: bytes  # H(token_g)
    answer: bytes
    media: MediaAddress  # where it listens
    line: int | None  # of the process that mixes; None: it has none for it
    since: int
    in_use: int = 0  # the last epoch that it says it has taken, from the process that mixes
    confirmed: bool = False  # it has taken one
    awaited: int = 0  # since when it owes that it has taken an epoch, the last one or an earlier one
    put_out: bool = False  # by an operator


class ChangeKind(StrEnum):
    """What is to be different in the next epoch."""

    LEAVE = "leave"
    REMOVE = "remove"
    ABSENT = "absent"
    JOIN = "join"
    REFRESH = "refresh"


class Wanted(Record, frozen=True, kw_only=True):
    """One change that the KMS is asked for, or will be."""

    kind: ChangeKind
    member: str = ""
    call: bytes = b""
    key_id: str = ""
    suite: Suite = Suite.AES_256_GCM
    sealed: bytes = b""  # token_g, or the leave
    epoch: int = 0


class Asked(Record, frozen=True, kw_only=True):
    """One GROUP as it went out, so that its repeat is octet for octet."""

    epoch: int
    token_c: bytes
    nonce: bytes  # Nc
    changes: tuple[Wanted, ...]


class ConferenceState(StrEnum):
    """Whether it goes on."""

    OPEN = "open"
    ENDED = "ended"  # tells who comes late, until it is forgotten


class Conference(Record, frozen=True, kw_only=True):
    """One conference at its last epoch."""

    secret: ClassVar[bool] = True

    focus: str  # ID-C
    group: bytes  # G
    state: ConferenceState
    instance: str  # which process mixes it
    since: int  # created, or last without anybody
    members: tuple[Attendee, ...] = ()
    epoch: int = 0  # the last one that was taken
    next_epoch: int = 1
    key: Secret | None = None  # K_e, of a focus that mixes
    granted: int = 0  # now of grant_c
    taken_at: int = 0  # when it came, on this focus's clock
    not_after: int = 0
    roster: tuple[str, ...] = ()
    refresh_at: int = 0
    queue: tuple[Wanted, ...] = ()  # changes that the KMS has not been asked for yet
    asked: tuple[Asked, ...] = ()  # for the next epoch, the last one is open; empty: none is
    taken: Asked | None = None  # what this epoch was asked with
    repeats: int = 0
    repeat_at: int = 0
    heard_at: int = 0  # when somebody has last taken an epoch
    again_at: int = 0  # when this epoch's grants were last asked for once more
    missed: bool = False  # the KMS has made an epoch that never came here: who is in, the next one tells
    reason: str = ""  # why it has ended
    forget_at: int = 0
    speakers: tuple[str, ...] = ()  # who was loud when the engine has last said so, the loudest first

    @staticmethod
    def key_for(group: bytes) -> Key[Conference]:
        """Found by G."""
        return key_of(Conference, ROLE, "conference", group.hex())


class Handed(Record, frozen=True, kw_only=True):
    """The last grant for one member, as the KMS has sealed it, or so it seems: a focus cannot open it."""

    epoch: int
    grant: bytes
    repeats: int = 0

    @staticmethod
    def key_for(group: bytes, member: str) -> Key[Handed]:
        """Found by G and ID-i."""
        return key_of(Handed, ROLE, "handed", f"{group.hex()} {member}", shard_by=group.hex())


class FocusLines(Record, frozen=True, kw_only=True):
    """Which member each line of one process carries, by the session's name."""

    sessions: tuple[str | None, ...] = ()

    @staticmethod
    def key_for(instance: str) -> Key[FocusLines]:
        """Found by the process's own name, which no other has had."""
        return key_of(FocusLines, ROLE, "lines", instance)
