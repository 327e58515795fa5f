"""A load on the cluster while a test breaks it, and what must hold of it afterwards."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from chaos.load_account import Outcome
from chaos.load_media import fingerprint
from chaos.servers import ROOT
from protocol.checks import Refused
from storage.kms_records import Agreement
from storage.redis_store import RedisStore
from tests.cluster.cluster import Cluster
from topics.bus import Inbound
from topics.catalogue import AUDIT
from topics.codec import decode
from topics.kafka_admin import read_all
from topics.messages import Audit, AuditEvent, Message

HOST = "load"


@dataclass(frozen=True)
class Grants:
    """What the audit has of GRANTED."""

    facts: dict[str, set[bytes]]  # ids by call: a repeat of a fact has its id
    forks: dict[str, set[bytes]]  # F by call
    moments: list[float] = field(
        default_factory=list
    )  # when each fact was first told, seconds since 1970 UTC

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time without a grant that begins in this time."""
        inside = [moment for moment in self.moments if moment >= begin]
        before = max((moment for moment in self.moments if moment < begin), default=begin)
        return max((b - a for a, b in pairwise([before, *inside]) if a < end), default=0.0)


class LoadRun:
    """An `otway load` that runs."""

    def __init__(self, process: asyncio.subprocess.Process, cluster: Cluster, name: str) -> None:
        self.began = time.time()
        self._process = process
        self._cluster = cluster
        self._out = cluster.directory / f"{name}.json"
        self.said: list[str] = []

    async def dialling(self) -> None:
        """Returns when the first calls have been dialled."""
        assert self._process.stdout is not None
        while not any(re.match(r"[1-9]\d* dialled", line) for line in self.said):
            line = (await self._process.stdout.readline()).decode()
            assert line, "".join(self.said)
            self.said.append(line)

    async def outcome(self) -> Outcome:
        """When all is over."""
        rest, _ = await self._process.communicate()
        self.said.append(rest.decode())
        assert self._process.returncode in {0, 1}, "".join(self.said)
        octets = self._out.read_bytes()
        assert octets, "".join(self.said)
        return msgspec.json.decode(octets, type=Outcome)


@asynccontextmanager
async def load(
    cluster: Cluster, name: str, *, rate: float, seconds: float, hold: float = 2.0
) -> AsyncIterator[LoadRun]:
    """Calls at a rate for so long, as a process on this machine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", "load"),
        *("--users", str(cluster.secrets / f"ue-{HOST}" / "users.toml"), "--host", HOST),
        *("--rate", str(rate), "--seconds", str(seconds), "--hold", str(hold)),
        *("--out", str(cluster.directory / f"{name}.json")),
        cwd=cluster.directory,
        env={
            **cluster.environment,
            "PYTHONPATH": str(ROOT),
            "OTWAY_KAFKA": cluster.kafka(f"ue-{HOST}").bootstrap,
            "OTWAY_USER": f"ue-{HOST}",
            "OTWAY_PASSWORD_FILE": str(cluster.secrets / f"ue-{HOST}" / "password"),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield LoadRun(process, cluster, name)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def grants(cluster: Cluster, calls: Iterable[str]) -> Grants:
    """Of these calls (C in hexadecimal), from the audit topic."""
    wanted = set(calls)
    found = Grants(defaultdict(set), defaultdict(set))
    async for record in read_all(cluster.kafka("auditor"), AUDIT.name):
        noted = message_of(record)
        if not isinstance(noted, Audit) or noted.event is not AuditEvent.GRANTED or noted.call is None:
            continue
        call = noted.call.hex()
        if call in wanted and noted.id not in found.facts[call]:
            found.facts[call].add(noted.id)
            found.forks[call].add(noted.fork or b"")
            found.moments.append(record.timestamp_ms / 1000)
    found.moments.sort()
    return found


def message_of(record: Inbound) -> Message | None:
    """None for what a test has written there to see whether it may."""
    try:
        return decode(record.value)
    except Refused:
        return None


async def stored_keys(cluster: Cluster, outcome: Outcome) -> dict[str, list[str]]:
    """Fingerprints of all Ks that the KMS has stored for the calls that came up."""
    keys = {
        call.call: Agreement.key_for(call.caller, bytes.fromhex(call.call))
        for call in outcome.calls
        if call.call is not None and call.up_after_ms is not None
    }
    store, codec = RedisStore(cluster.store("kms")), cluster.codec
    stored = await store.read([key.name for key in keys.values()])
    await store.close()
    found: dict[str, list[str]] = {}
    for (call, key), record in zip(keys.items(), stored, strict=True):
        runs: Sequence = () if record.value is None else codec.decode(key, record.value).runs  # type: ignore[type-arg]
        found[call] = [fingerprint(fork.key) for run in runs for fork in run.forks if fork.key]
    return found


async def check(cluster: Cluster, outcome: Outcome) -> Grants:
    """No granted key lost, no run with two Ks, no call unaccounted for, audit complete."""
    assert outcome.unaccounted == 0
    assert outcome.two_keys == 0, "no end has opened media under two Ks of one run"
    assert outcome.disagreeing == 0, "both ends of a call hold the same K"
    assert outcome.shared_keys == 0, "no two calls have the same K"
    up = {call.call: call for call in outcome.calls if call.call and call.up_after_ms is not None}
    found = await grants(cluster, (call.call for call in outcome.calls if call.call))
    assert up.keys() <= found.facts.keys(), "the audit has every grant"
    assert all(len(ids) == 1 for ids in found.facts.values()), "one fact for each, however often it was told"
    stored = await stored_keys(cluster, outcome)
    for call, keys in stored.items():
        assert keys == [up[call].key_at_caller], "the KMS has that K, and no other"
    return found
