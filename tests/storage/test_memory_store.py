"""The memory store keeps the contract and never waits."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from storage.memory import MemoryStore
from storage.store import NO_VERSION, Change, Store, Stored, StoredAlarm, StoredPut
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


async def test_a_closed_store_still_has_its_records() -> None:
    store = MemoryStore()
    await store.write(changes(StoredPut("t:{0}:x:", NO_VERSION, v(1), b"1")))
    await store.close()
    assert await store.read(["t:{0}:x:"]) == [Stored(v(1), b"1")]
