"""What `make bench` loads the servers with: requests of many callees, and the clients that answer them.

Each client is a process of its own; it says `ready`, and what it has used when its work is done.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agents.cscf import Cscf
from agents.kms import Kms, KmsSettings
from agents.runtime import Loop
from chaos.lab import draw_town
from chaos.servers import ROOT
from protocol.description import Description, Flow, SrtpSuite
from protocol.encoding import digest
from protocol.evidence import Holder, Token
from protocol.names import Role, Run, Suite
from protocol.profile import HARDENED
from protocol.secret import Secret
from protocol.sharding import call_key, shard_of
from storage.records import RecordCodec
from storage.redis_store import RedisSettings, RedisStore
from storage.users_file import Device
from storage.wrapping import KeyEncryptionKey, Wrapping
from topics.bus import Outbound
from topics.catalogue import CSCF, KMS, Topic
from topics.codec import encode
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings
from topics.messages import Contact, KeyRequest, clear

USERS: Final = 100  # callers, and as many callees
ANSWER_OCTETS: Final = (221, 474)  # an audit record and a RESPONSE: what the echo sends for each request
HOP_OCTETS: Final = (450,)  # an INVITE or a REQUEST
UNLIMITED: Final = KmsSettings(
    key_requests_per_s=10**9, host_requests_per_s=10**9, mailbox_requests_per_s=10**9
)


@dataclass(frozen=True)
class Clients:
    """What a client needs to reach the servers, and which processes they are."""

    kafka: KafkaSettings
    redis: RedisSettings
    broker_pid: int = 0
    store_pid: int = 0


def codec() -> RecordCodec:
    """The same in all processes of a run."""
    return RecordCodec(Wrapping([KeyEncryptionKey(b"lab0", Secret(bytes(range(32))), 0)], os.urandom))


def now() -> int:
    """Seconds since 1970 UTC."""
    return int(time.time())


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def people() -> tuple[list[Device], list[Device]]:
    """Callers and callees with pre-shared keys, the same in all processes of a run."""
    stream = iter(range(10**9))

    def draw(octets: int) -> bytes:
        return digest(next(stream).to_bytes(8, "big"))[:octets]

    callers = draw_town([f"a{n}" for n in range(USERS)], draw, shared=True)
    callees = draw_town([f"b{n}" for n in range(USERS)], draw, shared=True)
    return list(callers), list(callees)


def requests(count: int, callers: Sequence[Device], callees: Sequence[Device], host: str) -> list[Outbound]:
    """REQUESTs of so many calls, as callees on that host would send them; all have pre-shared keys."""
    offer = Description(tuple(SrtpSuite), ("PCMU",), Flow.SENDRECV).octets
    made = []
    for number in range(count):
        caller, callee = callers[number % len(callers)], callees[number % len(callees)]
        assert caller.psk is not None
        assert callee.psk is not None
        run = Run(
            call=os.urandom(16),
            n=0,
            caller=caller.identity,
            callee=callee.identity,
            suite=Suite.AES_256_GCM,
        )
        token_a = _token(Holder(Role.CALLER, caller.psk_id, caller.psk), run, offer, None)
        token_b = _token(Holder(Role.CALLEE, callee.psk_id, callee.psk), run, offer, token_a)
        request = KeyRequest(
            caller_key=caller.psk_id,
            callee_key=callee.psk_id,
            suite=run.suite,
            token_a=token_a,
            token_b=token_b,
            sender=Contact(host, callee.impi),
            **clear(run),
        )
        key = call_key(run.caller, run.call)
        made.append(Outbound(KMS.name, shard_of(key), key.encode(), encode(request)))
    return made


def _token(holder: Holder, run: Run, offer: bytes, binds: bytes | None) -> bytes:
    body = Token(*run.clear, os.urandom(16), now(), (), digest(offer))
    return HARDENED.seal_token(holder, run, body, binds=binds, random=os.urandom)


async def serve_kms(servers: Clients, count: int) -> dict[str, float]:
    """The KMS until it has handled so many requests."""
    bus = KafkaBus(servers.kafka, "kms", KMS.name)
    await bus.start()
    store = RedisStore(servers.redis)
    loop = Loop(Kms(HARDENED, UNLIMITED), bus, store, codec(), clock=now, random=os.urandom)

    async def step() -> int:
        return await loop.step(0.1)

    used = await _measured(step, count)
    await bus.stop()
    await store.close()
    return used


async def serve_echo(
    servers: Clients, topic: str, answers: Topic, count: int, octets: Sequence[int]
) -> dict[str, float]:
    """Answers each record with records of so many octets, committed as the KMS's loop does."""
    bus = KafkaBus(servers.kafka, f"echo-{topic}", topic)
    await bus.start()

    async def step() -> int:
        batch = await bus.receive(200, 0.1)
        await bus.send(
            [
                Outbound(answers.name, record.partition % answers.partitions, record.key or b"", bytes(size))
                for record in batch
                for size in octets
            ]
        )
        bus.commit(batch)
        return len(batch)

    used = await _measured(step, count)
    await bus.stop()
    return used


async def _measured(step: Callable[[], Awaitable[int]], count: int) -> dict[str, float]:
    """From the first record to the last."""
    print("ready", flush=True)  # noqa: T201  (the word that the parent waits for)
    cpu, began, done = time.process_time(), time.perf_counter(), 0
    while not done:
        cpu, began = time.process_time(), time.perf_counter()
        done += await step()
    while done < count:
        done += await step()
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - began}


def bench_topic(name: str) -> Topic:
    """A topic of the benchmark, with one partition for hops and twelve for load."""
    partitions = 1 if name.startswith("hop") else KMS.partitions
    return Topic(f"bench.{name}", "", partitions, 3600, frozenset(), frozenset())


async def start_client(servers: Clients, *worker: str, count: int = 10**9) -> asyncio.subprocess.Process:
    """One client as a process of its own, once it says that it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.bench", "--worker", *worker, "--count", str(count)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OTWAY_BENCH": json.dumps(_place(servers))},
        cwd=ROOT,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def _place(servers: Clients) -> dict[str, Any]:
    return {"kafka": servers.kafka.bootstrap, "redis": servers.redis.url}


async def work(role: str, rest: list[str], count: int) -> dict[str, float]:
    """One client, as its own process."""
    at = json.loads(os.environ["OTWAY_BENCH"])
    servers = Clients(KafkaSettings(bootstrap=at["kafka"]), RedisSettings(url=at["redis"]))
    if role == "kms":
        return await serve_kms(servers, count)
    if role == "cscf":
        bus = KafkaBus(servers.kafka, "cscf", CSCF.name)
        await bus.start()
        loop = Loop(Cscf(), bus, RedisStore(servers.redis), codec(), clock=now, random=os.urandom)

        async def step() -> int:
            return await loop.step(0.1)

        return await _measured(step, count)
    topic, answers = rest
    octets = ANSWER_OCTETS if topic == bench_topic("load").name else HOP_OCTETS
    return await serve_echo(servers, topic, bench_topic(answers.removeprefix("bench.")), count, octets)
