"""The loop that runs any agent: receive, decode, read, handle, write, audit, send, commit.

A crash anywhere repeats from `decode`, here or in another instance: at least once. A handler answers a repeat
with the same answer, which makes it exactly one effect. What a step depends on is done before it: what was
granted is stored before it is audited, audited before it is sent (OR-16), sent before it is committed.

Errors have four reactions: a malformed record is buried in the dead-letter topic; what the protocol refuses
the agent answers; an unavailable bus or store is waited for; anything else is a bug, and ends the process.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from agents.alarms import Alarm, decode_alarm, encode_alarm
from agents.decision import NOTHING, Agent, Decision, Input, Keys, Put, Records, Send, Wake
from agents.kms import audit_send
from agents.vitals import Vitals
from media.leg import MediaInstruction
from protocol.checks import Check, RefusalCode, Refused
from protocol.sealing import Random
from protocol.sharding import shard_of
from storage.records import Key, Record, RecordBroken, RecordCodec
from storage.store import (
    NO_VERSION,
    Change,
    DueAlarm,
    Store,
    StoredAlarm,
    StoredPut,
    StoreUnavailable,
)
from topics.bus import Bus, BusRefused, BusUnavailable, Inbound, Outbound
from topics.codec import decode, encode
from topics.dead_letters import bury
from topics.messages import Audit

T = TypeVar("T")

log = structlog.get_logger()

BATCH_MAX: Final = 200  # longer batches make aiokafka wait (see docs/decisions.md)
ALARMS_MAX: Final = 500  # their records are read and written in one round trip, durably: a few ms each
WAIT_S: Final = 0.1  # how long an idle loop waits for a record before it looks at alarms and local input
_TRIES: Final = 20  # conflicts in a row on one batch; two instances of a partition last for seconds at most
_BACK_OFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_GIVE_UP_AFTER: Final = 20  # attempts in vain: one to three minutes
_FINISH_S: Final = 1.5  # for the batch under way, once the loop was told to stop; most take a tenth of it
_LEAVE_S: Final = 2.5  # for leaving the bus and closing the store


class GaveUp(Exception):  # noqa: N818
    """The bus or the store stayed away: the process ends, to be started anew."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One input with where it came from; both None for what this process told itself."""

    input: Input
    inbound: Inbound | None = None
    alarm: DueAlarm | None = None


@dataclass(slots=True)
class _Written:
    """A batch whose decisions are stored: what has to follow before it is dealt with."""

    inbound: Sequence[Inbound]
    received_at: float
    kinds: Sequence[str]
    dead_letters: int
    events: list[Audit]
    sends: list[Outbound]
    media: list[MediaInstruction]
    alarms: list[DueAlarm]


@dataclass(slots=True)
class _Snapshot:
    """Records as read, and what earlier inputs of the batch have put."""

    records: dict[str, Record] = field(default_factory=dict)
    versions: dict[str, bytes] = field(default_factory=dict)
    broken: dict[str, RecordBroken] = field(default_factory=dict)
    unwritten: dict[str, Put[Any]] = field(default_factory=dict)  # put by an earlier input of this batch


class Loop:
    """One instance of one agent."""

    def __init__(
        self,
        agent: Agent,
        bus: Bus,
        store: Store,
        codec: RecordCodec,
        *,
        clock: Callable[[], int],
        random: Random,
        carry_out: Callable[[MediaInstruction], None] | None = None,
        vitals: Vitals | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: whole seconds since 1970 UTC. carry_out: the media engine, at a host that has one.
        monotonic: seconds, for alarms that come soon and for what the vitals say of time."""
        self.vitals: Final = vitals or Vitals()
        self._agent = agent
        self._bus = bus
        self._store = store
        self._codec = codec
        self._clock = clock
        self._random = random
        self._carry_out = carry_out
        self._monotonic = monotonic
        self._local: deque[Input] = deque()
        self._soon: list[tuple[float, int, Alarm]] = []  # a heap: when, in which order, what
        self._soon_order = itertools.count()
        self._alarms_seen_at = -1
        self._written: _Written | None = None  # what an unavailable bus or store has held up
        self._instance = random(8)
        self._versions = itertools.count(1)

    def tell(self, message: Input) -> None:
        """A local input: a media event, or an alarm that need not survive this process."""
        self._local.append(message)

    @property
    def soon_at(self) -> float | None:
        """When the next alarm of this process alone is due, on its monotonic clock; None: there is none."""
        return self._soon[0][0] if self._soon else None

    async def run(self, stopping: asyncio.Event) -> None:
        """Steps until `stopping` is set; then finishes the batch, commits and leaves. That takes 4 s at most,
        whatever bus and store do: a batch that was not finished comes again. Raises GaveUp."""
        patience = asyncio.timeout(None)
        try:
            async with patience:
                limiting = asyncio.create_task(_limit(patience, stopping))
                try:
                    await self._keep_stepping(stopping)
                finally:
                    limiting.cancel()
        except TimeoutError:
            if not patience.expired():
                raise
            log.warning("batch not finished", within_s=_FINISH_S)
        finally:
            await self._leave()

    async def _keep_stepping(self, stopping: asyncio.Event) -> None:
        failures = 0
        while not stopping.is_set():
            try:
                await self.step(WAIT_S)
                failures = 0
                self.vitals.waiting_for = None
            except (BusUnavailable, StoreUnavailable) as error:
                failures += 1
                what = "store" if isinstance(error, StoreUnavailable) else "bus"
                self.vitals.waiting_for = f"{what}: {error}"
                if failures >= _GIVE_UP_AFTER:
                    raise GaveUp(str(error)) from error
                log.warning("waiting", for_what=str(error), attempt=failures)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BACK_OFF_S[min(failures, len(_BACK_OFF_S)) - 1]):
                        await stopping.wait()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._bus.stop()
                await self._store.close()
        except TimeoutError:
            log.warning("not left in order", within_s=_LEAVE_S)

    async def step(self, wait_s: float) -> int:
        """One round of the loop. Returns how many inputs it dealt with."""
        self.vitals.turned_at = self._monotonic()
        try:
            return await self._round(wait_s)
        finally:
            self.vitals.turned_at = self._monotonic()
            self.vitals.partitions = self._bus.partitions() if self._bus.joined() else None
            self.vitals.lag = self._bus.lag()

    async def _round(self, wait_s: float) -> int:
        """What was written is carried to its end before anything else is begun: a second decision would be on
        the state that the first has left, and would not send or play what that had to."""
        if self._written is None:
            self._written = await self._begin(wait_s)
        written = self._written
        if written is None:
            return 0
        await self._carry(written)
        self._written = None
        self._bus.commit(written.inbound)
        took_s = self._monotonic() - written.received_at
        self.vitals.batch(written.kinds, written.dead_letters, took_s)
        return len(written.kinds) + written.dead_letters

    async def _begin(self, wait_s: float) -> _Written | None:
        """From `receive` to `write`. None when there is nothing to do."""
        now = self._clock()
        while self._soon and self._soon[0][0] <= self._monotonic():
            self._local.append(heapq.heappop(self._soon)[2])
        if self._soon:
            wait_s = min(wait_s, max(0.0, self._soon[0][0] - self._monotonic()))
        work = [_Work(self._local.popleft()) for _ in range(min(len(self._local), BATCH_MAX))]
        inbound: Sequence[Inbound] = ()
        try:
            work += await self._due(now)
            inbound = await self._bus.receive(BATCH_MAX, 0 if work else wait_s)
            if not work and not inbound:
                return None
            received_at = self._monotonic()
            buried: list[Outbound] = []
            for record in inbound:
                try:
                    work.append(_Work(self._decode(record), inbound=record))
                except Refused as refused:
                    buried.append(bury(record, self._agent.party, refused))
            decisions, broken = await self._decide_and_write(work, now)
        except BaseException:
            self._local.extendleft(
                item.input for item in reversed(work) if item.inbound is None and item.alarm is None
            )
            self._alarms_seen_at = -1
            self._bus.give_back(inbound)
            raise
        self._remember_soon(wake for decision in decisions for wake in decision.wakes)
        sends = (_outbound(send) for decision in decisions for send in decision.sends)
        return _Written(
            inbound=inbound,
            received_at=received_at,
            kinds=[type(item.input).__name__ for item in work],
            dead_letters=len(buried) + len(broken),
            events=[event for decision in decisions for event in decision.audit],
            sends=[*buried, *broken, *sends],
            media=[instruction for decision in decisions for instruction in decision.media],
            alarms=[item.alarm for item in work if item.alarm is not None],
        )

    def _remember_soon(self, wakes: Iterable[Wake]) -> None:
        for wake in wakes:
            if wake.soon_ms is not None and wake.alarm is not None:
                at = self._monotonic() + wake.soon_ms / 1000
                heapq.heappush(self._soon, (at, next(self._soon_order), wake.alarm))

    def _decode(self, record: Inbound) -> Input:
        """Raises Refused(OR-01)."""
        if record.unreadable:  # OR-01
            raise Refused(Check.OR_01, RefusalCode.MALFORMED, record.unreadable)
        message = decode(record.value)
        if type(message) not in self._agent.accepts:  # OR-01
            detail = f"no message for {self._agent.party}: {type(message).__name__}"
            raise Refused(Check.OR_01, RefusalCode.MALFORMED, detail)
        return message

    async def _due(self, now: int) -> list[_Work]:
        """Alarms of the partitions held, looked for once a second."""
        if now == self._alarms_seen_at:
            return []
        looking = self._store.due(self._agent.party, self._bus.partitions(), now, ALARMS_MAX)
        due = await self._timed("due", looking)
        if len(due) < ALARMS_MAX:
            self._alarms_seen_at = now
        return [_Work(decode_alarm(alarm.value), alarm=alarm) for alarm in due]

    async def _timed(self, operation: str, round_trip: Awaitable[T]) -> T:
        """One question to the store, with what it costs."""
        asked_at = self._monotonic()
        try:
            return await round_trip
        finally:
            self.vitals.round_trip(operation, self._monotonic() - asked_at)

    async def _carry(self, written: _Written) -> None:
        """Audit, media, send, dismiss. What is done is taken off, so that after an error the rest follows."""
        if written.events:
            audit = [_outbound(audit_send(event)) for event in written.events]
            if await self._bus.send(audit):  # OR-16
                raise BusRefused("there is no topic for the audit")
            self.vitals.sent += len(audit)
            self.vitals.audited(written.events)
            for event in written.events:
                log.info(event.event, **_told(event))
            written.events = []
        if self._carry_out is not None:  # a line listens, and K is in place, before anybody is told
            for instruction in written.media:
                self._carry_out(instruction)
        written.media = []
        if written.sends:
            undeliverable = await self._bus.send(written.sends)
            for lost in undeliverable:
                log.info("undeliverable", topic=lost.topic)  # a peer has named a UE host that is not there
            self.vitals.sent += len(written.sends) - len(undeliverable)
            written.sends = []
        if written.alarms:
            await self._timed("dismiss", self._store.dismiss(written.alarms))
            written.alarms = []

    async def _decide_and_write(
        self, work: Sequence[_Work], now: int
    ) -> tuple[list[Decision], list[Outbound]]:
        """Each input's decision, written; an input that met a conflict is read and decided again."""
        decisions: dict[int, Decision] = {}
        buried: list[Outbound] = []
        wanted = [self._agent.reads(item.input) for item in work]
        open_items = list(range(len(work)))
        for _ in range(_TRIES):
            snapshot = await self._read(wanted[item] for item in open_items)
            changes: list[Change] = []
            changing: list[int] = []
            for item in open_items:
                keys = wanted[item]
                problem = self._broken_among(keys, snapshot)
                if problem is not None:
                    buried += self._unreadable(work[item], problem)
                    decisions[item] = NOTHING
                    continue
                decision = self._agent.handle(work[item].input, Records(snapshot.records), now, self._random)
                decisions[item] = decision
                if decision.puts or decision.wakes:
                    changes.append(self._change(decision, keys, snapshot))
                    changing.append(item)
            written = await self._timed("write", self._store.write(changes)) if changes else []
            open_items = [item for item, done in zip(changing, written, strict=True) if not done]
            if not open_items:
                return [decisions[item] for item in sorted(decisions)], buried
            self.vitals.conflicts += len(open_items)
            log.info("conflict", inputs=len(open_items))
        raise StoreUnavailable(f"{len(open_items)} inputs met {_TRIES} conflicts in a row")

    def _broken_among(self, keys: Keys, snapshot: _Snapshot) -> RecordBroken | None:
        if not snapshot.broken:
            return None
        return next((snapshot.broken[key.name] for key in keys if key.name in snapshot.broken), None)

    async def _read(self, wanted: Iterable[Keys]) -> _Snapshot:
        keys: dict[str, Key[Any]] = {key.name: key for group in wanted for key in group}
        snapshot = _Snapshot()
        if not keys:
            return snapshot
        found = await self._timed("read", self._store.read(list(keys)))
        for key, stored in zip(keys.values(), found, strict=True):
            snapshot.versions[key.name] = stored.version
            if stored.value is not None:
                try:
                    snapshot.records[key.name] = self._codec.decode(key, stored.value)
                except RecordBroken as broken:
                    snapshot.broken[key.name] = broken
        return snapshot

    def _change(self, decision: Decision, keys: Keys, snapshot: _Snapshot) -> Change:
        """The decision's writes, each expecting the version that was read; a record that was not read is
        expected to be absent. A record that an earlier input of the batch has put and this one only read is
        written again, so that both stand or fall together."""
        puts: dict[str, Put[Any]] = {put.key.name: put for put in decision.puts}
        for key in keys:
            if key.name in snapshot.unwritten and key.name not in puts:
                puts[key.name] = snapshot.unwritten[key.name]
        stored: list[StoredPut] = []
        for name, put in puts.items():
            version = self._version()
            value = None if put.record is None else self._codec.encode(put.key, put.record)
            expected = snapshot.versions.get(name, NO_VERSION)
            stored.append(StoredPut(name, expected, version, value, put.expires))
            if put.record is None:
                snapshot.records.pop(name, None)
                snapshot.versions[name] = NO_VERSION
            else:
                snapshot.records[name] = put.record
                snapshot.versions[name] = version
            snapshot.unwritten[name] = put
        alarms = [
            StoredAlarm(
                self._agent.party,
                shard_of(wake.shard_by),
                wake.about,
                wake.at,
                self._version(),
                b"" if wake.alarm is None else encode_alarm(wake.alarm),
            )
            for wake in decision.wakes
        ]
        return Change(stored, alarms)

    def _version(self) -> bytes:
        return self._instance + next(self._versions).to_bytes(8, "big")

    def _unreadable(self, item: _Work, broken: RecordBroken) -> list[Outbound]:
        """An input whose records do not read: buried, if it came on the bus."""
        log.error("record-broken", problem=str(broken))
        if item.inbound is None:
            return []
        refused = Refused(Check.OR_01, RefusalCode.MALFORMED, f"record broken: {broken}")
        return [bury(item.inbound, self._agent.party, refused)]


async def _limit(patience: asyncio.Timeout, stopping: asyncio.Event) -> None:
    """Once it is told to stop, what goes on under `patience` has _FINISH_S left."""
    await stopping.wait()
    patience.reschedule(asyncio.get_running_loop().time() + _FINISH_S)


def _told(event: Audit) -> dict[str, str]:
    """What the log says of an audit event: identities, names and codes. There is no key in it."""
    call = event.call.hex() if event.call is not None else None
    fields = {
        "call": call,
        "caller": event.caller,
        "callee": event.callee,
        "key_id": event.key_id,
        "check": event.check,
        "code": event.code,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _outbound(send: Send) -> Outbound:
    return Outbound(send.topic.name, send.partition, send.key.encode(), encode(send.message))
