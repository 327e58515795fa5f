"""The playout buffer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from media.playout import Playout


def sound(number: int) -> str:
    return str(number)


def heard(playout: Playout[str], pulls: int) -> list[int]:
    """0: nothing."""
    return [int(playout.pull() or 0) for _ in range(pulls)]


def test_the_first_packet_waits_for_the_delay() -> None:
    playout = Playout[str](delay=3)
    assert playout.pull() is None
    for number in (1, 2, 3):
        playout.push(number, sound(number))
    assert heard(playout, 7) == [0, 0, 0, 1, 2, 3, 0]


def test_reordered_packets_are_played_in_order() -> None:
    playout = Playout[str](delay=3)
    for number in (11, 10, 13, 12):  # even the first was overtaken
        playout.push(number, sound(number))
    assert heard(playout, 7) == [0, 0, 0, 10, 11, 12, 13]


def test_a_lost_packet_is_silence_in_its_place() -> None:
    playout = Playout[str](delay=1)
    for number in (1, 2, 4):
        playout.push(number, sound(number))
    assert heard(playout, 5) == [0, 1, 2, 0, 4]


def test_a_late_packet_is_counted_and_dropped() -> None:
    playout = Playout[str](delay=1)
    playout.push(1, sound(1))
    assert heard(playout, 4) == [0, 1, 0, 0]
    playout.push(2, sound(2))
    playout.push(4, sound(4))
    assert heard(playout, 2) == [4, 0]
    assert playout.late == 1


def test_a_duplicate_is_dropped() -> None:
    playout = Playout[str](delay=1)
    playout.push(1, sound(1))
    playout.push(1, sound(9))
    assert heard(playout, 3) == [0, 1, 0]


def test_a_sender_that_paused_is_heard_again() -> None:
    playout = Playout[str](delay=2)
    playout.push(0, sound(1))
    heard(playout, 100)  # its sequence numbers did not go on meanwhile
    played = []
    for number in range(1, 30):
        playout.push(number, sound(number))
        played += heard(playout, 1)
    assert played[-10:] == list(range(18, 28))
    assert playout.late == 10


def test_a_sender_that_is_faster_does_not_fill_the_memory() -> None:
    playout = Playout[str](delay=2)
    for number in range(10_000):
        playout.push(number, sound(number))
        assert len(playout._held) <= 51
    assert heard(playout, 4) == [0, 0, 9_997, 9_998] or heard(playout, 1)


@given(st.lists(st.one_of(st.none(), st.integers(0, 65_535)), max_size=200))
def test_nothing_is_played_twice_or_out_of_order(events: list[int | None]) -> None:
    """None is a pull, a number a push; but for a restart after ten that are late in a row."""
    playout = Playout[str](delay=3)
    played: list[int] = []
    for event in events:
        if event is not None:
            playout.push(event, sound(event % 30_000 + 1))
        else:
            played += [int(packet)] if (packet := playout.pull()) else []
    assert len(playout._held) <= 51
    assert playout.empty == (not playout._held)
    if playout.late < 10 and max((e or 0 for e in events), default=0) < 30_000:
        assert played == sorted(set(played))
