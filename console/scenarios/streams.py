"""What a wiretap has caught as streams, one for each SSRC, and who opens which of them, by trying.

    streams = caught(wiretap) ; columns = sorted_out(streams, locks) ; rows = tried_on(columns, held, notes)

Where keys follow each other, or each leg has its own, a stream belongs to the one key that opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from chaos.eavesdropping import can_decrypt
from chaos.wiretap import Wiretap
from console.embedded import Town
from console.scenarios.evidence import rows
from media.rtcp import is_rtcp
from protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class Stream:
    """The SRTP packets of one SSRC on their way to one party."""

    towards: str
    packets: tuple[bytes, ...]
    at: tuple[float, ...]  # when each was caught, on the event loop's clock

    def since(self, moment: float) -> bool:
        """Whether it began then or later."""
        return self.at[0] >= moment


@dataclass(frozen=True, slots=True)
class Lock:
    """A root key, and what must be known besides it to open what one sender sends under it."""

    column: str  # of the table
    root: Secret
    sender: str  # identity
    receiver: str | bytes  # identity, or G
    n: int = 0  # run, or epoch

    def opens(self, roots: Iterable[Secret], packets: Sequence[bytes]) -> bool:
        """Whether any of the roots opens any of these packets of its sender."""
        return can_decrypt(roots, packets, sender=self.sender, receiver=self.receiver, n=self.n)


@dataclass(slots=True)
class Columns:
    """Each stream with the lock that it is under."""

    locked: dict[str, list[tuple[Stream, Lock]]] = field(default_factory=dict)
    """By column."""
    unknown: list[Stream] = field(default_factory=list)
    """Under none of the locks."""


class Opened(StrEnum):
    """How many streams of a column somebody can open."""

    ALL = "yes"
    SOME = "some"
    NONE = "no"


class Attempt(msgspec.Struct, frozen=True):
    """What a party could open, with all that it has ever held."""

    party: str
    opened: dict[str, Opened]  # by column
    note: str = ""


def caught(wiretap: Wiretap) -> list[Stream]:
    """All streams, in the order in which they began."""
    found: dict[tuple[str, bytes], list[tuple[float, bytes]]] = {}
    for party, datagrams in wiretap.caught.items():
        for datagram, at in zip(datagrams, wiretap.caught_at[party], strict=True):
            if not is_rtcp(datagram):
                found.setdefault((party, datagram[8:12]), []).append((at, datagram))
    streams = [
        Stream(party, tuple(packet for _, packet in packets), tuple(at for at, _ in packets))
        for (party, _), packets in found.items()
    ]
    return sorted(streams, key=lambda stream: stream.at[0])


def sorted_out(streams: Iterable[Stream], locks: Sequence[Lock]) -> Columns:
    """Each stream under the lock whose root opens it."""
    columns = Columns({lock.column: [] for lock in locks})
    for stream in streams:
        lock = next((each for each in locks if each.opens([each.root], _some(stream))), None)
        if lock is None:
            columns.unknown.append(stream)
        else:
            columns.locked[lock.column].append((stream, lock))
    return columns


def tried_on(
    columns: Columns, held: Mapping[str, Iterable[Secret]], notes: Mapping[str, str]
) -> list[Attempt]:
    """Every party tries every secret on every stream. held, notes: by party."""
    attempts = []
    for party, secrets in held.items():
        roots = list(secrets)
        opened = {
            column: how_many([lock.opens(roots, _some(stream)) for stream, lock in locked])
            for column, locked in columns.locked.items()
        }
        attempts.append(Attempt(party, opened, notes.get(party, "")))
    return attempts


def how_many(opened: Sequence[bool]) -> Opened:
    """ALL only where there is anything at all."""
    if not any(opened):
        return Opened.NONE
    return Opened.ALL if all(opened) else Opened.SOME


def last_opened_at(columns: Columns, roots: Sequence[Secret]) -> float | None:
    """When the last packet was caught that these roots open; None: they open nothing."""
    latest: list[float] = []
    for stream, lock in (each for locked in columns.locked.values() for each in locked):
        if lock.opens(roots, _some(stream)):
            backwards = zip(reversed(stream.packets), reversed(stream.at), strict=True)
            latest += [at for packet, at in backwards if lock.opens(roots, [packet])][:1]
    return max(latest, default=None)


def table_of(
    attempts: Sequence[Attempt],
    head: str = "who can decrypt",
    remark: str = "(each tried with all that it ever held)",
) -> list[str]:
    """The attempts as lines."""
    return rows(head, [(each.party, dict(each.opened), each.note) for each in attempts], remark)


class Keyring:
    """All that each party has ever held: `look` is called whenever somebody tells something."""

    def __init__(self, town: Town, parties: Sequence[str]) -> None:
        self._town = town
        self.held: dict[str, set[Secret]] = {party: set() for party in parties}

    def look(self) -> None:
        """What they hold now."""
        for party, secrets in self.held.items():
            secrets.update(self._town.holdings(party))


def _some(stream: Stream) -> list[bytes]:
    """The first packet, the last, and one between: a key opens all of a stream, or nothing."""
    packets = stream.packets
    return [packets[index] for index in sorted({0, len(packets) // 2, len(packets) - 1})]
