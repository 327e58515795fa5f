"""The bus and the store as a party in trouble sees them: operations that crash it, records that get lost.

An agent's loop touches the world through its bus and its store only, so a crash before or after any of those
operations is a crash between any two steps of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storage.memory import MemoryStore
from storage.store import Change, DueAlarm, Stored
from topics.bus import Inbound, Lag, NoSuchTopic, Outbound
from topics.memory import MemoryBus


class Crashed(BaseException):
    """The process died here: nothing in it may catch this."""


@dataclass(slots=True)
class Fuse:
    """Counts a party's operations, and blows at one of them."""

    left: int | None = None  # operations until it blows; None: never
    after: bool = False  # blows after the operation has had its effect, not before

    def before(self) -> None:
        """One operation begins. Raises Crashed."""
        if self.left is not None:
            self.left -= 1
            if self.left <= 0 and not self.after:
                raise Crashed

    def done(self) -> None:
        """The operation has had its effect. Raises Crashed."""
        if self.left is not None and self.left <= 0:
            raise Crashed


class FaultyBus:
    """A bus whose member may die at each operation, and whose sends go through the world's network."""

    def __init__(self, bus: MemoryBus, fuse: Fuse, transmit: Callable[[Outbound], None]) -> None:
        self._bus = bus
        self._fuse = fuse
        self._transmit = transmit

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        self._fuse.before()
        records = await self._bus.receive(limit, wait_s)
        self._fuse.done()
        return records

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        undeliverable = []
        self._fuse.before()
        for record in records:
            try:
                self._transmit(record)
            except NoSuchTopic:
                undeliverable.append(record)
            self._fuse.done()
        return undeliverable

    def commit(self, records: Sequence[Inbound]) -> None:
        if records:
            self._fuse.before()
        self._bus.commit(records)
        if records:
            self._fuse.done()

    def give_back(self, records: Sequence[Inbound]) -> None:
        self._bus.give_back(records)

    def partitions(self) -> frozenset[int]:
        return self._bus.partitions()

    def joined(self) -> bool:
        return self._bus.joined()

    def lag(self) -> Lag:
        return self._bus.lag()

    async def stop(self) -> None:
        await self._bus.stop()

    def abandon(self) -> None:
        self._bus.abandon()


class FaultyStore:
    """A store whose user may die at each operation; `on_write` sees each change that was written."""

    def __init__(self, store: MemoryStore, fuse: Fuse, on_write: Callable[[Sequence[Change]], None]) -> None:
        self._store = store
        self._fuse = fuse
        self._on_write = on_write

    async def read(self, names: Sequence[str]) -> list[Stored]:
        self._fuse.before()
        stored = await self._store.read(names)
        self._fuse.done()
        return stored

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        self._fuse.before()
        written = await self._store.write(changes)
        self._on_write([change for change, done in zip(changes, written, strict=True) if done])
        self._fuse.done()
        return written

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        return await self._store.due(role, shards, now, limit)

    async def dismiss(self, alarms: Sequence[DueAlarm]) -> None:
        self._fuse.before()
        await self._store.dismiss(alarms)
        self._fuse.done()

    async def close(self) -> None:
        await self._store.close()
