"""A UE host with alice's device on it, and what a focus and a KMS would send it, for tests of conferences.

The KMS that is played here knows the device's key: what it sends is sealed under the right key, and may be
wrong inside.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar, Final

from agents.alarms import AttendanceAlarm
from agents.decision import Decision
from agents.handset.ue_call import UeSettings
from agents.ue import Ue
from chaos.eavesdropping import secrets_in
from chaos.silent_media import NO_STATISTICS
from media.leg import MediaClosed, MediaInstruction, MediaSilent
from protocol.conference import open_leave, open_member_token, seal_epoch_grant
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import EpochGrant, Holder, MemberToken
from protocol.limits import EPOCH_S, SKEW_S
from protocol.names import Role, Run
from protocol.profile import HARDENED, Profile
from protocol.sealing import down_key
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.attendance_records import Attendance, Attendances, AttendanceState
from storage.ue_records import Handset, HandsetKey, Lines
from tests.agents.collector import only, report
from tests.agents.scene import ALICE, BOB, NOW, Stage
from topics.messages import (
    InUse,
    Join,
    JoinConference,
    Joined,
    JoinRefused,
    Leave,
    LeaveConference,
    LeaveOk,
    PutOut,
    Rekey,
    ReportEvent,
)

FOCUS: Final = "sip:conference@ims.example"
CAROL: Final = "sip:carol@ims.example"
GROUP: Final = b"G" * 16
DEVICE: Final = "alice-1@ims.example"
KEY_ID: Final = "psk:alice-1@ims.example"
REQUEST: Final = b"r" * 16
ANOTHER: Final = b"s" * 16  # wish
OWN: Final = MediaAddress("127.0.0.1", 9)
AT: Final = MediaAddress("10.0.0.1", 4000)  # where the focus listens
ELSEWHERE: Final = MediaAddress("10.0.0.2", 4002)
ANSWER: Final = Description((SrtpSuite.AEAD_AES_256_GCM,), ("PCMU",), Flow.SENDRECV).octets
ALONE: Final = (ALICE, FOCUS)
WITH_BOB: Final = (ALICE, BOB, FOCUS)


def epoch_key(epoch: int) -> Secret:
    """K_e."""
    return Secret(random.Random(f"K{epoch}").randbytes(32))


class Alice(Stage):
    """A UE host with alice's device on it."""

    identity: ClassVar[str] = ALICE
    device: ClassVar[str] = DEVICE
    key_id: ClassVar[str] = KEY_ID

    def __init__(
        self,
        profile: Profile = HARDENED,
        *,
        lines: tuple[MediaAddress, ...] = (OWN, OWN),
        seed: int = 1,
        key: Secret | None = None,
        **settings: Any,
    ) -> None:
        settings = {"host": "alice", "lines": lines, **settings}
        super().__init__(Ue(profile, UeSettings(**settings)), seed)
        self.key = key or Secret(random.Random(1).randbytes(32))
        own = HandsetKey(key_id=self.key_id, key=self.key, not_after=NOW + 9999, obtained=NOW, attached=True)
        handset = Handset(impi=self.device, identity=self.identity, key=own)
        self.put(Handset.key_for(self.device), handset)

    @property
    def holder(self) -> Holder:
        return Holder(Role.MEMBER, KEY_ID, self.key)

    @property
    def attendances(self) -> tuple[Attendance, ...]:
        record = self.records.get(Attendances.key_for(self.device).name, Attendances())
        assert isinstance(record, Attendances)
        return record.known

    @property
    def attendance(self) -> Attendance:
        [attendance] = self.attendances
        return attendance

    @property
    def state(self) -> AttendanceState:
        return self.attendance.state

    @property
    def lines(self) -> tuple[str | None, ...]:
        record = self.records.get(Lines.key().name, Lines())
        assert isinstance(record, Lines)
        return record.sessions

    @property
    def due(self) -> int:
        """When the attendance is looked at again."""
        return min(self.attendance.repeat_at, self.attendance.give_up_at)

    @property
    def epoch_keys(self) -> list[Secret]:
        """What is left of K_e."""
        return [secret for each in self.attendances for secret in secrets_in(each) if secret != self.key]

    def asked(self, wish: JoinConference | None = None, now: int = NOW) -> Join:
        """The user wants to be in."""
        return only(Join, self.give(wish or join(), now))

    def inside(self, epoch: int = 1, roster: tuple[str, ...] = WITH_BOB) -> Join:
        """So far that she is in."""
        asked = self.asked()
        only(InUse, self.give(self.joined(asked, epoch, roster=roster)))
        return asked

    def leaving(self, epoch: int = 1) -> Leave:
        """And then wants to be out."""
        self.inside(epoch)
        return only(Leave, self.give(leave()))

    def token(self, asked: Join) -> MemberToken:
        """token_g, as the KMS opens it."""
        return open_member_token(self.holder, run_of(asked), GROUP, asked.token_g)

    def grant(self, asked: Join, epoch: int, now: int = NOW, **changes: Any) -> EpochGrant:
        fields: dict[str, Any] = {
            "group": GROUP,
            "epoch": epoch,
            "nonce": self.token(asked).nonce,
            "key": epoch_key(epoch),
            "now": now,
            "not_before": now - SKEW_S,
            "not_after": now + EPOCH_S,
            "roster": WITH_BOB,
        }
        return EpochGrant(**{**fields, **changes})

    def sealed(
        self, asked: Join, epoch: int, now: int = NOW, *, seal: dict[str, Any] | None = None, **changes: Any
    ) -> bytes:
        """grant_i. changes: of what is inside; seal: of how it is sealed."""
        about: dict[str, Any] = {
            "down_key": down_key(self.key, asked.suite, Role.MEMBER),
            "focus": FOCUS,
            "member": ALICE,
            "key_id": KEY_ID,
            "token_hash": digest(asked.token_g),
            "random": self.random,
        }
        grant = self.grant(asked, epoch, now, **changes)
        return seal_epoch_grant(suite=asked.suite, grant=grant, **{**about, **(seal or {})})

    def joined(self, asked: Join, epoch: int = 1, now: int = NOW, **changes: Any) -> Joined:
        """What the focus answers."""
        grant = self.sealed(asked, epoch, now, **changes)
        return Joined(epoch=epoch, grant=grant, answer=ANSWER, media=AT, **about(asked))

    def rekey(self, asked: Join, epoch: int, now: int = NOW, **changes: Any) -> Rekey:
        """Another epoch."""
        return Rekey(epoch=epoch, grant=self.sealed(asked, epoch, now, **changes), media=AT, **about(asked))

    def opens(self, asked: Join, left: Leave) -> None:
        """The leave, as the KMS opens it. Raises Refused."""
        nonce = self.token(asked).nonce
        open_leave(self.holder, asked.suite, GROUP, left.epoch, ALICE, left.sealed, nonce=nonce)

    def alarm(self) -> AttendanceAlarm:
        return AttendanceAlarm(self.attendance.session)

    def closed(self, *, expired: bool = False) -> MediaClosed:
        return MediaClosed(self.attendance.session, NO_STATISTICS, expired=expired)

    def silent(self) -> MediaSilent:
        return MediaSilent(self.attendance.session)


def run_of(asked: Join) -> Run:
    return Run(call=asked.call, n=asked.run, caller=asked.member, callee=asked.focus, suite=asked.suite)


def about(asked: Join) -> dict[str, Any]:
    """The fields that every message of the focus has."""
    return {"group": GROUP, "focus": FOCUS, "call": asked.call, "member": ALICE, "to": DEVICE}


def join(**changes: Any) -> JoinConference:
    return JoinConference(**{"request": REQUEST, "to": DEVICE, "group": GROUP, "focus": FOCUS, **changes})


def leave(**changes: Any) -> LeaveConference:
    return LeaveConference(**{"request": ANOTHER, "to": DEVICE, "group": GROUP, "focus": FOCUS, **changes})


def refused(asked: Join, code: Any) -> JoinRefused:
    return JoinRefused(code=code, **about(asked))


def put_out(asked: Join, reason: str = "removed") -> PutOut:
    return PutOut(reason=reason, **about(asked))


def leave_ok(asked: Join) -> LeaveOk:
    return LeaveOk(**about(asked))


def medium(decision: Decision) -> MediaInstruction:
    """The one thing that is asked of the media engine."""
    [instruction] = decision.media
    return instruction


def is_told(decision: Decision, event: ReportEvent, **fields: Any) -> None:
    """The one report says so."""
    told = report(decision, event)
    assert {name: getattr(told, name) for name in fields} == fields
