"""Twenty calls a second for three minutes while one part after the other dies; no store for a minute."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.cluster.cluster import AGENTS, Cluster
from tests.cluster.load import HOST, check, load

pytestmark = pytest.mark.cluster

RATE = 20
SECONDS = 180
PAUSE_S = 20
WITHOUT_GRANTS_S_MAX = 30  # the aim for a killed agent is 5; a call's own patience ends after 32


async def test_every_part_dies_once_under_load(cluster: Cluster, measured: Callable[[str], None]) -> None:
    faults: list[tuple[str, float]] = []
    async with load(cluster, "faults", rate=RATE, seconds=SECONDS) as run:
        await run.dialling()
        began = time.monotonic()

        async def at(second: float, what: str, fault: Callable[[], Awaitable[object]]) -> None:
            await asyncio.sleep(max(0.0, began + second - time.monotonic()))  # the schedule of the faults
            faults.append((what, time.time()))
            await fault()

        for number, service in enumerate(AGENTS):
            await at(5 + 6 * number, f"kill -9 of {service}", partial(killed, cluster, service))
        await at(60, "rolling restart of all agents", partial(rolled, cluster))
        await at(95, "kill -9 of kafka-2", partial(killed, cluster, "kafka-2"))
        await at(125, f"pause of {PAUSE_S} s of kms", partial(paused, cluster, "kms"))
        await at(160, "restart of valkey", partial(in_thread, cluster, "restart", "valkey"))
        measured(f"lag 0 {await lag_gone(cluster, within_s=30):.1f} s after the last fault")
        outcome = await run.outcome()
    found = await check(cluster, outcome)
    measured(f"{outcome.dials} calls, {outcome.came_up} came up, failed: {outcome.failed}")
    measured(f"set-up in ms: {outcome.set_up_ms}")
    for (what, when), (_, until) in zip(faults, [*faults[1:], ("end", time.time())], strict=True):
        gap = found.longest_gap(when, until)
        measured(f"{what:32} {gap:5.1f} s without grants")
        assert gap < WITHOUT_GRANTS_S_MAX, what
    assert outcome.came_up > 0.9 * outcome.dials
    await cluster.until_healthy(*AGENTS, "kafka-1", "kafka-2", "kafka-3", "valkey")


async def test_valkey_is_gone_for_a_minute(cluster: Cluster) -> None:
    [kms] = cluster.containers("kms")
    restarts = cluster.inspect(kms, "{{.RestartCount}}")
    async with load(cluster, "no-store", rate=5, seconds=90) as run:
        await run.dialling()
        await in_thread(cluster, "stop", "valkey")
        gone = time.time()
        await asyncio.sleep(60)  # the time that the store is away
        ready = cluster.compose("exec", "-T", "kms", "bash", "-c", READYZ)
        said = json.loads(await cluster.otway("status", "--json", expect=1))
        back = time.time()
        await in_thread(cluster, "start", "valkey")
        outcome = await run.outcome()
    assert "503" in ready
    assert "valkey" in ready
    [health] = [each["health"] for each in said["agents"] if each["role"] == "kms"]
    assert "valkey" in health
    found = await check(cluster, outcome)
    during = [moment for moment in found.moments if gone + 2 < moment < back]
    assert not during, "it has granted nothing while it could not store"
    assert [moment for moment in found.moments if moment > back], "and goes on by itself"
    assert cluster.inspect(kms, "{{.RestartCount}}") == restarts
    await lag_gone(cluster, within_s=30)
    await cluster.until_healthy(*AGENTS, "valkey")


READYZ = r"exec 3<>/dev/tcp/127.0.0.1/9600 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && cat <&3"


async def killed(cluster: Cluster, service: str) -> None:
    for container in cluster.containers(service):
        cluster.kill(container)


async def rolled(cluster: Cluster) -> None:
    for service in AGENTS:
        await in_thread(cluster, "restart", service)


async def paused(cluster: Cluster, service: str) -> None:
    await in_thread(cluster, "pause", service)
    await asyncio.sleep(PAUSE_S)  # the length of the pause
    await in_thread(cluster, "unpause", service)


async def in_thread(cluster: Cluster, *command: str) -> None:
    await asyncio.to_thread(cluster.compose, *command)


async def lag_gone(cluster: Cluster, *, within_s: float) -> float:
    """Until every inbox is read to its end. Returns how long that took, in seconds."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            lags = (await cluster.otway("topics", "lag", "--json")).splitlines()
            own = f"ue.{HOST}"  # the load's, which has left by the end
            if all(each["lag"] == 0 for each in map(json.loads, lags) if each["group"] != own):
                break
    return time.monotonic() - began
