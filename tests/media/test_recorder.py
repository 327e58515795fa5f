"""The recorder of a mailbox with real sockets on loopback: all that comes, as it came, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from media.leg import CloseRecording, MediaAddress, MediaEvent, OpenRecording, Recorded, RecordingClosed
from media.recorder import BATCH_PACKETS, Recorder, RecorderSettings
from protocol.limits import PACKET_OCTETS_MAX, STORED_OCTETS_MAX, STORED_PACKETS_MAX
from tests.servers import ROOT


class Machine:
    """A recorder with what it told, and a socket of a caller."""

    def __init__(self, **settings: Any) -> None:
        self.events: list[MediaEvent] = []
        self.lines: tuple[MediaAddress, ...] = ()
        self.recorder = Recorder(RecorderSettings(**{"lines": 2, **settings}), on_event=self._told)
        self._news = asyncio.Event()
        self._caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _told(self, event: MediaEvent) -> None:
        self.events.append(event)
        self._news.set()

    def open(self, session: str, line: int = 0) -> None:
        self.recorder.carry_out(OpenRecording(session, line))

    def close(self, session: str) -> None:
        self.recorder.carry_out(CloseRecording(session))

    def say(self, packets: Sequence[bytes], line: int = 0) -> None:
        for each in packets:
            self._caller.sendto(each, (self.lines[line].host, self.lines[line].port))

    def parts(self, session: str) -> list[Recorded]:
        return [event for event in self.events if isinstance(event, Recorded) and event.session == session]

    def packets(self, session: str) -> list[bytes]:
        return [packet for part in self.parts(session) for packet in part.packets]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def until_closed(self, session: str) -> None:
        await self.until(lambda: RecordingClosed(session) in self.events)

    async def stop(self) -> None:
        self._caller.close()
        await self.recorder.stop()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Machine]:
    machine = Machine(**settings)
    machine.lines = await machine.recorder.start()
    try:
        yield machine
    finally:
        await machine.stop()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    async with running() as found:
        yield found


def packet(number: int, octets: int = 188) -> bytes:
    return (b"\x80\x00" + number.to_bytes(4, "big")).ljust(octets, b"\xaa")


async def test_all_packets_in_their_order(machine: Machine) -> None:
    machine.open("one")
    said = [packet(number) for number in range(4 * BATCH_PACKETS + 7)]
    for start in range(0, len(said), BATCH_PACKETS):
        machine.say(said[start : start + BATCH_PACKETS])
        whole_parts = min(start // BATCH_PACKETS + 1, 4)
        await machine.until(lambda parts=whole_parts: len(machine.parts("one")) >= parts)  # type: ignore[misc]
    machine.close("one")
    await machine.until_closed("one")
    assert machine.packets("one") == said
    assert [part.part for part in machine.parts("one")] == list(range(5))
    assert machine.events[-1] == RecordingClosed("one"), "the last that is told"


async def test_a_part_fits_into_a_message(machine: Machine) -> None:
    machine.open("one")
    said = [packet(number, PACKET_OCTETS_MAX - 3 * number) for number in range(20)]
    machine.say(said)
    await machine.until(lambda: len(machine.packets("one")) == 20)
    for part in machine.parts("one"):
        assert sum(map(len, part.packets)) <= STORED_OCTETS_MAX
        assert len(part.packets) <= STORED_PACKETS_MAX
    assert machine.packets("one") == said


async def test_a_few_packets_are_told_within_a_second_or_so(machine: Machine) -> None:
    machine.open("one")
    clock = asyncio.get_running_loop().time
    said_at = clock()
    machine.say([packet(1), packet(2)])
    await machine.until(lambda: bool(machine.events))
    assert 0.9 < clock() - said_at < 3
    assert machine.events == [Recorded("one", 0, (packet(1), packet(2)))]


async def test_what_does_not_look_like_rtp_is_dropped(machine: Machine) -> None:
    machine.open("one")
    rtcp = b"\x80\xc8" + bytes(40)
    junk = [
        b"",
        b"\x80",
        packet(1)[:11],
        b"\x00" + packet(2)[1:],
        b"\x40" + packet(3)[1:],
        b"\xc0" + packet(4)[1:],
        packet(5, PACKET_OCTETS_MAX + 1),
    ]
    machine.say([*junk, packet(6, 12), rtcp, packet(7, PACKET_OCTETS_MAX)])
    machine.close("one")
    await machine.until_closed("one")
    assert machine.packets("one") == [packet(6, 12), rtcp, packet(7, PACKET_OCTETS_MAX)]


async def test_what_is_still_on_its_way_is_taken() -> None:
    async with running(linger_s=0.6) as machine:
        machine.open("one")
        machine.say([packet(1)])
        machine.close("one")
        machine.close("one")
        assert machine.events == []
        asyncio.get_running_loop().call_later(0.3, machine.say, [packet(2)])
        await machine.until_closed("one")
        assert machine.packets("one") == [packet(1), packet(2)]
        assert machine.events.count(RecordingClosed("one")) == 1


async def test_nothing_is_kept_after_the_end(machine: Machine) -> None:
    machine.open("one")
    machine.close("one")
    await machine.until_closed("one")
    machine.open("two", line=1)
    machine.say([packet(1)] * BATCH_PACKETS)
    machine.say([packet(2)] * BATCH_PACKETS, line=1)
    await machine.until(lambda: bool(machine.parts("two")))  # and so what came to the other line was read
    assert machine.parts("one") == []


async def test_a_repeated_close_does_not_put_it_off() -> None:
    async with running(linger_s=0.5) as machine:
        machine.open("one")
        clock = asyncio.get_running_loop().time
        closed_at = clock()
        machine.close("one")
        again = asyncio.get_running_loop().call_later(0.4, machine.close, "one")
        await machine.until_closed("one")
        assert clock() - closed_at < 0.85
        again.cancel()


async def test_a_session_that_is_not_open_is_closed_at_once(machine: Machine) -> None:
    machine.close("nobody's")
    assert machine.events == [RecordingClosed("nobody's")]


async def test_a_line_without_a_session_keeps_nothing(machine: Machine) -> None:
    machine.open("one")
    machine.say([packet(1)], line=1)
    machine.say([packet(2)] * BATCH_PACKETS)
    await machine.until(lambda: bool(machine.parts("one")))  # and so what came to the other line was read
    machine.open("two", line=1)
    machine.say([packet(3)], line=1)
    machine.close("two")
    await machine.until_closed("two")
    assert machine.packets("two") == [packet(3)]


async def test_a_session_that_is_open_is_left_alone(machine: Machine) -> None:
    machine.open("one")
    machine.say([packet(number) for number in range(BATCH_PACKETS)])
    await machine.until(lambda: len(machine.parts("one")) == 1)
    machine.open("one")
    machine.say([packet(99)])
    machine.close("one")
    await machine.until_closed("one")
    assert [part.part for part in machine.parts("one")] == [0, 1]


async def test_two_lines_do_not_mix(machine: Machine) -> None:
    machine.open("one", 0)
    machine.open("two", 1)
    for number in range(40):
        machine.say([packet(number)], line=number % 2)
    for session in ("one", "two"):
        machine.close(session)
    for session, odd in (("one", 0), ("two", 1)):
        await machine.until_closed(session)
        assert machine.packets(session) == [packet(number) for number in range(odd, 40, 2)]


async def test_a_line_that_is_given_to_another_session_ends_the_first(machine: Machine) -> None:
    machine.open("one")
    machine.open("two")
    assert machine.events == [RecordingClosed("one")]
    machine.say([packet(1)])
    machine.close("two")
    await machine.until_closed("two")
    assert machine.packets("two") == [packet(1)]


async def test_silence_ends_a_session_and_loses_nothing() -> None:
    async with running(silence_s=0.3, nothing_s=20) as machine:
        machine.open("one")
        machine.say([packet(1)])
        await machine.until_closed("one")
        assert machine.packets("one") == [packet(1)]


async def test_a_caller_who_never_comes_ends_a_session() -> None:
    async with running(silence_s=20, nothing_s=0.3) as machine:
        machine.open("one")
        await machine.until_closed("one")
        assert machine.parts("one") == []


async def test_one_session_does_not_fill_the_memory() -> None:
    async with running(octets_max=1000) as machine:
        machine.open("one")
        machine.say([packet(1, 600), packet(2, 600), packet(3, 400)])
        machine.close("one")
        await machine.until_closed("one")
        assert machine.packets("one") == [packet(1, 600), packet(3, 400)]


async def test_who_stops_tells_all_that_it_has(machine: Machine) -> None:
    machine.open("one")
    machine.open("two", 1)
    machine.say([packet(number) for number in range(BATCH_PACKETS)])
    await machine.until(lambda: len(machine.parts("one")) == 1)
    machine.recorder.close_all()
    assert machine.events[1:] == [RecordingClosed("one"), RecordingClosed("two")]
    machine.open("three")
    assert machine.events[3:] == [RecordingClosed("three")], "it begins nothing more"


async def test_a_port_that_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            await Recorder(
                RecorderSettings(lines=2, port=taken.getsockname()[1]), on_event=lambda _: None
            ).start()


def test_callers_are_told_the_advertised_name() -> None:
    async def told() -> tuple[MediaAddress, ...]:
        async with running(host="127.0.0.1", advertised_host="voicemail-1") as machine:
            return machine.lines

    lines = asyncio.run(told())
    assert {line.host for line in lines} == {"voicemail-1"}
    assert len({line.port for line in lines}) == 2


def test_a_mailbox_runs_where_no_media_libraries_are() -> None:
    script = (
        "import sys, console.hosting.voicemail; "
        "print(sorted({'av', 'numpy', 'pylibsrtp'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
