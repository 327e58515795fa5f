"""`otway demo conference`: three members talk, one comes, one leaves, one is put out, and the focus dies.
Each coming and going starts an epoch with a key of its own: those have it who are in, and nobody else.

three join -> dave joins -> bob leaves -> carol is removed -> the focus dies -> who could decrypt which epoch
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from console.embedded import Hop, Town, TownSettings
from console.scenarios.evidence import NOTES, WRONG, failed
from console.scenarios.pitches import gaps_ms, heard_ms, voice
from console.scenarios.streams import (
    Attempt,
    Keyring,
    Lock,
    Opened,
    caught,
    last_opened_at,
    sorted_out,
    table_of,
    tried_on,
)
from console.scenarios.telling import Telling
from console.scenarios.waiting import Waiting
from media.pcm import Pcm
from protocol.sealing import Random
from protocol.secret import Secret
from storage.kms_records import Group
from topics.messages import (
    Audit,
    AuditEvent,
    ConferenceEvent,
    ConferenceReport,
    InUse,
    Report,
    ReportEvent,
)

FIRST: Final = ("alice", "bob", "carol")
LATER: Final = "dave"
LEAVER: Final = "bob"
REMOVED: Final = "carol"
STAYING: Final = ("alice", "dave")
INSTANCES: Final = ("conference", "conference-2")
OUT_WITHIN_S: Final = 1.0  # from the wish to leave to the last packet that the leaver can decrypt
GAP_MS_MAX: Final = 100
_PITCHES: Final = {"alice": 400, "bob": 550, "carol": 700, "dave": 850}  # Hz
_FOCUS: Final = "conference"
_PARTIES: Final = (*_PITCHES, _FOCUS, "kms", "bsf", "cscf")
_TALK_S: Final = 1.5  # between two changes
_LASTING_S: Final = 60.0
_HEARD_MS_MIN: Final = 600
_TAKEN_OVER_MS_MAX: Final = 10_000
_NOTES: Final = {
    **NOTES,
    LEAVER: "left",
    REMOVED: "was put out",
    LATER: "came later",
    _FOCUS: "mixes: the KMS gives it each epoch's key, and lists it",
    "kms": "it made the keys",
}


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch, by the KMS's audit."""

    epoch: int
    roster: list[str]  # names of members, and the focus
    streams: int  # of packets under its key; an epoch that was over at once has none


class Conferred(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: what `--json` prints and conference.json holds."""

    group: str
    epochs: list[Epoch]
    heard_ms: dict[str, dict[str, int]]  # by listener and by speaker, itself included
    longest_gap_ms: dict[str, int]  # by listener: of any voice, but for the gap of the taking over
    waited_ms: int  # how long the machine has kept this process waiting meanwhile
    taken_over_ms: dict[str, int]  # by listener: that gap
    roster_after: list[str]  # by the instance that has taken over
    out_after_s: dict[str, float]  # from the wish to the last packet that who has gone could decrypt
    unknown: int  # streams that no epoch's key opens
    access: list[Attempt]

    @property
    def good(self) -> bool:
        """Each heard the others, and could decrypt the epochs that it was in, and nothing else."""
        return not self.faults

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        inside = {each.epoch: {*each.roster, "kms"} if each.streams else set[str]() for each in self.epochs}
        # the thread of the phones and that of the focus: each may be as late as the one that has measured it
        gap_ms = max(self.longest_gap_ms.values()) - 2 * self.waited_ms
        return failed(
            {
                "the rosters are not those of what was wished": self._rosters_follow_wishes(),
                "somebody did not hear another, or heard itself": self._heard_each_other(),
                f"a gap of more than {GAP_MS_MAX} ms was heard": gap_ms <= GAP_MS_MAX,
                "nobody took over in time": max(self.taken_over_ms.values()) < _TAKEN_OVER_MS_MAX,
                "who was out could decrypt for too long": sorted(self.out_after_s) == [LEAVER, REMOVED]
                and max(self.out_after_s.values()) < OUT_WITHIN_S,
                "there are packets under no epoch's key": self.unknown == 0,
                "not all have tried": [each.party for each in self.access] == [*_PARTIES, "wiretap"],
            }
        ) + [
            f"{WRONG}{each.party} could decrypt more or less than it should"
            for each in self.access
            if each.opened
            != {
                _column(epoch): Opened.ALL if each.party in there else Opened.NONE
                for epoch, there in inside.items()
            }
        ]

    def _rosters_follow_wishes(self) -> bool:
        rosters = [set(each.roster) - {_FOCUS} for each in self.epochs]
        changes: list[set[str]] = [set(FIRST), {*FIRST, LATER}]
        changes += [changes[-1] - {LEAVER}, changes[-1] - {LEAVER, REMOVED}]
        changes.append(changes[-1])  # who takes over asks for an epoch of its own
        begun = len(rosters) - len(changes)  # the first three may have come one after the other
        return (
            begun >= 0
            and rosters[begun:] == changes
            and all(roster < set(FIRST) for roster in rosters[:begun])
            and all(each.streams for each in self.epochs[begun:])
            and set(self.roster_after) == {*STAYING, _FOCUS}
        )

    def _heard_each_other(self) -> bool:
        return all(
            (heard >= _HEARD_MS_MIN) if speaker != listener else (heard == 0)
            for listener, speakers in self.heard_ms.items()
            for speaker, heard in speakers.items()
        )


class ConferenceDemo:
    """One conference."""

    def __init__(self, *, clock: Callable[[], int], random: Random, show: Callable[[str], None]) -> None:
        """show: takes each line of the account as it happens."""
        self._telling = Telling(show, (*_PITCHES, "cscf", _FOCUS, "kms"))
        sounds = {name: voice(hertz, _LASTING_S) for name, hertz in _PITCHES.items()}
        self._town = Town(
            TownSettings(sounds=sounds, functions=INSTANCES),
            clock=clock,
            random=random,
            on_hop=self._happened,
        )
        self.keyring = Keyring(self._town, _PARTIES)
        self._keys: dict[int, Secret] = {}  # K_e, as the KMS has it
        self._waiting = Waiting()
        self._wished_at: dict[str, float] = {}
        self._group = b""
        self._stands: ConferenceReport | None = None
        self.heard: dict[str, Pcm] = {}
        """What each member heard, once it is over."""

    async def run(self) -> Conferred:
        """What `play` raises."""
        await self.play()
        return self.outcome()

    async def play(self) -> None:
        """Raises OSError without UDP sockets on loopback, TimeoutError when it comes to nothing."""
        town = self._town
        try:
            await town.start()
            await town.registered()
            self._telling.begin("each member says a tone of its own pitch; IN-USE is not drawn\n")
            with self._waiting:
                await self._talk()
            self.heard = {name: np.concatenate(town.heard(name)) for name in _PITCHES}
        finally:
            await town.stop()

    async def _talk(self) -> None:
        town = self._town
        group = self._group = town.wishes.create_conference()
        await town.until(lambda: self._told(ConferenceEvent.CREATED))
        for name in FIRST:
            town.wishes.join(name, group)
        await self._in_one_epoch(FIRST)
        town.wishes.join(LATER, group)
        await self._in_one_epoch((*FIRST, LATER))
        self._wish_out(LEAVER)
        town.wishes.leave(LEAVER, group)
        await self._in_one_epoch(("alice", REMOVED, LATER))
        self._wish_out(REMOVED)
        town.wishes.remove(REMOVED, group)
        await self._in_one_epoch(STAYING)
        await self._take_over()
        town.wishes.end_conference(group)
        await town.until(
            lambda: self._all_have(ReportEvent.LEFT_CONFERENCE) and self._all_have(ReportEvent.MEDIA)
        )

    def _wish_out(self, name: str) -> None:
        self._wished_at[name] = asyncio.get_running_loop().time()

    async def _take_over(self) -> None:
        town = self._town
        [carrying] = [name for name in INSTANCES if town.roots(name)]
        self._telling.note("the instance of the focus dies")
        await town.switch_off(carrying)
        await town.until(lambda: self._told(ConferenceEvent.TAKEN_OVER))
        await asyncio.sleep(_TALK_S)
        question = town.wishes.show_conference(self._group)
        await town.until(lambda: any(each.request == question for each in town.conferences))
        [self._stands] = [each for each in town.conferences if each.request == question]

    async def _in_one_epoch(self, names: Sequence[str]) -> None:
        """Returns when these have all taken the epoch with just these in it, and have talked for a while."""
        identities = {self._town.devices[name].identity for name in names} | {self._town.focus.identity}

        def has_taken(name: str) -> bool:
            device = self._town.devices[name].impi
            taken = [r for r in self._town.reports if r.device == device and r.epoch is not None]
            return bool(taken) and set(taken[-1].roster) == identities

        await self._town.until(lambda: all(map(has_taken, names)))
        await asyncio.sleep(_TALK_S)

    def _told(self, event: ConferenceEvent) -> bool:
        return any(each.event is event for each in self._town.conferences)

    def _all_have(self, event: ReportEvent) -> bool:
        return set(self._town.told(event)) == set(_PITCHES)

    def _happened(self, hop: Hop) -> None:
        if isinstance(hop.message, Report | Audit | ConferenceReport):
            self.keyring.look()
        match hop.message:
            case Audit(event=AuditEvent.EPOCH):
                groups = self._town.remembered.of_kms("group", Group)
                self._keys.update({group.epoch: group.key for group in groups if group.key is not None})
            case ConferenceReport(event=ConferenceEvent.TAKEN_OVER):
                self._telling.note("another instance mixes: in the same epoch, then in one of its own")
            case Report(event=ReportEvent.JOINED | ReportEvent.EPOCH, epoch=epoch, roster=roster):
                self._telling.note(f"{hop.sender} is in epoch {epoch} with {', '.join(self._names(roster))}")
            case Report(event=ReportEvent.LEFT_CONFERENCE, reason=reason):
                self._telling.note(f"over at {hop.sender}: {reason}")
            case InUse():
                pass
            case _:
                self._telling.draw(hop)

    def _names(self, roster: Iterable[str]) -> list[str]:
        """The names of these identities."""
        names = {device.identity: name for name, device in self._town.devices.items()}
        names[self._town.focus.identity] = _FOCUS
        return sorted(names[identity] for identity in roster)

    def outcome(self) -> Conferred:
        """How it went, by all that was caught, heard and held."""
        town = self._town
        senders = [device.identity for device in town.devices.values()] + [town.focus.identity]
        locks = [
            Lock(_column(epoch), key, sender, self._group, epoch)
            for epoch, key in sorted(self._keys.items())
            for sender in senders
        ]
        columns = sorted_out(caught(town.wiretap), locks)
        out_after_s = {}
        for name, wished_at in self._wished_at.items():
            last = last_opened_at(columns, list(self.keyring.held[name]))
            out_after_s[name] = round(max(0.0, (wished_at if last is None else last) - wished_at), 3)
        gaps = {name: self._gaps(name) for name in _PITCHES}
        return Conferred(
            group=self._group.hex(),
            epochs=[
                Epoch(
                    epoch=audit.epoch or 0,
                    roster=self._names(audit.roster),
                    streams=len(columns.locked.get(_column(audit.epoch or 0), ())),
                )
                for audit in town.audits
                if audit.event is AuditEvent.EPOCH
            ],
            heard_ms={
                name: {speaker: heard_ms(self.heard[name], hertz) for speaker, hertz in _PITCHES.items()}
                for name in _PITCHES
            },
            longest_gap_ms={name: longest for name, (longest, _) in gaps.items()},
            waited_ms=self._waiting.longest_ms,
            taken_over_ms={name: taken_over for name, (_, taken_over) in gaps.items() if name in STAYING},
            roster_after=self._names(self._stands.roster if self._stands else ()),
            out_after_s=out_after_s,
            unknown=len(columns.unknown),
            access=tried_on(columns, {**self.keyring.held, "wiretap": ()}, _NOTES),
        )

    def _gaps(self, name: str) -> tuple[int, int]:
        """The longest gap that this member has heard in any voice, and the one of the taking over apart."""
        longest, taken_over = 0, 0
        for speaker, hertz in _PITCHES.items():
            gaps = [*gaps_ms(self.heard[name], hertz), 0, 0]
            if name in STAYING and speaker in STAYING:
                taken_over = max(taken_over, gaps.pop(0))
            if speaker != name:
                longest = max(longest, gaps[0])
        return longest, taken_over


def _column(epoch: int) -> str:
    return f"epoch {epoch}"


def account(outcome: Conferred) -> list[str]:
    """The outcome in sentences, as the demo ends with."""
    lines = [f"\nconference {outcome.group[:4]}"]
    lines += [f"epoch {each.epoch}: {', '.join(each.roster)}" for each in outcome.epochs]
    lines += table_of(outcome.access)
    for listener, speakers in outcome.heard_ms.items():
        others = ", ".join(f"{name} {ms / 1000:.1f} s" for name, ms in speakers.items() if name != listener)
        longest = outcome.longest_gap_ms[listener]
        itself = speakers[listener] / 1000
        lines.append(f"{listener} heard {others}, itself {itself:.1f} s; longest gap {longest} ms")
    taken_over = max(outcome.taken_over_ms.values()) / 1000
    lines.append(f"nothing was heard for {taken_over:.1f} s when the focus had died")
    lines += [
        f"the last packet that {name} could decrypt: {1000 * after:.0f} ms after the wish that it be out"
        for name, after in outcome.out_after_s.items()
    ]
    return [*lines, f"the machine kept us waiting {outcome.waited_ms} ms", *outcome.faults]
