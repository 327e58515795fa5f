"""The port to a store of versioned records: what `storage/memory.py` and `storage/redis_store.py` both keep.

Rules, which the contract suite (tests/storage/store_contract.py) holds both to:
- A record has a version, which its writer chose and never takes again; an absent record has NO_VERSION.
- `write` takes changes; each is applied whole if every version in it is still the one that was read, else
  not at all. Changes are applied in order, so one may expect the version that the one before it writes.
- Alarms are written with the change that sets them. A due alarm stays until it is set anew or `dismiss`ed.
- A record's `expires` only sweeps: it may be read until long after; whoever reads decides by its content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

NO_VERSION: Final = b""
SWEEP_MARGIN_S: Final = 600  # a store forgets a record so long after it has expired


class StoreUnavailable(Exception):  # noqa: N818
    """The store did not answer within its deadline: come back later."""


class StoreRefused(Exception):  # noqa: N818
    """The store will not do this, now or later: wrong credentials, no right to a key."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as the store has it. value: None when there is none."""

    version: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class StoredPut:
    """Write `value` (None: delete) as `version` if the record's version is still `expected`."""

    name: str
    expected: bytes
    version: bytes  # 16 octets
    value: bytes | None
    expires: int | None = None  # seconds since 1970 UTC


@dataclass(frozen=True, slots=True)
class StoredAlarm:
    """A message to oneself at a time. name: unique in its shard of its role; at: None removes it."""

    role: str
    shard: int
    name: str
    at: int | None
    version: bytes = NO_VERSION  # 16 octets, unless it is removed
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class DueAlarm:
    """An alarm whose time has come; version: to dismiss exactly this setting of it."""

    role: str
    shard: int
    name: str
    at: int
    value: bytes
    version: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """What one decision writes: all of it or nothing."""

    puts: Sequence[StoredPut] = ()
    alarms: Sequence[StoredAlarm] = field(default=())


class Store(Protocol):
    """All methods are one round trip and raise StoreUnavailable or StoreRefused."""

    async def read(self, names: Sequence[str]) -> list[Stored]:
        """The records of these names, in their order."""
        ...

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        """For each change whether it was written; False where a version had moved on, and nothing was."""
        ...

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        """Alarms of these shards with at <= now, the earliest first."""
        ...

    async def dismiss(self, alarms: Sequence[DueAlarm]) -> None:
        """Remove alarms that have been dealt with; one that was set anew since stays."""
        ...

    async def close(self) -> None:
        """Give the connection up."""
        ...
