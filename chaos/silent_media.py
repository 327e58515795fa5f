"""Media without sockets, for the simulator: an engine that keeps the keys and knows who would hear whom, and
the recorder of a mailbox.

A packet is a counter and a mark that only its root key makes; who has another key finds it refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from media.leg import (
    CloseMedia,
    CloseRecording,
    CloseStored,
    Leg,
    MediaClosed,
    MediaInstruction,
    MediaSilent,
    MoveMedia,
    OpenMedia,
    OpenRecording,
    OpenStored,
    Recorded,
    RecordingClosed,
    RenewMedia,
    Speakers,
    StoredHeard,
    TakeStored,
)
from media.succession import Key, Succession
from protocol.encoding import digest, enc
from protocol.secret import Secret
from protocol.transport import MediaAddress, Statistics

SILENCE_S: Final = 10.0
SPEAKS_EACH_S: Final = 1.0  # one packet stands for a second
LINGER_S: Final = 0.3
_END: Final = 0xFFFF_FFFF  # the counter of a sender's last packet
NO_STATISTICS: Final = Statistics(
    sent=0,
    received=0,
    lost=0,
    late=0,
    refused=0,
    replayed=0,
    jitter_ms=0.0,
    peer_lost=None,
    peer_jitter_ms=None,
    round_trip_ms=None,
)


@dataclass(slots=True)
class Opening:
    """Media that was opened or renewed: when, at which host, under which key, and when that was dropped."""

    time: float
    host: str
    leg: Leg
    closed: float | None = None


@dataclass(frozen=True, slots=True)
class Listening:
    """A stored message that was heard: when, at which host, under which key, and whether it was whole."""

    time: float
    host: str
    leg: Leg
    whole: bool
    refused: int


class Surroundings(Protocol):
    """What an engine sees of the simulated world."""

    time: float
    sessions: list[SilentMedia]

    def deliver(self, address: MediaAddress, packet: bytes) -> None:
        """A packet for whoever is there."""
        ...

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Do something at a time, seconds since the beginning."""
        ...

    def tell(self, name: str, event: Any) -> None:  # noqa: ANN401
        """A media event for the host of that name."""
        ...


@dataclass(slots=True)
class _Session:
    """An open session: its keys over time, and what the checkers will read of each."""

    keys: Succession
    openings: list[tuple[Key, Opening]]
    due: set[float] = field(default_factory=set)
    """When something follows from its keys."""


class SilentMedia:
    """The engine of one UE host, or what is inside a SilentBridge.

    A key that is spoken under is heard at once by whoever takes it, wherever it is sent to: only if the lines
    are told must the address be right as well.
    """

    def __init__(self, world: Surroundings, host: str, lines: Sequence[MediaAddress] = ()) -> None:
        self._world = world
        self._host = host
        self._lines = lines
        self.open: dict[str, Leg] = {}  # the newest of each session
        self.openings: list[Opening] = []
        self.listenings: list[Listening] = []
        self._sessions: dict[str, _Session] = {}
        self._stored: dict[str, tuple[Leg, list[bytes]]] = {}

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open, renew, move or close a session; keys' lifetimes and silence are watched from now on."""
        match instruction:
            case OpenMedia(leg):
                self._begin(leg)
            case RenewMedia(leg):
                if leg.session not in self.open:
                    self._begin(leg)
                elif self._sessions[leg.session].keys.has(leg):
                    self._move(leg.session, leg.remote_address)
                else:
                    self._renew(instruction)
            case MoveMedia(session, address):
                if session in self.open:
                    self._move(session, address)
            case CloseMedia(session):
                closed = self._end(session)
                if closed is not None:
                    if closed.to_mailbox:
                        self._world.deliver(closed.remote_address, _packet(closed.root, _END))
                    self._world.tell(self._host, MediaClosed(session, NO_STATISTICS, expired=False))
            case OpenStored(leg):
                self._stored[leg.session] = (leg, [])
            case TakeStored(session, packets) if session in self._stored:
                self._stored[session][1].extend(packets)
            case CloseStored(session):
                self._hear_stored(session)
            case _:
                pass

    def hear(self, other: Leg) -> None:
        """Somebody begins to speak under this key."""
        for name, session in list(self._sessions.items()):
            for key in session.keys.taken:
                if not key.heard and self._hears(key.leg, other):
                    session.keys.hear(key, self._world.time)
                    self._go_on(name, session)
                    break

    def speaks_to(self, leg: Leg, line: MediaAddress | None) -> bool:
        """Whether a session here sends what would authenticate at this leg, to this line if one is told."""
        return any(
            _fits(leg, session.keys.speaking.leg) and line in {None, self.open[name].remote_address}
            for name, session in self._sessions.items()
        )

    def die(self) -> None:
        """The host's process has died."""
        for session in list(self.open):
            self._end(session)
        self._stored.clear()

    def calls(self) -> list[tuple[str, bytes]]:
        """ID-A and C of the open sessions."""
        return [call_of(session) for session, leg in self.open.items() if leg.group is None]

    def _speak(self, leg: Leg, count: int) -> None:
        if self.open.get(leg.session) is leg:  # one that goes to a mailbox is not renewed
            self._world.deliver(leg.remote_address, _packet(leg.root, count))
            self._later(SPEAKS_EACH_S, lambda: self._speak(leg, count + 1))

    def _hear_stored(self, session: str) -> None:
        heard = StoredHeard(session, packets=0, refused=0, whole=False)
        if session in self._stored:
            leg, packets = self._stored.pop(session)
            counts = [_count(leg.root, packet) for packet in packets]
            opened = [count for count in counts if count is not None]
            whole = opened == [*range(len(opened) - 1), _END]
            refused = len(counts) - len(opened)
            heard = StoredHeard(session, len(opened), refused, whole)
            self.listenings.append(Listening(self._world.time, self._host, leg, whole, refused))
        self._world.tell(self._host, heard)

    def _begin(self, leg: Leg) -> None:
        self._end(leg.session)
        keys = Succession(leg, self._world.time)
        session = self._sessions[leg.session] = _Session(keys, [])
        self._note(session, keys.speaking)
        if leg.to_mailbox:
            self._speak(leg, 0)
        else:
            self._later(SILENCE_S, lambda: self._listen(leg.session, session))
            self._spread(leg.session)

    def _renew(self, instruction: RenewMedia) -> None:
        leg = instruction.leg
        session = self._sessions[leg.session]
        key = session.keys.renew(
            leg,
            self._world.time,
            speak_within_s=instruction.speak_within_s,
            overlap_s=instruction.overlap_s,
        )
        self._note(session, key)
        if any(media.speaks_to(leg, self._line(leg)) for media in self._world.sessions):
            session.keys.hear(key, self._world.time)
        self._go_on(leg.session, session)

    def _note(self, session: _Session, key: Key) -> None:
        leg = key.leg
        self.open[leg.session] = leg
        opening = Opening(self._world.time, self._host, leg)
        session.openings.append((key, opening))
        self.openings.append(opening)
        self._later(leg.lifetime_s, lambda: self._expire(leg))

    def _move(self, session: str, address: MediaAddress) -> None:
        self.open[session] = msgspec.structs.replace(self.open[session], remote_address=address)
        self._spread(session)

    def _go_on(self, name: str, session: _Session) -> None:
        """What follows from the keys that a session has now; and what is due later."""
        if self._sessions.get(name) is not session:
            return
        now = self._world.time
        over = session.keys.forget(now)
        for key, opening in session.openings:
            if key in over:
                opening.closed = now
        before = session.keys.speaking
        session.keys.speak(now)
        if session.keys.speaking is not before:
            self._spread(name)
        for key in session.keys.taken:
            for when in {key.speak_at, key.taken_until, key.not_after}:
                if now < when < math.inf and when not in session.due:
                    session.due.add(when)
                    self._world.at(when, lambda: self._go_on(name, session))

    def _spread(self, name: str) -> None:
        """Whoever takes what is spoken under here hears it."""
        leg = self._sessions[name].keys.speaking.leg
        leg = msgspec.structs.replace(leg, remote_address=self.open[name].remote_address)
        for media in self._world.sessions:
            media.hear(leg)

    def _end(self, session: str) -> Leg | None:
        ended = self._sessions.pop(session, None)
        if ended is None:
            return None
        for _, opening in ended.openings:
            if opening.closed is None:
                opening.closed = self._world.time
        return self.open.pop(session)

    def _expire(self, leg: Leg) -> None:
        session = self._sessions.get(leg.session)
        if session is not None and session.keys.newest is leg:
            self._end(leg.session)
            self._world.tell(self._host, MediaClosed(leg.session, NO_STATISTICS, expired=True))

    def _listen(self, name: str, session: _Session) -> None:
        if self._sessions.get(name) is not session:
            return
        taken = [key.leg for key in session.keys.taken]
        if any(media.speaks_to(leg, self._line(leg)) for media in self._world.sessions for leg in taken):
            self._later(SILENCE_S, lambda: self._listen(name, session))
        else:
            self._world.tell(self._host, MediaSilent(name))

    def _hears(self, leg: Leg, other: Leg) -> bool:
        """Whether what is sent under another leg would authenticate here, and comes to this line."""
        return _fits(leg, other) and self._line(leg) in {None, other.remote_address}

    def _line(self, leg: Leg) -> MediaAddress | None:
        return self._lines[leg.line] if self._lines else None

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        self._world.at(self._world.time + seconds, action)


class SilentBridge:
    """The engine of one instance of a transcoder or a focus: as deaf as a handset's, in the same world.

    Of a conference it tells that the one speaks that came first. `media` belongs into the world's sessions.
    """

    def __init__(self, world: Surroundings, instance: str, lines: Sequence[MediaAddress] = ()) -> None:
        self.media = SilentMedia(world, instance, lines)
        self._world = world
        self._instance = instance
        self._told: dict[str, tuple[str, ...]] = {}  # by bridge: who speaks

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open, renew, move or close a session of a bridge."""
        match instruction:
            case OpenMedia(leg) | RenewMedia(leg):
                assert leg.bridge
                self._watch(leg)
            case CloseMedia(session):
                if session in self.media.open:
                    self._watch(self.media.open[session])
            case MoveMedia():
                pass
            case _:
                raise AssertionError(instruction)
        self.media.carry_out(instruction)

    def bridge(self, name: str) -> tuple[Leg, ...]:
        """The legs that hear each other there, in the order in which they came."""
        return tuple(leg for leg in self.media.open.values() if leg.bridge == name)

    def die(self) -> None:
        """The process has died."""
        self.media.die()
        self._told.clear()

    def _watch(self, leg: Leg) -> None:
        if leg.group is not None:
            self._world.at(self._world.time + SPEAKS_EACH_S, lambda: self._tell_speakers(leg.bridge))

    def _tell_speakers(self, name: str) -> None:
        speakers = tuple(leg.session for leg in self.bridge(name)[:1])
        if speakers != self._told.get(name, ()):
            self._told[name] = speakers
            self._world.tell(self._instance, Speakers(name, speakers))


class SilentRecorder:
    """The recorder of one process of the mailbox."""

    def __init__(self, world: Surroundings, process: str, lines: Sequence[MediaAddress]) -> None:
        self._world = world
        self._process = process
        self._lines = lines
        self._open: dict[int, tuple[str, int]] = {}  # by line: the session, and its parts so far

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Begin to keep what comes to a line, or end it."""
        match instruction:
            case OpenRecording(session, line):
                self._open[line] = (session, 0)
            case CloseRecording(session):
                self._world.at(self._world.time + LINGER_S, lambda: self._close(session))
            case _:
                raise AssertionError(instruction)

    def take(self, address: MediaAddress, packet: bytes) -> None:
        """A packet has come to one of the lines, or to somebody else's."""
        if address in self._lines:
            line = self._lines.index(address)
            if line in self._open:
                session, part = self._open[line]
                self._open[line] = (session, part + 1)
                self._world.tell(self._process, Recorded(session, part, (packet,)))

    def die(self) -> None:
        """The process has died."""
        self._open.clear()

    def _close(self, session: str) -> None:
        self._open = {line: open_ for line, open_ in self._open.items() if open_[0] != session}
        self._world.tell(self._process, RecordingClosed(session))


def _packet(root: Secret, count: int) -> bytes:
    """Looks like RTP to who has no key."""
    header = b"\x80\0" + (count & 0xFFFF).to_bytes(2, "big") + bytes(8)
    return header + digest(enc(root.reveal(), count))[:16] + count.to_bytes(4, "big")


def _count(root: Secret, packet: bytes) -> int | None:
    """The packet's counter, if it was made with this root."""
    count = int.from_bytes(packet[-4:], "big")
    return count if packet == _packet(root, count) else None


def _fits(leg: Leg, other: Leg) -> bool:
    """Whether what is sent under another leg would authenticate at this one."""
    return (other.local, other.remote, other.group, other.n, other.root) == (
        leg.remote,
        leg.local,
        leg.group,
        leg.n,
        leg.root,
    )


def call_of(session: str) -> tuple[str, bytes]:
    """ID-A and C out of a session's name (agents/handset/ue_call.py)."""
    caller, _, call = session.partition(" ")[2].rpartition("/")
    return caller, bytes.fromhex(call)
