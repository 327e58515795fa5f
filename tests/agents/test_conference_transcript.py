"""A whole conference, with real handsets, call control, focus and KMS, as a person can read it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any, Final

import pytest

from agents.alarms import BatchAlarm, ConferenceAlarm
from agents.conference import Focus, FocusSettings
from agents.cscf import Cscf, CscfSettings
from agents.decision import Decision, Input
from media.leg import OpenMedia, RenewMedia
from protocol.conference import EpochName, open_focus_grant, open_focus_token
from protocol.evidence import FocusGrant
from protocol.names import Owner, Role
from storage.cscf_records import Binding, Registration
from tests.agents.hall import FOCUS, GROUP, LINES, REQUEST, name_of
from tests.agents.member import Alice
from tests.agents.scene import NOW, Stage, Town
from topics.catalogue import CONFERENCE, CSCF, KMS
from topics.messages import (
    ConferenceReport,
    CreateConference,
    GroupGrant,
    GroupRefusal,
    GroupRequest,
    GroupResponse,
    Join,
    JoinChange,
    JoinConference,
    LeaveConference,
    OfGroup,
    RefreshChange,
    RemoveMember,
    Report,
)

GOLDEN: Final = Path(__file__).with_name("transcripts") / "conference.txt"
USERS: Final = ("ann", "ben", "cat")


class Meeting:
    """Everybody, in one process; every message is written down as it is delivered."""

    def __init__(self) -> None:
        self.town = Town()
        self.town.subscribe("psk:focus", FOCUS, owner=Owner.FOCUS)
        settings = FocusSettings(
            identity=FOCUS,
            key_id="psk:focus",
            key=self.town.subscriber("psk:focus").key,
            instance="one",
            lines=LINES,
        )
        self.parties: dict[str, Stage] = {
            "kms": self.town,
            "focus": Stage(Focus(settings), seed=2),
            "cscf": Stage(Cscf(CscfSettings(focus=FOCUS)), seed=3),
        }
        for number, user in enumerate(USERS):
            self._add(user, seed=10 + number)
        self.lines: list[str] = []
        self.holders: dict[str, set[str]] = {}
        self._names: dict[bytes, str] = {}
        self._asked: dict[int, GroupRequest] = {}
        self._now = NOW

    def _add(self, user: str, seed: int) -> None:
        identity, device = f"sip:{user}@ims.example", f"{user}@ims.example"
        self.town.subscribe(f"psk:{user}", identity)
        fields = {"identity": identity, "device": device, "key_id": f"psk:{user}"}
        handset = type(user, (Alice,), fields)
        key = self.town.subscriber(f"psk:{user}").key
        self.parties[user] = handset(seed=seed, key=key, host=user)
        own = Binding(host=user, device=device, not_after=NOW + 3_600)
        self.parties["cscf"].put(Registration.key_for(identity), Registration(bindings=(own,)))

    def give(self, name: str, message: Input, at: int) -> None:
        """To one party; then all that follows from it."""
        self._now = NOW + at
        waiting = deque([(name, message)])
        while waiting:
            receiver, current = waiting.popleft()
            decision = self.parties[receiver].give(current, NOW + at)
            waiting.extend(self._told(receiver, decision, at))

    def batch(self, at: int) -> None:
        """The focus has gathered for long enough."""
        self.give("focus", BatchAlarm(GROUP), at)

    def user(self, name: str, *, leaves: bool = False, at: int) -> None:
        kind = LeaveConference if leaves else JoinConference
        request = f"{name} {at} {leaves}".encode().ljust(16, b"_")
        message = kind(request=request, to=f"{name}@ims.example", group=GROUP, focus=FOCUS)
        self.lines.append(f"{at:5}  {name} wants {'to leave' if leaves else 'to join'}")
        self.give(name, message, at)

    def _told(self, sender: str, decision: Decision, at: int) -> list[tuple[str, Any]]:
        for audit in decision.audit:
            told = f"{audit.event} e={audit.epoch} {self._people(audit.roster)}"
            check = f" {audit.check}" if audit.check else ""
            self.lines.append(f"{at:5}  {sender} notes {told.strip()}{check}")
        for each in decision.media:
            if isinstance(each, OpenMedia | RenewMedia):
                self.holders.setdefault(self._of(each.leg.root.reveal(), "K#"), set()).add(sender)
        delivered: list[tuple[str, Any]] = []
        for send in decision.sends:
            message: Any = send.message
            if isinstance(message, ConferenceReport | Report):
                self.lines.append(f"{at:5}  {sender} reports {self._report(message)}")
                continue
            receiver = {KMS: "kms", CONFERENCE: "focus", CSCF: "cscf"}.get(send.topic)
            receiver = receiver or send.topic.name.removeprefix("ims.ue.")
            name = str(message.__struct_config__.tag).upper()
            self.lines.append(f"{at:5}  {sender:5} -> {receiver:5} {name:14} {self._said(message)}".rstrip())
            delivered.append((receiver, message))
        return delivered

    def _said(self, message: OfGroup) -> str:
        match message:
            case Join():
                return f"{name_of(message.member)} token_g"
            case GroupRequest():
                self._asked[message.epoch] = message
                changes = ", ".join(map(_change, message.changes))
                return f"e={message.epoch} {changes} token_c"
            case GroupResponse():
                grant = self._opened(message)
                times = f"{grant.not_before - NOW}..{grant.not_after - NOW}"
                assert grant.key is not None
                key = self._of(grant.key.reveal(), "K#")
                return f"e={message.epoch} grant_c{{{key} {times} {self._people(grant.roster)}}}"
            case GroupGrant():
                return f"e={message.epoch} grant_i for {name_of(message.member)}"
            case GroupRefusal():
                return f"e={message.epoch} {message.code} change {message.change}"
            case _:
                epoch = getattr(message, "epoch", None)
                told = [f"e={epoch}"] if epoch else []
                told += [str(getattr(message, name)) for name in ("code", "reason") if hasattr(message, name)]
                return " ".join(told)

    def _opened(self, response: GroupResponse) -> FocusGrant:
        request = self._asked[response.epoch]
        holder = self.town.holder(Role.FOCUS, "psk:focus")
        name = EpochName(group=GROUP, epoch=request.epoch, focus=FOCUS, suite=request.suite)
        changes = [change.octets for change in request.changes]
        nonce = open_focus_token(holder, name, request.token_c, changes=changes).nonce
        about: dict[str, Any] = {"token_c": request.token_c, "nonce": nonce}
        return open_focus_grant(holder, name, response.grant_c, now=self._now, **about)

    def _report(self, report: ConferenceReport | Report) -> str:
        parts: list[Any] = [report.event]
        parts += [f"e={report.epoch}"] if report.epoch else []
        parts += [self._people(report.roster)] if report.roster else []
        if isinstance(report, ConferenceReport):
            parts += [name_of(report.member)] if report.member else []
            parts += [report.code] if report.code else []
        parts += [report.reason] if report.reason else []
        return " ".join(map(str, parts))

    def _people(self, roster: tuple[str, ...]) -> str:
        return " ".join(map(name_of, roster))

    def _of(self, octets: bytes, kind: str) -> str:
        count = sum(name.startswith(kind) for name in self._names.values())
        return self._names.setdefault(octets, f"{kind}{count + 1}")

    def held(self) -> list[str]:
        return [f"{key} was held by {', '.join(sorted(names))}" for key, names in self.holders.items()]


def _change(change: Any) -> str:
    if isinstance(change, RefreshChange):
        return "refresh"
    kind = "join" if isinstance(change, JoinChange) else change.__struct_config__.tag
    return f"{kind} {name_of(change.member)}"


def conference() -> list[str]:
    """Ann and ben come together, cat later; ben leaves, comes again, and is put out; he tries once more."""
    meeting = Meeting()
    create = CreateConference(group=GROUP, focus=FOCUS, request=REQUEST)
    meeting.give("focus", create, 0)
    meeting.user("ann", at=1)
    meeting.user("ben", at=1)
    meeting.batch(1)
    meeting.user("cat", at=10)
    meeting.batch(10)
    meeting.user("ben", leaves=True, at=20)
    meeting.batch(20)
    meeting.user("ben", at=30)
    meeting.batch(30)
    remove = RemoveMember(member="sip:ben@ims.example", request=REQUEST, group=GROUP, focus=FOCUS)
    meeting.give("focus", remove, 40)
    meeting.batch(40)
    meeting.user("ben", at=50)
    meeting.batch(50)
    meeting.give("focus", ConferenceAlarm(GROUP), 280)  # 60 s before the end of the last epoch
    return meeting.lines + meeting.held()


def test_golden_conference(request: pytest.FixtureRequest) -> None:
    lines = conference()
    if request.config.getoption("--rewrite"):
        GOLDEN.write_text("\n".join(lines) + "\n")
    assert lines == GOLDEN.read_text().splitlines()


def test_who_has_held_which_key() -> None:
    """The end of it, said once more: nobody has had the key of an epoch that he was not in."""
    held = [line for line in conference() if "was held by" in line]
    assert held == [
        "K#1 was held by ann, ben, focus",
        "K#2 was held by ann, ben, cat, focus",
        "K#3 was held by ann, cat, focus",
        "K#4 was held by ann, ben, cat, focus",
        "K#5 was held by ann, cat, focus",
        "K#6 was held by ann, cat, focus",
    ]
