"""A focus beside a real KMS, and guests who hold their own keys: for tests of one conference."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from agents.alarms import BatchAlarm, ConferenceAlarm, RekeyAlarm, StillMine
from agents.conference import Focus, FocusSettings
from agents.decision import Decision, Input, Send
from agents.kms import KmsSettings
from media.leg import CloseMedia, MediaInstruction, OpenMedia, RenewMedia
from protocol.conference import (
    open_epoch_grant,
    seal_leave,
    seal_member_token,
)
from protocol.encoding import digest
from protocol.evidence import Departure, EpochGrant, Holder, MemberToken
from protocol.names import Owner, Permit, Role, Run, Suite
from protocol.transport import MediaAddress
from storage.focus_records import Attendee, Conference, FocusLines
from storage.kms_records import Group, Subscriber
from tests.agents.scene import NOW, OFFER, Stage, Town
from topics.catalogue import CONFERENCE, KMS, REPORTS
from topics.messages import (
    Audit,
    ConferenceEvent,
    ConferenceReport,
    Contact,
    CreateConference,
    EndConference,
    GroupGrant,
    GroupRequest,
    InUse,
    Join,
    Joined,
    Leave,
    Rekey,
    RemoveMember,
    ShowConference,
)

M = TypeVar("M")

FOCUS: Final = "sip:focus@ims.example"
GROUP: Final = bytes(range(100, 116))
ABOUT: Final[dict[str, Any]] = {"group": GROUP, "focus": FOCUS}
LINES: Final = tuple(MediaAddress("127.0.0.1", 41_000 + n) for n in range(80))
REQUEST: Final = bytes(15) + b"r"


@dataclass
class Guest:
    """One device of somebody, in one conference by one call."""

    town: Town
    user: str
    call: bytes
    key_id: str
    suite: Suite = Suite.AES_256_GCM
    permits: tuple[Permit, ...] = (Permit.CONFERENCE,)
    time: int = NOW
    nonce: bytes = b""
    token_g: bytes = b""
    n: int = 0
    identity: str = ""
    taken: int = 0
    grants: list[EpochGrant] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.identity = self.identity or f"sip:{self.user}@ims.example"
        self.nonce = self.nonce or self.town.random(16)
        self.token_g = self.token_g or self.seal()

    @property
    def contact(self) -> Contact:
        return Contact(self.user, f"{self.key_id.removeprefix('psk:')}@ims.example")

    @property
    def holder(self) -> Holder:
        return self.town.holder(Role.MEMBER, self.key_id)

    @property
    def run(self) -> Run:
        return Run(call=self.call, n=self.n, caller=self.identity, callee=FOCUS, suite=self.suite)

    def seal(self, **changes: Any) -> bytes:
        """token_g; changes: of what it says inside."""
        fields: dict[str, Any] = {
            "call": self.call,
            "n": self.n,
            "member": self.identity,
            "focus": FOCUS,
            "nonce": self.nonce,
            "time": self.time,
            "permits": self.permits,
            "offer_hash": digest(OFFER),
            "group": GROUP,
            **changes,
        }
        return seal_member_token(self.holder, self.run, MemberToken(**fields), random=self.town.random)

    def join(self, **changes: Any) -> Join:
        fields: dict[str, Any] = {
            "call": self.call,
            "run": 0,
            "member": self.identity,
            "member_key": self.key_id,
            "suite": self.suite,
            "offer": OFFER,
            "token_g": self.token_g,
            "media": MediaAddress("127.0.0.9", 5_000),
            "sender": self.contact,
            **ABOUT,
            **changes,
        }
        return Join(**fields)

    def open(self, message: Joined | Rekey | GroupGrant, now: int) -> EpochGrant:
        """As its handset does. Raises Refused."""
        return open_epoch_grant(
            self.holder,
            self.suite,
            message.grant,
            group=GROUP,
            epoch=message.epoch,
            focus=FOCUS,
            member=self.identity,
            token_g=self.token_g,
            nonce=self.nonce,
            epoch_taken=self.taken,
            now=now,
        )

    def take(self, message: Joined | Rekey, now: int) -> InUse:
        """The epoch, once."""
        if message.epoch > self.taken:
            self.grants.append(self.open(message, now))
            self.taken = message.epoch
        return self.in_use(message.epoch)

    def in_use(self, epoch: int) -> InUse:
        return InUse(call=self.call, member=self.identity, epoch=epoch, sender=self.contact, **ABOUT)

    def leave(self, epoch: int | None = None, **changes: Any) -> Leave:
        epoch = epoch or self.taken
        sealed = seal_leave(
            self.holder,
            self.suite,
            GROUP,
            self.identity,
            Departure(self.nonce, epoch),
            random=self.town.random,
        )
        fields: dict[str, Any] = {
            "call": self.call,
            "member": self.identity,
            "member_key": self.key_id,
            "epoch": epoch,
            "sealed": sealed,
            "sender": self.contact,
            **ABOUT,
            **changes,
        }
        return Leave(**fields)


class Hall:
    """Some processes of a focus in turn, which share records, and their KMS; what they send is delivered."""

    def __init__(
        self, *, kms: KmsSettings | None = None, mixes: bool = True, quiet: bool = False, **changes: Any
    ) -> None:
        """quiet: guests answer nothing by themselves."""
        self.town = Town(kms)
        self.town.subscribe("psk:focus", FOCUS, owner=Owner.FOCUS, mixes=mixes)
        fields: dict[str, Any] = {
            "identity": FOCUS,
            "key_id": "psk:focus",
            "key": self.town.subscriber("psk:focus").key,
            "instance": "one",
            "lines": LINES,
            **changes,
        }
        self.settings = FocusSettings(**fields)
        self.stage = Stage(Focus(self.settings), seed=2)
        self.quiet = quiet
        self.guests: dict[bytes, Guest] = {}
        self.told: list[tuple[Contact, Any]] = []  # what devices were sent
        self.reports: list[ConferenceReport] = []
        self.audits: list[Audit] = []
        self.media: list[MediaInstruction] = []
        self.asked: list[GroupRequest] = []
        self.wakes: dict[str, Any] = {}
        self.lost: list[type] = []  # kinds of messages between focus and KMS that do not arrive
        self.held: deque[Send] = deque()
        self.hold: list[type] = []  # kinds that arrive when `release` is called

    def guest(self, user: str, call: int = 1, *, device: str = "", **changes: Any) -> Guest:
        """A device whose key the KMS has."""
        key_id = f"psk:{device or user}"
        if Subscriber.key_for(key_id).name not in self.town.records:
            self.town.subscribe(key_id, f"sip:{user}@ims.example")
        guest = Guest(self.town, user, digest(f"{user} {call}".encode())[:16], key_id, **changes)
        self.guests[guest.call] = guest
        return guest

    def process(self, instance: str) -> None:
        """From now on another process has the partition."""
        fields = {name: getattr(self.settings, name) for name in FocusSettings.__dataclass_fields__}
        self.settings = FocusSettings(**{**fields, "instance": instance})
        self.stage.agent = Focus(self.settings)

    def give(self, message: Input, now: int = NOW) -> Decision:
        """To the focus; then all that follows from it at once."""
        decision = self.stage.give(message, now)
        self._carry(decision, now)
        return decision

    def batch(self, now: int = NOW) -> Decision:
        """Changes have been gathered for long enough."""
        return self.give(BatchAlarm(GROUP), now)

    def later(self, now: int) -> Decision:
        """The heartbeat, and what is due of members."""
        for name, wake in sorted(self.wakes.items()):
            if wake.at is not None and wake.at <= now and isinstance(wake.alarm, RekeyAlarm):
                del self.wakes[name]
                self.give(wake.alarm, now)
        return self.give(ConferenceAlarm(GROUP), now)

    def create(self, now: int = NOW) -> Decision:
        return self.give(CreateConference(group=GROUP, focus=FOCUS, request=REQUEST), now)

    def meet(self, *users: str, now: int = NOW) -> list[Guest]:
        """A conference with these in one epoch."""
        self.create(now)
        guests = [self.guest(user, time=now) for user in users]
        for guest in guests:
            self.give(guest.join(), now)
        self.batch(now)
        return guests

    def remove(self, member: str, now: int = NOW) -> Decision:
        return self.give(RemoveMember(member=member, request=REQUEST, **ABOUT), now)

    def end(self, now: int = NOW) -> Decision:
        return self.give(EndConference(request=REQUEST, **ABOUT), now)

    def show(self, now: int = NOW) -> ConferenceReport:
        self.give(ShowConference(request=REQUEST, **ABOUT), now)
        return self.reports[-1]

    def still_mine(self, now: int = NOW) -> Decision:
        return self.give(StillMine(GROUP), now)

    def release(self, now: int = NOW) -> None:
        """What was held arrives."""
        held, self.hold = list(self.held), []
        self.held.clear()
        for send in held:
            self._deliver(send, now)

    def _carry(self, decision: Decision, now: int) -> None:
        self.media += decision.media
        self.audits += decision.audit
        for wake in decision.wakes:
            self.wakes[wake.about] = wake
        for send in decision.sends:
            kind = type(send.message)
            if kind in self.hold:
                self.held.append(send)
            elif kind not in self.lost:
                self._deliver(send, now)

    def _deliver(self, send: Send, now: int) -> None:
        message: Any = send.message
        if send.topic == KMS:
            assert send.key == GROUP.hex()
            self.asked.append(message)
            answered = self.town.give(message, now)
            assert all(each.topic == CONFERENCE for each in answered.sends)
            self._carry(answered, now)
        elif send.topic == CONFERENCE:
            self.give(message, now)
        elif send.topic == REPORTS:
            self.reports.append(message)
        else:
            guest = self.guests[message.call]
            self.told.append((Contact(send.topic.name.removeprefix("ims.ue."), send.key), message))
            if isinstance(message, Joined | Rekey) and not self.quiet:
                self.give(guest.take(message, now), now)

    @property
    def conference(self) -> Conference:
        record = self.stage.records[Conference.key_for(GROUP).name]
        assert isinstance(record, Conference)
        return record

    @property
    def group(self) -> Group:
        record = self.town.records[Group.key_for(FOCUS, GROUP).name]
        assert isinstance(record, Group)
        return record

    def attendee(self, guest: Guest) -> Attendee | None:
        found = (each for each in self.conference.members if each.call == guest.call)
        return next(found, None)

    def lines(self, instance: str = "one") -> list[str]:
        """Whose legs this process has."""
        record = self.stage.records.get(FocusLines.key_for(instance).name)
        assert record is None or isinstance(record, FocusLines)
        sessions = record.sessions if record else ()
        return sorted(each.split(" ")[1] for each in sessions if each)

    def said(self, kind: type[M]) -> list[M]:
        """What devices were sent of this kind."""
        return [message for _, message in self.told if isinstance(message, kind)]

    def events(self, event: ConferenceEvent) -> list[ConferenceReport]:
        return [report for report in self.reports if report.event is event]

    def rosters(self) -> list[tuple[str, ...]]:
        """Who was in, epoch by epoch, as the KMS has written down."""
        return [
            tuple(name_of(each) for each in audit.roster) for audit in self.audits if audit.event == "epoch"
        ]


def name_of(identity: str) -> str:
    return identity.removeprefix("sip:").partition("@")[0]


def legs(media: list[MediaInstruction]) -> list[tuple[str, str, int]]:
    """What was asked of the engine, with whom and under which epoch; a closed leg has none."""
    told = []
    for each in media:
        match each:
            case OpenMedia():
                told.append(("open", name_of(each.leg.remote), each.leg.n))
            case RenewMedia():
                told.append(("renew", name_of(each.leg.remote), each.leg.n))
            case CloseMedia():
                told.append(("close", name_of(each.session.split(" ")[1]), 0))
            case _:
                raise AssertionError(each)
    return told
