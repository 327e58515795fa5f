"""A media engine without sockets, for the simulator: it keeps the keys, and knows who would hear whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from media.leg import CloseMedia, Leg, MediaClosed, MediaInstruction, MediaSilent, OpenMedia
from protocol.transport import Statistics

SILENCE_S: Final = 10.0
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


class Surroundings(Protocol):
    """What an engine sees of the simulated world."""

    time: float
    sessions: list[SilentMedia]

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

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open or close a session; the key's lifetime and silence are watched from now on."""
        match instruction:
            case OpenMedia(leg):
                self.open[leg.session] = leg
                self.openings.append(Opening(self._world.time, self._host, leg))
                self._later(leg.lifetime_s, lambda: self._expire(leg))
                self._later(SILENCE_S, lambda: self._listen(leg))
            case CloseMedia(session):
                if self.open.pop(session, None) is not None:
                    self._world.tell(self._host, MediaClosed(session, NO_STATISTICS, expired=False))

    def die(self) -> None:
        """The host's process has died."""
        self.open.clear()

    def calls(self) -> list[tuple[str, bytes]]:
        """ID-A and C of the open sessions."""
        return [call_of(session) for session in self.open]

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


def call_of(session: str) -> tuple[str, bytes]:
    """ID-A and C out of a session's name (agents/ue_call.py)."""
    caller, _, call = session.partition(" ")[2].rpartition("/")
    return caller, bytes.fromhex(call)
