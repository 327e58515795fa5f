"""The memory store keeps the contract, never waits, and sweeps by the time that it is told."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from storage.memory import MemoryStore
from storage.store import NO_VERSION, SWEEP_MARGIN_S, Change, Store, Stored, StoredAlarm, StoredPut
from tests.storage.store_contract import StoreContract, changes, v

ABSENT = Stored(NO_VERSION, None)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns at its first step; fails when it waits for anything."""
    with pytest.raises(StopIteration) as end:
        coroutine.send(None)
    return end.value.value


def test_no_method_waits() -> None:
    store = MemoryStore()
    put, alarm = StoredPut("t:{0}:x:", NO_VERSION, v(1), b"1"), StoredAlarm("t", 0, "a", 5, v(1))
    assert at_once(store.write([Change((put,), (alarm,))])) == [True]
    assert at_once(store.read([put.name])) == [Stored(v(1), b"1")]
    due = at_once(store.due("t", [0], 5, 1))
    assert [alarm.name for alarm in due] == ["a"]
    assert at_once(store.dismiss(due)) is None
    assert at_once(store.close()) is None


async def test_sweeping_forgets_what_expired_long_ago() -> None:
    store = MemoryStore()
    names = ["t:{0}:x:early", "t:{0}:x:late", "t:{0}:x:always"]
    await store.write(
        changes(
            StoredPut(names[0], NO_VERSION, v(1), b"1", 1000),
            StoredPut(names[1], NO_VERSION, v(2), b"2", 1001),
            StoredPut(names[2], NO_VERSION, v(3), b"3"),
        )
    )
    kept = [Stored(v(1), b"1"), Stored(v(2), b"2"), Stored(v(3), b"3")]
    store.sweep(1000 + SWEEP_MARGIN_S - 1)
    assert await store.read(names) == kept
    store.sweep(1000 + SWEEP_MARGIN_S)
    assert await store.read(names) == [ABSENT, *kept[1:]]
    store.sweep(10**9)
    assert await store.read(names) == [ABSENT, ABSENT, kept[2]]
    assert await store.write(changes(StoredPut(names[0], NO_VERSION, v(4), b"4"))) == [True]


async def test_sweeping_goes_by_the_last_write() -> None:
    store = MemoryStore()
    names = ["t:{0}:x:a", "t:{0}:x:b", "t:{0}:x:c"]
    await store.write(changes(*(StoredPut(name, NO_VERSION, v(1), b"1", 1000) for name in names)))
    await store.write(
        changes(
            StoredPut(names[0], v(1), v(2), b"2"),
            StoredPut(names[1], v(1), v(2), b"2", 5000),
            StoredPut(names[2], v(1), v(2), None),
        )
    )
    store.sweep(4000)
    assert await store.read(names) == [Stored(v(2), b"2"), Stored(v(2), b"2"), ABSENT]
    store.sweep(10**9)
    assert await store.read(names) == [Stored(v(2), b"2"), ABSENT, ABSENT]


async def test_a_closed_store_still_has_its_records() -> None:
    store = MemoryStore()
    await store.write(changes(StoredPut("t:{0}:x:", NO_VERSION, v(1), b"1")))
    await store.close()
    assert await store.read(["t:{0}:x:"]) == [Stored(v(1), b"1")]
