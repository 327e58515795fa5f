"""What an operator sees of a process: HTTP against real loops, and a watchdog that ends real processes."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agents.cscf import Cscf
from agents.decision import Agent, Decision, Input, Records
from agents.runtime import Loop
from chaos.lab import draw_codec
from console.hosting.operations import answering, telling
from console.hosting.readiness import Watched
from console.hosting.roles import together
from console.hosting.watchdog import EXIT_CODE, Patience, Watchdog
from console.settings import SettingsBroken
from protocol.sealing import Random
from storage.memory import MemoryStore
from storage.store import DueAlarm, StoreUnavailable
from tests.agents.scene import NOW, Town
from tests.console.stuck import REGISTER
from tests.servers import ROOT
from topics.bus import BusUnavailable, Lag, Outbound
from topics.catalogue import CSCF, STATUS, catalogue
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Status


class Blocking(Cscf):
    """A CSCF whose handler does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        self.let_go.wait()
        return super().handle(message, records, now, random)


class Away(MemoryStore):
    """A store that can be away."""

    away = False

    async def due(self, role: str, shards: Any, now: int, limit: int) -> list[DueAlarm]:
        if self.away:
            raise StoreUnavailable("redis://store: no answer within 2.0 s")
        return await super().due(role, shards, now, limit)


@dataclass
class Process:
    """An agent in a thread of this process, and the HTTP side beside it."""

    agent: Agent = field(default_factory=Cscf)
    store: Away = field(default_factory=Away)
    watched: Watched = field(default_factory=lambda: Watched("cscf", live_s=1.0))
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(catalogue(["a"])))
    port: int = 0
    now: int = NOW
    _loop: asyncio.AbstractEventLoop = field(init=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = threading.Event()
        told: list[Callable[[], object]] = []

        async def main() -> None:
            stopping = asyncio.Event()
            bus = MemoryBus(self.broker, "cscf", CSCF.name)
            loop = Loop(
                self.agent,
                bus,
                self.store,
                draw_codec(bytes),
                clock=self._clock,
                random=Town().random,
                vitals=self.watched.vitals,
            )
            self._loop = asyncio.get_running_loop()
            told.append(stopping.set)
            begun.set()
            await loop.run(stopping)

        thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
        thread.start()
        assert begun.wait(10)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(told[0])
            thread.join(10)
            assert not thread.is_alive()

    def take(self, value: bytes) -> None:
        """One record for its inbox."""
        record = Outbound(CSCF.name, 0, b"k", value)
        self._loop.call_soon_threadsafe(self.broker.append, record)

    def get(self, page: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def until(self, page: str, status: int) -> Any:
        """What the page says, once it answers with this status."""
        deadline = time.monotonic() + 10
        while True:
            found, said = self.get(page)
            if found == status:
                return json.loads(said)
            assert time.monotonic() < deadline, said
            time.sleep(0.02)

    def _clock(self) -> int:
        self.now += 1  # alarms are looked for at each turn
        return self.now


@pytest.fixture
def process() -> Iterator[Process]:
    found = Process()
    with answering("127.0.0.1:0", [found.watched]) as found.port:
        yield found


def test_before_the_loop_runs_it_lives_and_is_not_ready(process: Process) -> None:
    assert process.get("/livez")[0] == 200
    status, said = process.get("/readyz")
    assert status == 503
    assert json.loads(said) == {
        "ok": False,
        "missing": {"cscf": ["assigned: no share of the partitions yet"]},
    }
    with process.running():
        assert process.until("/readyz", 200) == {"ok": True, "missing": {}}
        assert process.get("/readyz?verbose")[0] == 200
        assert process.get("/secrets")[0] == 404


def test_what_it_waits_for_keeps_it_from_being_ready_and_alive_it_is(process: Process) -> None:
    with process.running():
        process.until("/readyz", 200)
        process.store.away = True
        said = process.until("/readyz", 503)
        assert said["missing"] == {"cscf": ["store: redis://store: no answer within 2.0 s"]}
        assert process.get("/livez")[0] == 200
        assert samples(process)["otway_waiting", "cscf"] == 1
        process.store.away = False
        process.until("/readyz", 200)
        assert samples(process)["otway_waiting", "cscf"] == 0


def test_a_loop_that_is_stuck_does_not_live_and_says_so_all_the_same() -> None:
    process = Process(agent=Blocking())
    with answering("127.0.0.1:0", [process.watched]) as process.port, process.running():
        assert isinstance(process.agent, Blocking)
        process.until("/readyz", 200)
        process.take(encode(REGISTER))
        said = process.until("/livez", 503)
        assert re.fullmatch(r"loop: has not turned for \d+ s", said["missing"]["cscf"][0])
        assert process.get("/readyz")[0] == 503
        assert process.get("/metrics")[0] == 200
        process.agent.let_go.set()
        process.until("/livez", 200)


def samples(process: Process) -> dict[tuple[str, ...], float]:
    """Each value by its name and its labels in their order."""
    _, text = process.get("/metrics")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_the_loop_has_done(process: Process) -> None:
    with process.running():
        process.take(encode(REGISTER))
        process.take(encode(REGISTER))
        process.take(b"\xc1")
        while process.watched.vitals.dealt_with < 3:
            process.until("/livez", 200)
        found = samples(process)
    expected = {
        ("otway_requests_total", "cscf", "Register"): 2,
        ("otway_dead_letters_total", "cscf"): 1,
        ("otway_records_sent_total", "cscf"): 3,
        ("otway_conflicts_total", "cscf"): 0,
        ("otway_latency_seconds_count", "cscf"): 3,
        ("otway_latency_seconds_bucket", "cscf", "+Inf"): 3,
        ("otway_batch_size_sum", "cscf"): 3,
        ("otway_batch_size_bucket", "cscf", "400.0"): found["otway_batch_size_count", "cscf"],
        ("otway_partitions", "cscf"): 12,
        ("otway_lag_records", "cscf"): 0,
        ("otway_waiting", "cscf"): 0,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["otway_store_round_trips_total", "cscf", "write"] >= 1
    assert found["otway_store_seconds_total", "cscf", "write"] > 0
    assert found[("process_resident_memory_bytes",)] > 1e6
    assert not [name for name, *_ in found if not name.startswith(("otway_", "process_"))]


def test_refusals_are_counted_by_check_and_code(process: Process) -> None:
    process.watched.vitals.refusals["OR-03", "not-authorised"] += 2
    assert samples(process)["otway_refusals_total", "cscf", "OR-03", "not-authorised"] == 2


def test_two_agents_of_a_process_are_ready_together() -> None:
    process, other = Process(), Watched("custodian")
    with answering("127.0.0.1:0", [process.watched, other]) as process.port, process.running():
        while process.watched.vitals.partitions is None:
            process.until("/livez", 200)
        said = process.until("/readyz", 503)
        assert list(said["missing"]) == ["custodian"]
        other.vitals.turned_at = time.monotonic()
        other.vitals.partitions = frozenset()  # a spare
        process.until("/readyz", 200)
        assert samples(process)["otway_partitions", "custodian"] == 0


@pytest.mark.parametrize(
    "address", ["9600", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", ":9600", "127.0.0.1:0/x"]
)
def test_an_address_that_cannot_be_is_told(address: str) -> None:
    with pytest.raises(SettingsBroken, match="OTWAY_OPERATIONS"), answering(address, []):
        pass


def test_an_address_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsBroken, match="in use"), answering(address, []):
            pass


def test_nothing_is_served_when_no_address_is_set() -> None:
    with answering("", []) as port:
        assert port == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "operations"]


@pytest.mark.parametrize(("how", "why"), [("loop", "has not turned"), ("work", "1 records are there")])
async def test_the_watchdog_ends_a_process_that_is_stuck(how: str, why: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.console.stuck", how), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == EXIT_CODE
    last = json.loads(said.splitlines()[-1])
    assert (last["event"], last["level"]) == ("watchdog", "error")
    assert last["why"].startswith("cscf: ")
    assert why in last["why"]


def test_the_watchdog_ends_a_process_whose_log_is_full() -> None:
    command = [sys.executable, "-m", "tests.console.stuck", "log"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        assert process.wait(60) == EXIT_CODE


def turning(now: float, **changes: Any) -> Watched:
    """An agent whose loop has turned just now."""
    watched = Watched("cscf")
    watched.vitals.turned_at = now
    for name, value in changes.items():
        setattr(watched.vitals, name, value)
    return watched


def test_the_watchdog_leaves_alone_what_waits_or_works_or_has_nothing_to_do() -> None:
    waits = turning(0, waiting_for="store: away", lag=Lag(9, 999.0))
    works = turning(0, lag=Lag(9, 0.0))
    idle = turning(0, lag=Lag(0, 0.0))
    dog = Watchdog([waits, works, idle], Patience(look_s=1.0))
    for now in range(0, 300, 10):
        for agent in (waits, works, idle):
            agent.vitals.turned_at = now
        works.vitals.dead_letters += 1
        assert dog.look(now) is None


def test_the_watchdog_counts_from_when_work_came_or_waiting_ended() -> None:
    agent = turning(0, lag=Lag(0, 0.0))
    dog = Watchdog([agent])
    for now, state, stuck in (
        (0, {}, False),
        (100, {"lag": Lag(1, 0.0)}, False),
        (159, {"waiting_for": "bus: away"}, False),
        (200, {"waiting_for": None}, False),
        (260, {}, False),
        (261, {}, True),
        (262, {"handled": 1}, False),
        (323, {}, True),
        (324, {"waiting_for": "bus: away", "lag": Lag(1, 61.0)}, False),
        (325, {"waiting_for": None, "lag": Lag(0, 60.0)}, False),
        (326, {"lag": Lag(0, 61.0)}, True),
    ):
        agent.vitals.turned_at = now
        for name, value in state.items():
            setattr(agent.vitals, name, value)
        assert (dog.look(now) is not None) is stuck, now


async def test_an_agent_tells_how_it_stands_and_goes_on_when_that_fails() -> None:
    broker = MemoryBroker(catalogue([]))

    class Failing(MemoryBus):
        fails = 1

        async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
            if self.fails:
                self.fails -= 1
                raise BusUnavailable("away")
            return await super().send(records)

    bus = Failing(broker, "cscf", CSCF.name)
    watched = turning(time.monotonic(), partitions=frozenset({3, 1}), lag=Lag(4, 0.0), handled=7)
    watched.vitals.waiting_for = "store: " + 300 * "x"
    told = asyncio.Event()
    broker.on_append.append(lambda _: told.set())
    async with telling(bus, watched, "cscf-1", clock=lambda: NOW):
        await asyncio.wait_for(told.wait(), 30)
    [record] = broker.records(STATUS.name)
    assert record.key == b"cscf-1"
    assert decode(record.value) == Status(
        role="cscf",
        instance="cscf-1",
        at=NOW,
        started=NOW,
        waiting_for=("store: " + 300 * "x")[:255],
        partitions=(1, 3),
        lag=4,
        handled=7,
    )


async def test_the_first_agent_that_ends_stops_the_others_and_its_error_is_told() -> None:
    stopping, left = asyncio.Event(), []

    async def serves() -> None:
        await stopping.wait()
        left.append("in order")

    async def breaks() -> None:
        raise BusUnavailable("away")

    with pytest.raises(BusUnavailable, match="away"):
        await together([serves(), breaks(), serves()], stopping)
    assert left == ["in order", "in order"]
