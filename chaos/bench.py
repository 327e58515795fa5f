"""`make bench`: what a grant and a call cost, beside a bare echo of the same sizes on the same servers.

    full batches   a backlog of requests for a bare echo, then for the KMS: requests/s, CPU of each request
    low rate       200 requests a second, the same two
    rekey          the next epoch for 64 members, beside 64 single grants (chaos/bench_rekey.py)
    set-up         calls through real processes, beside as many bare hops through real processes
    expiry         keys of messages that end in one second, beside Redis's own expiry (chaos/bench_expiry.py)
    voicemail      messages at a time that one process on one core takes in whole (chaos/bench_voicemail.py)
    media          mixes and transcoded calls, beside the bare work (chaos/bench_media.py)

CPU is the processes' own: the client's by its own clock, broker's and store's from /proc. Rates and tails
vary from run to run; the ratios within one run are what to compare. It starts its own servers by compose, and
removes them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import structlog
from rich.console import Console
from rich.table import Table

from agents.alarms import HandsetAlarm
from agents.handset.ue_call import UeSettings
from agents.runtime import Loop
from agents.ue import Ue
from chaos import bench_expiry, bench_media, bench_rekey, bench_voicemail
from chaos.bench_clients import (
    USERS,
    Clients,
    bench_topic,
    codec,
    cpu_s,
    now,
    people,
    requests,
    start_client,
    work,
)
from chaos.lab import draw_codec
from chaos.servers import place
from media.leg import MediaInstruction, OpenMedia
from protocol.profile import HARDENED
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.redis_store import RedisSettings, RedisStore
from storage.users_file import Device
from topics.access import ue_group
from topics.bus import Inbound, Outbound
from topics.catalogue import CSCF, KMS, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics
from topics.kafka_clients import KafkaSettings
from topics.messages import Dial, Invite

BACKLOG: Final = 20_000
RATE: Final = 200
RATE_S: Final = 5
CALLS: Final = 150
CALL_GAP_S: Final = 0.1
REGISTERED_WITHIN_S: Final = 8


class Figures(msgspec.Struct, frozen=True):
    """One measurement of a client under load."""

    requests: int
    per_second: float
    client_us: float  # CPU, each request
    broker_us: float
    store_us: float


class SetUp(msgspec.Struct, frozen=True):
    """Latencies of one way there and back, in milliseconds."""

    p50: float
    p99: float


async def measure(
    servers: Clients, worker: Sequence[str], topic: Topic, load: list[Outbound], *, per_second: int | None
) -> Figures:
    """One client under a load: a backlog that is there before it starts, or so many a second."""
    sender = KafkaBus(servers.kafka, "bench-sender", CSCF.name)
    await sender.start()
    load = [Outbound(topic.name, record.partition, record.key, record.value) for record in load]
    if per_second is None:
        for start in range(0, len(load), 500):
            await sender.send(load[start : start + 500])
    process = await start_client(servers, *worker, count=len(load))
    assert process.stdout is not None
    broker, store = cpu_s(servers.broker_pid), cpu_s(servers.store_pid)
    if per_second is not None:
        began = time.perf_counter()
        for number, record in enumerate(load):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            await sender.send([record])
    output = (await process.stdout.read()).splitlines()
    await process.wait()
    used = json.loads(output[-1])
    broker, store = cpu_s(servers.broker_pid) - broker, cpu_s(servers.store_pid) - store
    await sender.stop()
    count = len(load)
    return Figures(
        count,
        round(count / used["wall_s"]),
        round(1e6 * used["cpu_s"] / count, 1),
        round(1e6 * broker / count, 1),
        round(1e6 * store / count, 1),
    )


class _Timed(KafkaBus):
    """Notes when each INVITE of this host leaves."""

    def __init__(self, settings: KafkaSettings, group: str, inbox: str) -> None:
        super().__init__(settings, group, inbox)
        self.left: dict[str, float] = {}

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        for record in records:
            message = decode(record.value)
            if isinstance(message, Invite):
                self.left.setdefault(call_key(message.caller, message.call), time.perf_counter())
        return await super().send(records)


async def call_set_up(servers: Clients) -> SetUp:
    """From INVITE to media at the caller; KMS and CSCF are processes, both handsets are in this one."""
    callers, callees = people()
    processes = [await start_client(servers, role) for role in ("kms", "cscf")]
    up: dict[str, float] = {}

    def opened(instruction: MediaInstruction) -> None:
        if isinstance(instruction, OpenMedia) and instruction.leg.local.startswith("sip:a"):
            up[instruction.leg.session.partition(" ")[2]] = time.perf_counter()

    buses, tasks, stopping = [], [], asyncio.Event()
    loops = []
    for host, devices in (("west", callers), ("east", callees)):
        bus = _Timed(servers.kafka, ue_group(host), ue_inbox(host).name)
        store, own = MemoryStore(), draw_codec(os.urandom)
        lines = tuple(MediaAddress("127.0.0.1", 9) for _ in range(CALLS))
        loop = Loop(
            Ue(HARDENED, UeSettings(host=host, lines=lines)),
            bus,
            store,
            own,
            clock=now,
            random=os.urandom,
            carry_out=opened,
        )
        at_host = [Device(d.impi, d.identity, host, psk=d.psk) for d in devices]
        await provision_handsets(store, own, at_host, now(), os.urandom)
        for device in at_host:
            loop.tell(HandsetAlarm(device.impi))
        await bus.start()
        buses.append(bus)
        loops.append(loop)
        tasks.append(asyncio.create_task(loop.run(stopping)))
    await asyncio.sleep(REGISTERED_WITHIN_S)  # a call of a handset that is not ready is not counted
    for number in range(CALLS):
        device = callers[number % USERS]
        dial = Dial(request=os.urandom(16), to=device.impi, callee=callees[number % USERS].identity)
        await buses[1].send([Outbound(ue_inbox("west").name, 0, b"", encode(dial))])
        await asyncio.sleep(CALL_GAP_S)
    await asyncio.sleep(2)
    stopping.set()
    await asyncio.gather(*tasks)
    for process in processes:
        process.terminate()
        await process.wait()
    took = [1000 * (up[call] - left) for call, left in buses[0].left.items() if call in up]
    assert len(took) > CALLS / 2, f"only {len(took)} of {CALLS} calls came up"
    return _latency(took)


async def bare_hops(servers: Clients, hops: int) -> SetUp:
    """A record there and back through two echo processes: so many hops of Kafka and nothing else."""
    legs = [bench_topic(f"hop{number}") for number in range(hops)]
    await create_topics(servers.kafka, legs)
    processes = []
    for number in range(0, hops, 2):
        processes.append(  # noqa: PERF401
            await start_client(servers, "echo", legs[number].name, legs[number + 1].name)
        )
    ends = [KafkaBus(servers.kafka, f"end-{leg.name}", leg.name) for leg in legs[1::2]]
    for end in ends:
        await end.start()
    took = []
    for number in range(CALLS + 20):
        began = time.perf_counter()
        for leg, end in zip(legs[::2], ends, strict=True):
            await end.send([Outbound(leg.name, 0, b"", bytes(450))])
            batch: Sequence[Inbound] = ()
            while not batch:
                batch = await end.receive(10, 1.0)
            end.commit(batch)
        if number >= 20:  # the first ones open connections
            took.append(1000 * (time.perf_counter() - began))
        await asyncio.sleep(CALL_GAP_S)
    for end in ends:
        await end.stop()
    for process in processes:
        process.terminate()
        await process.wait()
    return _latency(took)


def _latency(took: list[float]) -> SetUp:
    hundredths = statistics.quantiles(took, n=100)
    return SetUp(round(hundredths[49], 2), round(hundredths[98], 2))


async def run(servers: Clients, say: Callable[[str], None]) -> dict[str, Any]:
    """All measurements."""
    callers, callees = people()
    topics = [
        *catalogue(["west", "east", "bench", bench_rekey.HOST]),
        bench_topic("load"),
        bench_topic("answers"),
    ]
    await create_topics(servers.kafka, topics)
    store = RedisStore(servers.redis)
    await provision_network(store, codec(), [*callers, *callees], now() - 1000, os.urandom)
    await store.close()
    echo = ("echo", bench_topic("load").name, bench_topic("answers").name)
    found: dict[str, Any] = {}
    say(f"full batches: {BACKLOG} requests, echo and KMS")
    load = requests(BACKLOG, *people(), "bench")
    found["echo"] = await measure(servers, echo, bench_topic("load"), load, per_second=None)
    found["kms"] = await measure(servers, ("kms",), KMS, load, per_second=None)
    say(f"low rate: {RATE} a second for {RATE_S} s, echo and KMS")
    load = requests(RATE * RATE_S, *people(), "bench")
    found["echo, low rate"] = await measure(servers, echo, bench_topic("load"), load, per_second=RATE)
    found["kms, low rate"] = await measure(servers, ("kms",), KMS, load, per_second=RATE)
    found["rekey"] = await bench_rekey.measure(servers, say)
    say(f"set-up: {CALLS} calls, beside 4 and 6 bare hops")
    found["4 bare hops"] = await bare_hops(servers, 4)
    found["6 bare hops"] = await bare_hops(servers, 6)
    found["call set-up"] = await call_set_up(servers)
    found["expiry"] = await bench_expiry.measure(servers, say)
    found["voicemail"] = await bench_voicemail.measure(servers, say)
    found["media"] = await bench_media.measure(say)
    return found


def show(found: dict[str, Any]) -> None:
    """The figures side by side, and their ratios."""
    console = Console()
    table = Table("", "requests/s", "client CPU µs", "broker CPU µs", "store CPU µs")
    for name in ("echo", "kms", "echo, low rate", "kms, low rate"):
        row: Figures = found[name]
        figures = (row.per_second, row.client_us, row.broker_us, row.store_us)
        table.add_row(name, *(f"{figure:g}" for figure in figures))
    console.print(table)
    table = Table("", "p50 ms", "p99 ms")
    for name in ("4 bare hops", "6 bare hops", "call set-up"):
        table.add_row(name, f"{found[name].p50:g}", f"{found[name].p99:g}")
    console.print(table)
    for name, value in ratios(found).items():
        console.print(f"{name}: {value:.2f}")
    console.print(bench_rekey.line(found["rekey"]))
    console.print(bench_expiry.line(found["expiry"]))
    console.print(bench_voicemail.line(found["voicemail"]))
    bench_media.show(found["media"], console)


def ratios(found: dict[str, Any]) -> dict[str, float]:
    """What to compare between runs and machines."""
    return {
        "KMS's CPU to the echo's, full batches": found["kms"].client_us / found["echo"].client_us,
        "KMS's CPU to the echo's, low rate": found["kms, low rate"].client_us
        / found["echo, low rate"].client_us,
        "set-up p50 to 4 bare hops": found["call set-up"].p50 / found["4 bare hops"].p50,
        "set-up p50 to 6 bare hops, as many as it has": found["call set-up"].p50 / found["6 bare hops"].p50,
    }


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON and nothing else")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.worker:
        used = asyncio.run(work(options.worker[0], options.worker[1:], options.count))
        print(json.dumps(used), flush=True)  # noqa: T201
        return
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each new topic's first leader
    console = Console(stderr=True)
    os.environ.setdefault("VALKEY_MAXMEMORY", "1gb")  # messages of hundreds of callers at a time
    own = place(f"otway-bench-{os.getpid()}")
    try:
        own.compose("up", "-d", "--wait")
        kafka, redis = KafkaSettings(bootstrap=own.kafka), RedisSettings(url=own.redis_url)
        servers = Clients(kafka, redis, own.pid("kafka-1"), own.pid("valkey"))
        found = asyncio.run(run(servers, console.print))
    except subprocess.CalledProcessError as failed:
        console.print(f"the servers of deploy/servers.yaml do not start:\n{failed.stderr}")
        sys.exit(1)
    finally:
        own.compose("down", "-v", "--timeout", "5")
    if options.json:
        sys.stdout.write(json.dumps({**msgspec.to_builtins(found), "ratios": ratios(found)}) + "\n")
    else:
        show(found)


if __name__ == "__main__":
    main()
