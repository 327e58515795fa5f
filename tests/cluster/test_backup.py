"""What docs/operations.md says of copies: Valkey's data are lost and come back; no token is taken twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.checks import Check, RefusalCode
from tests.cluster.cluster import AGENTS, Cluster
from tests.cluster.load import check, load, message_of
from topics.bus import Inbound, Outbound
from topics.catalogue import AUDIT, KMS
from topics.kafka_admin import read_all, sender, tail
from topics.messages import Audit, AuditEvent, KeyRequest

pytestmark = pytest.mark.cluster

KEEPERS = ("kms", "bsf", "cscf", "voicemail", "transcoder", "conference", "valkey")
BROKERS_INSIDE = "kafka-1:19092,kafka-2:19092,kafka-3:19092"


async def test_or_10_a_store_from_a_copy_takes_no_old_token(cluster: Cluster) -> None:
    async with load(cluster, "before", rate=5, seconds=3) as run:
        outcome = await run.outcome()
    await check(cluster, outcome)
    copy = cluster.directory / "valkey.tar"
    await asyncio.to_thread(copied, cluster, copy)
    async with load(cluster, "since", rate=5, seconds=3) as run:
        since = await run.outcome()
    await check(cluster, since)
    await asyncio.to_thread(restored, cluster, copy)
    await cluster.until_healthy(*AGENTS)

    lost = {call.call for call in since.calls if call.call}
    request, record = await first_request_of(cluster, lost)
    async with tail(cluster.kafka("operator"), [AUDIT.name]) as audits:
        async with sender(cluster.kafka("operator")) as send:
            await send([record])
        async with asyncio.timeout(20):
            noted = await anext(audit async for audit in heard(audits) if audit.call == request.call)
    assert (noted.event, noted.check, noted.code) == (
        AuditEvent.REFUSED,
        Check.OR_10,
        RefusalCode.STALE,
    )
    assert "up after" in await cluster.otway("call", "alice", "bob", "--seconds", "0.5")


async def heard(records: AsyncIterator[Inbound]) -> AsyncIterator[Audit]:
    async for record in records:
        message = message_of(record)
        if isinstance(message, Audit):
            yield message


def copied(cluster: Cluster, copy: Path) -> None:
    cluster.compose("pause", "valkey")
    taken = cluster.compose_octets(
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "--entrypoint",
        "tar",
        "valkey",
        "-C",
        "/data",
        "-c",
        "appendonlydir",
    )
    cluster.compose("unpause", "valkey")
    copy.write_bytes(taken)


def restored(cluster: Cluster, copy: Path) -> None:
    cluster.compose("stop", *KEEPERS)
    unpack = "cd /data && rm -rf appendonlydir && tar x"
    cluster.compose_octets(
        *("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "valkey", "-c", unpack),
        given=copy.read_bytes(),
    )
    cluster.compose("up", "-d", "--wait", "valkey")
    cluster.compose(
        *("run", "--rm", "setup", "cluster", "setup", "/run/secrets/otway"),
        *("--inside", BROKERS_INSIDE, "--restored"),
    )
    cluster.compose("up", "-d", "--wait")


async def first_request_of(cluster: Cluster, calls: set[str]) -> tuple[KeyRequest, Outbound]:
    """A REQUEST that was granted before, as it stands in the KMS's inbox."""
    async for record in read_all(cluster.kafka("operator"), KMS.name):
        message = message_of(record)
        if isinstance(message, KeyRequest) and message.call.hex() in calls:
            return message, Outbound(KMS.name, record.partition, record.key or b"", record.value)
    raise AssertionError("no such request")
