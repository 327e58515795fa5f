"""What a handset remembers of the conferences that it is in, in its host's memory: a handset that restarts
has left them, and joins anew if its user wants it."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from protocol.names import Run
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of
from storage.ue_records import ROLE


class AttendanceState(StrEnum):
    """How far it has come; agents/handset/attending.py says what may come in each."""

    JOINING = "joining"  # JOIN sent
    IN = "in"
    LEAVING = "leaving"  # LEAVE sent; K_e is gone, and media with it
    OUT = "out"


class Attendance(Record, frozen=True, kw_only=True):
    """One device in one conference. What was sent is kept as it was sent, so that a repeat is octet for
    octet."""

    session: str
    device: str
    run: Run  # C, 0, ID-i, ID-C; the suite is that of token_g
    group: bytes
    state: AttendanceState
    line: int
    request: bytes  # of the JoinConference
    own_key_id: str
    own_key: Secret  # K_i under which token_g was sealed
    token: bytes  # token_g
    nonce: bytes  # N_i
    offer: bytes
    repeat_at: int  # when to repeat what is not answered; see AttendanceAlarm
    give_up_at: int  # when this state has lasted too long; IN: when K_e ends, by both clocks
    repeats: int = 0
    sound: bytes | None = None  # of the JoinConference
    answer: bytes = b""
    epoch: int = 0  # the last one that was taken
    key: Secret | None = None  # K_e, while it is in
    roster: tuple[str, ...] = ()
    lifetime_s: int = 0  # of K_e from when it was taken, by whichever of both clocks ends it first
    focus_media: MediaAddress | None = None
    leave: bytes = b""  # what is sealed in LEAVE
    reason: str = ""  # why it is over

    @property
    def focus(self) -> str:
        """ID-C."""
        return self.run.callee


class Attendances(Record, frozen=True, kw_only=True):
    """All conferences of one device, those that it has just left among them; one for each (ID-C, G)."""

    secret: ClassVar[bool] = True

    known: tuple[Attendance, ...] = ()

    @staticmethod
    def key_for(impi: str) -> Key[Attendances]:
        """Found by IMPI."""
        return key_of(Attendances, ROLE, "attendances", impi, shard_by="")
