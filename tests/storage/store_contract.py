"""What every store keeps to: the rules of storage/store.py, one test for each, run on each store."""

from __future__ import annotations

import time

import pytest

from storage.store import NO_VERSION, Change, DueAlarm, Store, Stored, StoredAlarm, StoredPut

ALL_OCTETS = bytes(range(256))
LIKE_THE_WIRE = b"\r\n$-1\r\n*0\r\n\x00"


def v(number: int) -> bytes:
    """A version that no other number has."""
    return number.to_bytes(16, "big")


def changes(*puts: StoredPut) -> list[Change]:
    """Each put as a change of its own."""
    return [Change((put,)) for put in puts]


class StoreContract:
    """Inherit it, and give a fixture `store`."""

    # Records

    async def test_an_absent_record_has_no_version(self, store: Store, name: str) -> None:
        assert await store.read([name]) == [Stored(NO_VERSION, None)]

    async def test_what_was_written_is_read(self, store: Store, name: str) -> None:
        assert await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"one"))) == [True]
        assert await store.read([name]) == [Stored(v(1), b"one")]
        assert await store.write(changes(StoredPut(name, v(1), v(2), b"two"))) == [True]
        assert await store.read([name]) == [Stored(v(2), b"two")]

    async def test_records_are_read_in_the_order_of_the_names(
        self, store: Store, name: str, other: str
    ) -> None:
        await store.write(
            changes(StoredPut(name, NO_VERSION, v(1), b"1"), StoredPut(other, NO_VERSION, v(2), b"2"))
        )
        one, two, none = Stored(v(1), b"1"), Stored(v(2), b"2"), Stored(NO_VERSION, None)
        assert await store.read([other, name + "-", name, other]) == [two, none, one, two]

    async def test_nothing_asked_nothing_done(self, store: Store, role: str) -> None:
        assert await store.read([]) == []
        assert await store.write([]) == []
        assert await store.write([Change(), Change()]) == [True, True]
        assert await store.due(role, [], 10, 10) == []
        await store.dismiss([])

    @pytest.mark.parametrize(
        "value", [b"", ALL_OCTETS, LIKE_THE_WIRE, b"\xff\xfe", ALL_OCTETS * 4000], ids=len
    )
    async def test_a_value_is_any_octets(self, store: Store, name: str, value: bytes) -> None:
        assert await store.write(changes(StoredPut(name, NO_VERSION, ALL_OCTETS[-16:], value))) == [True]
        assert await store.read([name]) == [Stored(ALL_OCTETS[-16:], value)]
        assert await store.write(changes(StoredPut(name, ALL_OCTETS[-16:], v(2), b"next"))) == [True]

    async def test_a_name_is_any_text(self, store: Store, role: str) -> None:
        names = [f"{role}:{{0}}:x:{about}" for about in ("a b", "é€😀", "*", "[a]", "\r\n", '"', "{1}")]
        puts = [StoredPut(name, NO_VERSION, v(i), b"%d" % i) for i, name in enumerate(names, 1)]
        assert await store.write(changes(*puts)) == [True] * len(names)
        assert await store.read(names) == [Stored(v(i), b"%d" % i) for i in range(1, len(names) + 1)]

    # Compare and set

    async def test_only_one_creates(self, store: Store, name: str) -> None:
        assert await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"first"))) == [True]
        assert await store.write(changes(StoredPut(name, NO_VERSION, v(2), b"second"))) == [False]
        assert await store.read([name]) == [Stored(v(1), b"first")]

    async def test_a_version_that_moved_on_conflicts(self, store: Store, name: str) -> None:
        await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1")))
        await store.write(changes(StoredPut(name, v(1), v(2), b"2")))
        assert await store.write(changes(StoredPut(name, v(1), v(3), b"3"))) == [False]
        assert await store.write(changes(StoredPut(name, v(1), v(3), None))) == [False]
        assert await store.read([name]) == [Stored(v(2), b"2")]

    async def test_an_absent_record_has_not_the_version_expected(self, store: Store, name: str) -> None:
        assert await store.write(changes(StoredPut(name, v(1), v(2), b"2"))) == [False]
        assert await store.write(changes(StoredPut(name, v(1), v(2), None))) == [False]
        assert await store.read([name]) == [Stored(NO_VERSION, None)]

    @pytest.mark.parametrize("stale_first", [True, False])
    async def test_a_change_is_applied_whole_or_not_at_all(
        self, store: Store, role: str, name: str, other: str, *, stale_first: bool
    ) -> None:
        await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1")))
        alarm = StoredAlarm(role, 3, "a", 5, v(9), b"")
        stale, good = StoredPut(name, v(7), v(2), b"2"), StoredPut(other, NO_VERSION, v(3), b"3")
        puts = (stale, good) if stale_first else (good, stale)
        assert await store.write([Change(puts, (alarm,))]) == [False]
        assert await store.read([name, other]) == [Stored(v(1), b"1"), Stored(NO_VERSION, None)]
        assert await store.due(role, [3], 10, 10) == []

        puts = (StoredPut(name, v(1), v(2), b"2"), good)
        assert await store.write([Change(puts, (alarm,))]) == [True]
        assert await store.read([name, other]) == [Stored(v(2), b"2"), Stored(v(3), b"3")]
        assert [alarm.name for alarm in await store.due(role, [3], 10, 10)] == ["a"]

    async def test_versions_are_compared_before_a_change_writes(self, store: Store, name: str) -> None:
        first, second = StoredPut(name, NO_VERSION, v(1), b"1"), StoredPut(name, v(1), v(2), b"2")
        assert await store.write([Change((first, second))]) == [False]
        assert await store.read([name]) == [Stored(NO_VERSION, None)]

    async def test_a_later_change_builds_on_an_earlier_one(self, store: Store, name: str) -> None:
        written = await store.write(
            changes(
                StoredPut(name, NO_VERSION, v(1), b"1"),
                StoredPut(name, v(1), v(2), b"2"),
                StoredPut(name, v(2), v(3), None),
                StoredPut(name, NO_VERSION, v(4), b"4"),
            )
        )
        assert written == [True] * 4
        assert await store.read([name]) == [Stored(v(4), b"4")]

    async def test_the_earlier_of_two_changes_wins(self, store: Store, name: str) -> None:
        puts = (StoredPut(name, NO_VERSION, v(1), b"1"), StoredPut(name, NO_VERSION, v(2), b"2"))
        assert await store.write(changes(*puts)) == [True, False]
        assert await store.read([name]) == [Stored(v(1), b"1")]

    async def test_a_conflict_stops_what_builds_on_it_and_nothing_else(
        self, store: Store, role: str, name: str, other: str
    ) -> None:
        alarm = StoredAlarm(role, 3, "a", 5, v(9), b"")
        written = await store.write(
            [
                Change((StoredPut(name, NO_VERSION, v(1), b"1"),)),
                Change((StoredPut(other, v(8), v(2), b"2"), StoredPut(name, v(1), v(3), b"3")), (alarm,)),
                Change((StoredPut(other, v(2), v(4), b"4"),), (alarm,)),
                Change((StoredPut(name, v(1), v(5), b"5"),), (StoredAlarm(role, 3, "b", 6, v(6), b"b"),)),
            ]
        )
        assert written == [True, False, False, True]
        assert await store.read([name, other]) == [Stored(v(5), b"5"), Stored(NO_VERSION, None)]
        assert await store.due(role, [3], 10, 10) == [DueAlarm(role, 3, "b", 6, b"b", v(6))]

    async def test_a_deleted_record_is_absent(self, store: Store, name: str) -> None:
        await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"1")))
        assert await store.write(changes(StoredPut(name, v(1), v(2), None))) == [True]
        assert await store.read([name]) == [Stored(NO_VERSION, None)]
        assert await store.write(changes(StoredPut(name, NO_VERSION, v(3), None))) == [True]
        assert await store.read([name]) == [Stored(NO_VERSION, None)]

    async def test_a_record_that_came_back_is_another_one(self, store: Store, name: str) -> None:
        await store.write(changes(StoredPut(name, NO_VERSION, v(1), b"same")))
        await store.write(
            changes(StoredPut(name, v(1), v(2), None), StoredPut(name, NO_VERSION, v(3), b"same"))
        )
        assert await store.write(changes(StoredPut(name, v(1), v(4), b"late"))) == [False]
        assert await store.read([name]) == [Stored(v(3), b"same")]

    async def test_600_changes_in_one_write(self, store: Store, role: str) -> None:
        names = [f"{role}:{{{i % 12}}}:thing:{i}" for i in range(600)]
        await store.write(changes(StoredPut(names[299], NO_VERSION, v(999), b"there already")))
        written = await store.write(
            [
                Change(
                    (StoredPut(name, NO_VERSION, v(i + 1), b"%d" % i),),
                    (StoredAlarm(role, i % 12, f"alarm {i}", i, v(i + 1), b"%d" % i),),
                )
                for i, name in enumerate(names)
            ]
        )
        assert written == [i != 299 for i in range(600)]
        assert [found.version for found in await store.read(names)] == [
            v(999 if i == 299 else i + 1) for i in range(600)
        ]
        alarms = await store.due(role, range(12), 600, 1000)
        assert [alarm.value for alarm in alarms] == [b"%d" % i for i in range(600) if i != 299]
        await store.dismiss(alarms[:-1])
        assert await store.due(role, range(12), 600, 1000) == alarms[-1:]

    async def test_a_change_of_9000_puts(self, store: Store, role: str) -> None:
        names = [f"{role}:{{1}}:thing:{i}" for i in range(9000)]  # Lua unpacks 8,000 at most
        change = Change([StoredPut(name, NO_VERSION, v(i + 1), b"") for i, name in enumerate(names)])
        assert await store.write([change, change]) == [True, False]
        assert await store.read(names) == [Stored(v(i + 1), b"") for i in range(9000)]

    # Expiry

    async def test_a_record_is_read_until_long_after_it_expired(self, store: Store, name: str) -> None:
        now = int(time.time())
        for version, expires in enumerate((now + 60, now, now - 60, None), 1):
            put = StoredPut(name, v(version - 1) if version > 1 else NO_VERSION, v(version), b"x", expires)
            assert await store.write(changes(put)) == [True]
            assert await store.read([name]) == [Stored(v(version), b"x")]

    # Alarms

    async def test_an_alarm_is_due_from_its_time_until_it_is_dismissed(self, store: Store, role: str) -> None:
        assert await store.write([Change((), (StoredAlarm(role, 3, "a", 100, v(1), b"wake"),))]) == [True]
        expected = [DueAlarm(role, 3, "a", 100, b"wake", v(1))]
        assert await store.due(role, [3], 99, 10) == []
        assert await store.due(role, [3], 100, 10) == expected
        assert await store.due(role, [3], 10**10, 10) == expected
        await store.dismiss(expected)
        assert await store.due(role, [3], 10**10, 10) == []
        await store.dismiss(expected)

    @pytest.mark.parametrize("at", [50, 150])
    async def test_an_alarm_set_anew_replaces_the_old_one(self, store: Store, role: str, at: int) -> None:
        await store.write([Change((), (StoredAlarm(role, 3, "a", 100, v(1), b"old"),))])
        await store.write([Change((), (StoredAlarm(role, 3, "a", at, v(2), b"new"),))])
        assert await store.due(role, [3], at - 1, 10) == []
        assert await store.due(role, [3], at, 10) == [DueAlarm(role, 3, "a", at, b"new", v(2))]
        assert len(await store.due(role, [3], 200, 10)) == 1

    async def test_a_removed_alarm_is_gone(self, store: Store, role: str) -> None:
        await store.write(
            [Change((), (StoredAlarm(role, 3, "a", 1, v(1)), StoredAlarm(role, 3, "b", 2, v(2))))]
        )
        await store.write([Change((), (StoredAlarm(role, 3, "a", None), StoredAlarm(role, 3, "c", None)))])
        assert [alarm.name for alarm in await store.due(role, [3], 10, 10)] == ["b"]
        await store.write([Change((), (StoredAlarm(role, 3, "a", 3, v(3), b"again"),))])
        assert [alarm.value for alarm in await store.due(role, [3], 10, 10)] == [b"", b"again"]

    async def test_the_last_setting_in_a_change_counts(self, store: Store, role: str) -> None:
        alarms = (
            StoredAlarm(role, 3, "a", 1, v(1), b"1"),
            StoredAlarm(role, 3, "a", None),
            StoredAlarm(role, 3, "a", 2, v(2), b"2"),
        )
        await store.write([Change((), alarms)])
        assert await store.due(role, [3], 10, 10) == [DueAlarm(role, 3, "a", 2, b"2", v(2))]

    async def test_a_conflict_leaves_alarms_as_they_are(self, store: Store, role: str, name: str) -> None:
        await store.write([Change((), (StoredAlarm(role, 3, "a", 5, v(1), b"1"),))])
        stale = StoredPut(name, v(7), v(8), b"")
        for alarm in (StoredAlarm(role, 3, "a", 6, v(2), b"2"), StoredAlarm(role, 3, "a", None)):
            assert await store.write([Change((stale,), (alarm,))]) == [False]
            assert await store.due(role, [3], 10, 10) == [DueAlarm(role, 3, "a", 5, b"1", v(1))]

    @pytest.mark.parametrize("at", [5, 7])
    async def test_dismissing_leaves_an_alarm_that_was_set_anew(
        self, store: Store, role: str, at: int
    ) -> None:
        await store.write(
            [Change((), (StoredAlarm(role, 3, "a", 5, v(1), b"1"), StoredAlarm(role, 3, "b", 5, v(2))))]
        )
        seen = await store.due(role, [3], 10, 10)
        await store.write([Change((), (StoredAlarm(role, 3, "a", at, v(3), b"1"),))])
        await store.dismiss(seen)
        assert await store.due(role, [3], 10, 10) == [DueAlarm(role, 3, "a", at, b"1", v(3))]

    async def test_the_earliest_alarms_come_first(self, store: Store, role: str) -> None:
        times = {"e": (9, 1), "d": (10, 1), "c": (10, 0), "b": (10, 1), "a": (100, 2), "z": (8, 2)}
        alarms = [StoredAlarm(role, shard, name, at, v(1)) for name, (at, shard) in times.items()]
        await store.write([Change((), alarms)])

        async def due(now: int, limit: int, shards: tuple[int, ...] = (2, 0, 1)) -> str:
            return "".join(alarm.name for alarm in await store.due(role, shards, now, limit))

        assert await due(1000, 100) == "zecbda"  # equal times by shard, then by name
        assert await due(99, 100) == "zecbd"
        assert await due(1000, 3) == "zec"
        assert await due(1000, 1) == "z"
        assert await due(1000, 0) == ""
        assert await due(1000, 2, (1,)) == "eb"
        assert await due(1000, 100, (1, 1, 5)) == "ebd"

    async def test_roles_and_shards_have_alarms_of_their_own(self, store: Store, role: str) -> None:
        alarms = [
            StoredAlarm(role, 1, "a", 5, v(1), b"1"),
            StoredAlarm(role, 11, "a", 5, v(2), b"2"),
            StoredAlarm(role + "x", 1, "a", 5, v(1), b"3"),
        ]
        await store.write([Change((), alarms)])
        due = [DueAlarm(a.role, a.shard, a.name, 5, a.value, a.version) for a in alarms]
        assert await store.due(role, [1], 10, 10) == [due[0]]
        assert await store.due(role, [1, 11], 10, 10) == due[:2]
        assert await store.due(role + "x", range(12), 10, 10) == [due[2]]
        await store.dismiss([due[0]])
        assert await store.due(role, range(12), 10, 10) == [due[1]]
        await store.write([Change((), (StoredAlarm(role, 11, "a", None),))])
        assert await store.due(role, range(12), 10, 10) == []
        assert await store.due(role + "x", range(12), 10, 10) == [due[2]]

    async def test_an_alarm_holds_any_octets_and_has_any_name(self, store: Store, role: str) -> None:
        values = {"a b": ALL_OCTETS, "é€😀": LIKE_THE_WIRE, "": b"", "\r\n": b"\xff"}
        alarms = [
            StoredAlarm(role, 0, name, i, ALL_OCTETS[-16:], value)
            for i, (name, value) in enumerate(values.items())
        ]
        await store.write([Change((), alarms)])
        found = await store.due(role, [0], 2**40, 10)
        assert found == [DueAlarm(role, 0, a.name, a.at or 0, a.value, a.version) for a in alarms]
        await store.dismiss(found)
        assert await store.due(role, [0], 2**40, 10) == []

    async def test_times_are_exact(self, store: Store, role: str) -> None:
        at = 2**40 - 1  # the latest that a message can carry
        await store.write([Change((), (StoredAlarm(role, 0, "a", at, v(1)),))])
        assert await store.due(role, [0], at - 1, 10) == []
        assert [alarm.at for alarm in await store.due(role, [0], at, 10)] == [at]
