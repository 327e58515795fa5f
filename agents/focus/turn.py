"""One conference while its focus deals with one input: what is changed, said and done, until `decision`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agents.alarms import Alarm, BatchAlarm, ConferenceAlarm, RekeyAlarm, StillMine
from agents.decision import Decision, Put, Send, Wake, to_device
from media.leg import CloseMedia, Leg, MediaInstruction, OpenMedia, RenewMedia
from protocol.checks import RefusalCode
from protocol.description import SrtpSuite, read_description
from protocol.evidence import Holder
from protocol.limits import KEEP_S_MAX, LIFE_S, MEMBERS_MAX
from protocol.names import Role, Suite
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.focus_records import (
    Attendee,
    AttendeeState,
    ChangeKind,
    Conference,
    FocusLines,
    Wanted,
)
from topics.catalogue import KMS, REPORTS
from topics.messages import (
    ConferenceEvent,
    ConferenceReport,
    Contact,
    GroupRequest,
    JoinRefused,
    OfGroup,
    PutOut,
)

HEARTBEAT_S: Final = 2  # so often whoever has the partition looks whether the conference is mixed
REPEAT_S: Final = 2  # what is not answered is sent again after so long, then after 4, 8, 16, 16 ... s
_DOUBLINGS: Final = 3
_WATCH_MS: Final = 2_000
_MEDIA_LINE: Final = 0  # one audio line


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusSettings:
    """Who this focus is, and how much it takes."""

    identity: str
    """ID-C."""
    key_id: str
    """KID-C, whose owner is a focus to the KMS."""
    key: Secret
    """K_C, 32 octets. It is in no record."""
    instance: str
    """A name of this process that no other has had: whose engine mixes a conference."""
    lines: tuple[MediaAddress, ...]
    """The addresses of this process's media engine: as many members at a time, of all its conferences."""
    codecs: tuple[str, ...] = ("PCMU",)
    """RTP names of the codecs that it can mix."""
    srtp_suites: tuple[SrtpSuite, ...] = tuple(SrtpSuite)
    """What it accepts for media."""
    suite: Suite = Suite.AES_256_GCM
    """The suite of the seals between it and the KMS."""
    members_max: int = MEMBERS_MAX
    """Members of one conference; the KMS has its own limit."""
    batch_ms: int = 250
    """Changes are gathered for so long, and make one epoch."""
    join_s: int = 40
    """Who has asked to come in and was not brought before the KMS in this time is told to try again."""
    empty_s: int = 1_800
    """A conference ends when nobody has been in it for so long; the KMS remembers it for longer."""
    told_s: int = 3_600
    """So long who comes to a conference that has ended is told so."""


class Turn:
    """A conference, as it stands and as it will: made for each input."""

    def __init__(
        self, settings: FocusSettings, conference: Conference, lines: FocusLines | None, now: int
    ) -> None:
        """lines: of this process; None: all are free."""
        self.settings: Final = settings
        self.conference = conference
        self.now: Final = now
        self._before: Final = conference
        self._lines_before: Final = lines
        self._lines = list((lines or FocusLines()).sessions or (None,) * len(settings.lines))
        self._puts: list[Put[Any]] = []
        self._wakes: list[Wake] = []
        self._sends: list[Send] = []
        self._media: list[MediaInstruction] = []

    def decision(self) -> Decision:
        """All of it."""
        puts = list(self._puts)
        conference = self.conference
        if conference != self._before:
            last = max(conference.forget_at, conference.not_after, self.now)
            expires = last + self.settings.empty_s + LIFE_S
            puts.append(Put(Conference.key_for(conference.group), conference, expires))
        lines = FocusLines(sessions=tuple(self._lines))
        if self._lines_before != lines and (self._lines_before is not None or any(self._lines)):
            puts.append(Put(FocusLines.key_for(self.settings.instance), lines, self.now + KEEP_S_MAX))
        return Decision(
            puts=tuple(puts),
            wakes=tuple(self._wakes),
            sends=tuple(self._sends),
            media=tuple(self._media),
        )

    # What is remembered.

    def change(self, **fields: object) -> None:
        """Of the conference."""
        self.conference = msgspec.structs.replace(self.conference, **fields)

    def find(self, identity: str, call: bytes) -> Attendee | None:
        """Who has joined by this call."""
        mine = (each for each in self.conference.members if (each.identity, each.call) == (identity, call))
        return next(mine, None)

    def inside(self, identity: str) -> Attendee | None:
        """Who is in under this identity."""
        states = (
            each
            for each in self.conference.members
            if each.identity == identity and each.state is AttendeeState.IN
        )
        return next(states, None)

    def alter(self, attendee: Attendee, **fields: object) -> Attendee:
        """The same one, with these fields; one that was not there is put last."""
        altered = msgspec.structs.replace(attendee, **fields)
        name = (attendee.identity, attendee.call)
        members = self.conference.members
        if self.find(*name) is None:
            self.change(members=(*members, altered))
        else:
            self.change(
                members=tuple(altered if (each.identity, each.call) == name else each for each in members)
            )
        return altered

    def drop(self, attendee: Attendee) -> None:
        """It is no longer here: its leg is closed, its line free, and nothing is asked for it."""
        self.close(attendee)
        name = (attendee.identity, attendee.call)
        self.change(
            members=tuple(each for each in self.conference.members if (each.identity, each.call) != name),
            queue=tuple(each for each in self.conference.queue if (each.member, each.call) != name),
        )

    def want(self, wanted: Wanted) -> None:
        """One more change for the next epoch, which is asked for soon; none that is wanted already."""
        queue = self.conference.queue
        if wanted not in queue and (wanted.kind is not ChangeKind.REFRESH or not queue):
            self.change(queue=(*queue, wanted))
        if not self.conference.asked:
            self.soon()

    def forget(self) -> None:
        """It has told late comers for long enough."""
        self._puts.append(Put(Conference.key_for(self.conference.group), None))
        self._wake("conference", None, ConferenceAlarm(self.conference.group))

    def put(self, put: Put[Any]) -> None:
        """Write another record."""
        self._puts.append(put)

    # When to look again.

    def heartbeat(self) -> None:
        """Whoever has the partition looks at it again."""
        self._wake("conference", self.now + HEARTBEAT_S, ConferenceAlarm(self.conference.group))

    def last_look(self) -> None:
        """The conference has ended: look when it may be forgotten."""
        self._wake("conference", self.conference.forget_at, ConferenceAlarm(self.conference.group))

    def soon(self) -> None:
        """This process asks the KMS when changes were gathered; after a crash the heartbeat does."""
        alarm = BatchAlarm(self.conference.group)
        self._wake("batch", None, alarm, soon_ms=self.settings.batch_ms)

    def watch(self) -> None:
        """This process looks whether it still mixes the conference."""
        self._wake("mine", None, StillMine(self.conference.group), soon_ms=_WATCH_MS)

    def look_at(self, identity: str, at: int | None) -> None:
        """See then whether this member has said that it uses the epoch; None: it has."""
        self._wake(f"rekey {identity}", at, RekeyAlarm(self.conference.group, identity))

    def _wake(self, what: str, at: int | None, alarm: Alarm, *, soon_ms: int | None = None) -> None:
        group = self.conference.group.hex()
        self._wakes.append(Wake(f"{what} {group}", group, at, alarm, soon_ms))

    # What is said.

    @property
    def about(self) -> dict[str, Any]:
        """G and ID-C, which every message has."""
        return {"group": self.conference.group, "focus": self.conference.focus}

    def say(self, contact: Contact, message: OfGroup) -> None:
        """To a device."""
        self._sends.append(to_device(contact, message))

    def ask_kms(self, request: GroupRequest) -> None:
        """To the KMS, all of one conference in one partition."""
        self._sends.append(Send(KMS, self.conference.group.hex(), request))

    def report(self, event: ConferenceEvent, **fields: object) -> None:
        """Tell the world."""
        self._sends.append(report_send(event, self.conference.epoch, self.now, **self.about, **fields))

    def refuse_join(self, attendee: Attendee, code: RefusalCode) -> None:
        """It does not come in, and hears so."""
        self.drop(attendee)
        refusal = JoinRefused(
            call=attendee.call, member=attendee.identity, code=code, to=attendee.device, **self.about
        )
        self.say(contact_of(attendee), refusal)
        self.report(ConferenceEvent.REFUSED, member=attendee.identity, code=code)

    def put_out(self, attendee: Attendee, reason: str) -> None:
        """It hears that it is in no more."""
        told = PutOut(
            call=attendee.call, member=attendee.identity, reason=reason, to=attendee.device, **self.about
        )
        self.say(contact_of(attendee), told)

    # Media.

    def take_line(self, session: str) -> int | None:
        """A free line of this process, which carries the session from now on."""
        if session in self._lines:
            return self._lines.index(session)
        for line, user in enumerate(self._lines):
            if user is None:
                self._lines[line] = session
                return line
        return None

    def close(self, attendee: Attendee) -> None:
        """It is heard no more, and hears nothing."""
        session = self.session(attendee)
        if session in self._lines:
            self._lines[self._lines.index(session)] = None
            self._media.append(CloseMedia(session))

    def close_own(self) -> None:
        """All legs of this conference at this process."""
        prefix = f"{self.conference.group.hex()} "
        for line, session in enumerate(self._lines):
            if session is not None and session.startswith(prefix):
                self._lines[line] = None
                self._media.append(CloseMedia(session))

    def open(self, attendee: Attendee) -> None:
        """Its leg under the epoch that was taken, where there is a key and a line."""
        leg = self._leg(attendee)
        if leg is not None:
            self._media.append(OpenMedia(leg))

    def renew(self, attendee: Attendee, speak_within_s: float, overlap_s: float) -> None:
        """Its leg goes on under the epoch that was taken."""
        leg = self._leg(attendee)
        if leg is not None:
            self._media.append(RenewMedia(leg, speak_within_s, overlap_s))

    def session(self, attendee: Attendee) -> str:
        """The name of its leg at the engine."""
        return f"{self.conference.group.hex()} {attendee.identity} {attendee.call.hex()}"

    def _leg(self, attendee: Attendee) -> Leg | None:
        conference = self.conference
        lifetime_s = remaining_s(conference, self.now)
        if conference.key is None or attendee.line is None or lifetime_s <= 0:
            return None
        chosen = read_description(attendee.answer)
        return Leg(
            session=self.session(attendee),
            line=attendee.line,
            root=conference.key,
            suite=SrtpSuite(chosen.srtp_suites[0]),
            codec=chosen.codecs[0],
            local=conference.focus,
            remote=attendee.identity,
            remote_address=attendee.media,
            media_line=_MEDIA_LINE,
            n=conference.epoch,
            flow=chosen.flow,
            lifetime_s=lifetime_s,
            group=conference.group,
            bridge=conference.group.hex(),
        )


def remaining_s(conference: Conference, now: int) -> int:
    """How long the epoch's key may still be used: by the KMS's instant, and by the time that it had then."""
    by_instant = conference.not_after - now
    by_duration = conference.not_after - conference.granted - (now - conference.taken_at)
    return min(by_instant, by_duration)


def own_holder(settings: FocusSettings) -> Holder:
    """The focus with its long-term key."""
    return Holder(Role.FOCUS, settings.key_id, settings.key)


def contact_of(attendee: Attendee) -> Contact:
    """Where its device is reached."""
    return Contact(attendee.host, attendee.device)


def again_after_s(repeats: int) -> int:
    """How long to wait when something was sent so many times more."""
    return REPEAT_S << min(repeats, _DOUBLINGS)


def report_send(event: ConferenceEvent, epoch: int, now: int, **fields: object) -> Send:
    """What the focus tells the world."""
    told: dict[str, Any] = fields
    message = ConferenceReport(event=event, at=now, epoch=epoch, **told)
    return Send(REPORTS, message.group.hex(), message)
