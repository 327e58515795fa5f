"""A store in this process: a handset's, which dies with it, and the simulator's.

No method waits for anything: a coroutine of this store runs to its end at the first step, so that the
simulator can drive it by hand.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from storage.store import NO_VERSION, Change, DueAlarm, Stored, StoredAlarm, StoredPut

_ABSENT: Final = Stored(NO_VERSION, None)


@dataclass(slots=True)
class _Alarms:
    """The alarms of one shard of one role."""

    times: list[tuple[int, str]] = field(default_factory=list)  # at and name, sorted
    by_name: dict[str, StoredAlarm] = field(default_factory=dict)

    def remove(self, name: str) -> None:
        alarm = self.by_name.pop(name, None)
        if alarm is not None and alarm.at is not None:
            del self.times[bisect_left(self.times, (alarm.at, name))]

    def set(self, alarm: StoredAlarm) -> None:
        self.remove(alarm.name)
        if alarm.at is not None:
            insort(self.times, (alarm.at, alarm.name))
            self.by_name[alarm.name] = alarm


class MemoryStore:
    """A `Store` whose records are dicts. It is always available, refuses nothing, and sweeps nothing."""

    def __init__(self) -> None:
        self._records: dict[str, Stored] = {}
        self._alarms: dict[tuple[str, int], _Alarms] = {}

    async def read(self, names: Sequence[str]) -> list[Stored]:
        """See Store.read."""
        return [self._records.get(name, _ABSENT) for name in names]

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        """See Store.write."""
        return [self._apply(change) for change in changes]

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        """See Store.due; equal times by shard, then by name."""
        if limit <= 0:
            return []
        found: list[DueAlarm] = []
        for shard in sorted(set(shards)):
            alarms = self._alarms.get((role, shard), _Alarms())
            for at, name in alarms.times[:limit]:
                if at > now:
                    break
                alarm = alarms.by_name[name]
                found.append(DueAlarm(role, shard, name, at, alarm.value, alarm.version))
        found.sort(key=lambda alarm: alarm.at)  # a stable sort keeps the order of equal times
        return found[:limit]

    async def dismiss(self, alarms: Sequence[DueAlarm]) -> None:
        """See Store.dismiss."""
        for alarm in alarms:
            kept = self._alarms.get((alarm.role, alarm.shard), _Alarms())
            current = kept.by_name.get(alarm.name)
            if current is not None and current.version == alarm.version:
                kept.remove(alarm.name)

    async def close(self) -> None:
        """Nothing to give up; the records stay for as long as the object does."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        """All records, name and value, for whoever looks through a whole store."""
        return ((name, stored.value) for name, stored in self._records.items() if stored.value is not None)

    def _apply(self, change: Change) -> bool:
        if any(self._records.get(put.name, _ABSENT).version != put.expected for put in change.puts):
            return False
        for put in change.puts:
            self._put(put)
        for alarm in change.alarms:
            assert alarm.at is None or len(alarm.version) == 16
            self._alarms.setdefault((alarm.role, alarm.shard), _Alarms()).set(alarm)
        return True

    def _put(self, put: StoredPut) -> None:
        if put.value is None:
            self._records.pop(put.name, None)
            return
        assert len(put.version) == 16
        self._records[put.name] = Stored(put.version, put.value)
