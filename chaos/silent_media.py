"""Media without sockets, for the simulator: an engine that keeps the keys and knows who would hear whom, and
the recorder of a mailbox.

A packet is a counter and a mark that only its root key makes; who has another key finds it refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from media.leg import (
    CloseMedia,
    CloseRecording,
    CloseStored,
    Leg,
    MediaClosed,
    MediaInstruction,
    MediaSilent,
    OpenMedia,
    OpenRecording,
    OpenStored,
    Recorded,
    RecordingClosed,
    StoredHeard,
    TakeStored,
)
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


@dataclass(frozen=True, slots=True)
class Opening:
    """Media that was opened: when, at which host, under which key."""

    time: float
    host: str
    leg: Leg


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


class SilentMedia:
    """The engine of one UE host."""

    def __init__(self, world: Surroundings, host: str) -> None:
        self._world = world
        self._host = host
        self.open: dict[str, Leg] = {}
        self.openings: list[Opening] = []
        self.listenings: list[Listening] = []
        self._stored: dict[str, tuple[Leg, list[bytes]]] = {}

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open or close a session; the key's lifetime and silence are watched from now on."""
        match instruction:
            case OpenMedia(leg):
                self.open[leg.session] = leg
                self.openings.append(Opening(self._world.time, self._host, leg))
                self._later(leg.lifetime_s, lambda: self._expire(leg))
                if leg.to_mailbox:
                    self._speak(leg, 0)
                else:
                    self._later(SILENCE_S, lambda: self._listen(leg))
            case CloseMedia(session):
                closed = self.open.pop(session, None)
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

    def die(self) -> None:
        """The host's process has died."""
        self.open.clear()
        self._stored.clear()

    def calls(self) -> list[tuple[str, bytes]]:
        """ID-A and C of the open sessions."""
        return [call_of(session) for session in self.open]

    def _speak(self, leg: Leg, count: int) -> None:
        if self.open.get(leg.session) is leg:
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

    def _expire(self, leg: Leg) -> None:
        if self.open.get(leg.session) is leg:
            del self.open[leg.session]
            self._world.tell(self._host, MediaClosed(leg.session, NO_STATISTICS, expired=True))

    def _listen(self, leg: Leg) -> None:
        if self.open.get(leg.session) is not leg:
            return
        if any(self._hears(leg, other) for media in self._world.sessions for other in media.open.values()):
            self._later(SILENCE_S, lambda: self._listen(leg))
        else:
            self._world.tell(self._host, MediaSilent(leg.session))

    def _hears(self, leg: Leg, other: Leg) -> bool:
        """Whether the other end's packets would authenticate here."""
        return (other.local, other.remote, other.n, other.root) == (leg.remote, leg.local, leg.n, leg.root)

    def _later(self, seconds: float, action: Callable[[], object]) -> None:
        self._world.at(self._world.time + seconds, action)


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


def call_of(session: str) -> tuple[str, bytes]:
    """ID-A and C out of a session's name (agents/handset/ue_call.py)."""
    caller, _, call = session.partition(" ")[2].rpartition("/")
    return caller, bytes.fromhex(call)
