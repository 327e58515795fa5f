"""The focus: C in a conference (section 8). It mixes for those whom the KMS lets in.

    1  i -> CSCF -> C   JOIN, IN-USE, LEAVE                      agents/focus/members.py
    2  C -> KMS         GROUP                                    agents/focus/changing.py
    3  KMS -> C         GROUP-RESPONSE, GROUP-GRANT              or GROUP-REFUSAL
    4  C -> i           JOINED, REKEY                            agents/focus/members.py
       operator -> C    CREATE, REMOVE, END, SHOW                agents/focus/standing.py, ending.py

All of one conference is in one partition, that of G, and the process that has it mixes. What a member seals
it forwards unread, and it cannot let anybody in. It can keep a leave from the KMS, and nobody would see it:
LEAVE-OK is its own word, and unsealed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from agents.alarms import BatchAlarm, ConferenceAlarm, RekeyAlarm, StillMine
from agents.decision import NOTHING, Decision, Input, Keys, Put, Records, to_device
from agents.focus import changing, ending, members, standing
from agents.focus.turn import FocusSettings, Turn, report_send
from media.leg import Speakers
from protocol.checks import RefusalCode
from protocol.sealing import Random
from storage.focus_records import Conference, ConferenceState, FocusLines, Handed
from topics.catalogue import Party
from topics.messages import (
    ConferenceEvent,
    CreateConference,
    EndConference,
    GroupGrant,
    GroupHint,
    GroupRefusal,
    GroupResponse,
    InUse,
    Join,
    Leave,
    OfGroup,
    RemoveMember,
    ShowConference,
    named_group,
)

__all__ = ["EXPECTED", "Focus", "FocusSettings", "Standing"]


class Standing(StrEnum):
    """How a conference stands to this process."""

    HERE = "here"  # it is mixed here
    ELSEWHERE = "elsewhere"  # by another process, which may be gone
    ENDED = "ended"


_ALWAYS: Final = frozenset({CreateConference, EndConference, ShowConference, RemoveMember, StillMine})

EXPECTED: Final[dict[Standing, frozenset[type]]] = {
    Standing.HERE: _ALWAYS
    | {Join, InUse, Leave, GroupResponse, GroupGrant, GroupRefusal, GroupHint}
    | {ConferenceAlarm, BatchAlarm, RekeyAlarm, Speakers},
    # what is repeated comes again once it was taken over
    Standing.ELSEWHERE: _ALWAYS | {ConferenceAlarm, GroupHint},
    Standing.ENDED: _ALWAYS | {Join, InUse, Leave, ConferenceAlarm},
}
"""What means something in each: all else changes nothing (OR-26)."""

OfConference = OfGroup | CreateConference | ConferenceAlarm | BatchAlarm | StillMine | RekeyAlarm


class Focus:
    """All conferences of one identity, as one process sees them."""

    party: ClassVar[Party] = Party.CONFERENCE
    accepts: ClassVar[frozenset[type]] = frozenset(
        {
            CreateConference,
            RemoveMember,
            EndConference,
            ShowConference,
            Join,
            InUse,
            Leave,
            GroupResponse,
            GroupGrant,
            GroupRefusal,
            GroupHint,
        }
    )

    def __init__(self, settings: FocusSettings) -> None:
        self._settings = settings
        self._lines = FocusLines.key_for(settings.instance)

    def reads(self, message: Input) -> Keys:
        match message:
            case Speakers():
                return (Conference.key_for(bytes.fromhex(message.bridge)), self._lines)
            case Join() | GroupGrant() | RekeyAlarm():
                handed = Handed.key_for(message.group, message.member)
                return (Conference.key_for(message.group), self._lines, handed)
            case OfGroup() | CreateConference() | ConferenceAlarm() | BatchAlarm() | StillMine():
                return (Conference.key_for(message.group), self._lines)
            case _:
                return ()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        match message:
            case Speakers():
                return self._heard(message, records, now)
            case OfGroup() | CreateConference() if message.focus != self._settings.identity:
                return NOTHING
            case (
                OfGroup() | CreateConference() | ConferenceAlarm() | BatchAlarm() | StillMine() | RekeyAlarm()
            ):
                return self._of_conference(message, records, now, random)
            case _:
                return NOTHING

    def standing(self, conference: Conference) -> Standing:
        """How it stands to this process."""
        if conference.state is ConferenceState.ENDED:
            return Standing.ENDED
        mine = conference.instance == self._settings.instance
        return Standing.HERE if mine else Standing.ELSEWHERE

    def _of_conference(self, message: OfConference, records: Records, now: int, random: Random) -> Decision:
        conference = records.get(Conference.key_for(message.group))
        lines = records.get(self._lines)
        if conference is None:
            return self._of_unknown(message, lines, now)
        stands = self.standing(conference)
        if type(message) not in EXPECTED[stands]:  # OR-26
            return NOTHING
        turn = Turn(self._settings, conference, lines, now)
        handed = None
        if isinstance(message, Join | GroupGrant | RekeyAlarm):
            handed = records.get(Handed.key_for(message.group, message.member))
        match stands:
            case Standing.HERE:
                _here(turn, message, handed, random)
            case Standing.ELSEWHERE:
                _elsewhere(turn, message)
            case Standing.ENDED:
                _ended(turn, message)
        return turn.decision()

    def _of_unknown(self, message: OfConference, lines: FocusLines | None, now: int) -> Decision:
        """Of a conference that never was, or was forgotten."""
        match message:
            case CreateConference():
                conference = standing.begin(self._settings, message, now)
                turn = Turn(self._settings, conference, lines, now)
                standing.created(turn, message.request)
                turn.heartbeat()
                turn.watch()
                expires = now + self._settings.empty_s + self._settings.told_s
                put = Put(Conference.key_for(message.group), conference, expires)
                return Decision(puts=(put,)) + turn.decision()
            case Join():
                refused = members.join_refused(message, RefusalCode.NOT_FOUND)
                return Decision(sends=(to_device(message.sender, refused),))
            case Leave():
                return Decision(sends=(to_device(message.sender, members.leave_ok(message)),))
            case RemoveMember() | EndConference() | ShowConference():
                unknown = report_send(
                    ConferenceEvent.UNKNOWN, 0, now, request=message.request, **named_group(message)
                )
                return Decision(sends=(unknown,))
            case _:
                return NOTHING

    def _heard(self, event: Speakers, records: Records, now: int) -> Decision:
        """Who is loud just now, as the engine of this process says."""
        conference = records.get(Conference.key_for(bytes.fromhex(event.bridge)))
        if conference is None or type(event) not in EXPECTED[self.standing(conference)]:  # OR-26
            return NOTHING
        turn = Turn(self._settings, conference, records.get(self._lines), now)
        loud = tuple(dict.fromkeys(session.split(" ")[1] for session in event.sessions))
        turn.change(speakers=loud)
        turn.report(ConferenceEvent.SPEAKERS, speakers=loud)
        return turn.decision()


def _here(turn: Turn, message: OfConference, handed: Handed | None, random: Random) -> None:
    """It is mixed by this process."""
    match message:
        case ConferenceAlarm():
            standing.look_after(turn, random)
        case BatchAlarm():
            changing.ask(turn, random)
        case RekeyAlarm():
            members.hand_over_again(turn, message.member, handed)
        case Join():
            members.join(turn, message, handed)
        case InUse():
            members.in_use(turn, message)
        case Leave():
            members.leave(turn, message)
        case GroupResponse():
            changing.granted(turn, message)
        case GroupGrant():
            members.hand_over(turn, message, handed)
        case GroupRefusal():
            changing.refused(turn, message, random)
        case GroupHint():
            turn.want(changing.REFRESH)
        case StillMine():
            turn.watch()
        case _:
            _of_operator(turn, message)


def _elsewhere(turn: Turn, message: OfConference) -> None:
    """It is mixed by another process, or was."""
    match message:
        case ConferenceAlarm():  # only whoever has the partition gets this one
            standing.take_over(turn)
        case GroupHint():
            turn.want(changing.REFRESH)
        case StillMine():
            turn.close_own()
        case _:
            _of_operator(turn, message)


def _ended(turn: Turn, message: OfConference) -> None:
    """Nothing begins any more."""
    match message:
        case ConferenceAlarm():
            if turn.now >= turn.conference.forget_at:
                turn.forget()
            else:
                turn.last_look()
        case StillMine():
            turn.close_own()
        case Join():
            turn.say(message.sender, members.join_refused(message, RefusalCode.EXPIRED))
        case Leave():
            turn.say(message.sender, members.leave_ok(message))
        case InUse():
            members.in_use(turn, message)
        case EndConference():
            turn.report(ConferenceEvent.ENDED, reason=turn.conference.reason, request=message.request)
        case CreateConference() | ShowConference() | RemoveMember():
            turn.report(ConferenceEvent.UNKNOWN, reason=turn.conference.reason, request=message.request)
        case _:
            pass


def _of_operator(turn: Turn, message: OfConference) -> None:
    match message:
        case CreateConference():
            standing.created(turn, message.request)
        case ShowConference():
            standing.show(turn, message.request)
        case RemoveMember():
            members.remove(turn, message)
        case EndConference():
            ending.end(turn, "ended", request=message.request)
        case _:
            pass
