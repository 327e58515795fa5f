"""What an operator sees of real processes on real servers, and how they leave."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from chaos.servers import free_port
from console.hosting.watchdog import EXIT_CODE
from tests.agents.scene import CALL, Town
from tests.agents.test_leaving import WITHIN_S, paused
from tests.deployment.network import Network
from tests.servers import ROOT
from topics.bus import Outbound
from topics.catalogue import KMS, catalogue
from topics.codec import encode
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics
from topics.kafka_clients import KafkaSettings

pytestmark = pytest.mark.servers


async def set_up(network: Network) -> None:
    await network.otway("keys", "init")
    await network.otway("provision", "users.toml", "--draw", "alice", "--draw", "bob")
    await network.otway("topics", "create", "--users", "users.toml")


async def run(network: Network, role: str, *arguments: str) -> int:
    """Start an agent that answers HTTP; the port."""
    port = free_port()
    network.environment["OTWAY_OPERATIONS"] = f"127.0.0.1:{port}"
    await network.run(role, role, *arguments)
    return port


async def get(port: int, page: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{port}{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def until(port: int, page: str, status: int) -> str:
    """What the page says once it answers so."""
    async with asyncio.timeout(30):
        while True:
            found, said = await get(port, page)
            if found == status:
                return said
            await asyncio.sleep(0.05)


async def status(network: Network, good: Callable[[dict[str, Any]], bool], code: int) -> dict[str, Any]:
    """What `otway status --json` tells once it is good; heartbeats come every two seconds."""
    async with asyncio.timeout(60):
        while True:
            told: dict[str, Any] = json.loads(await network.otway("status", "--json", expect=None))
            if good(told):
                break
    assert json.loads(await network.otway("status", "--json", expect=code))
    return told


def ready(told: dict[str, Any]) -> set[str]:
    return {agent["role"] for agent in told["agents"] if agent["health"] == "ready"}


async def test_an_operator_sees_each_agent(network: Network) -> None:
    await set_up(network)
    network.environment["OTWAY_INSTANCE"] = "first"
    ports = {"kms": await run(network, "kms")}
    said = await until(ports["kms"], "/readyz", 200)
    assert json.loads(said) == {"ok": True, "missing": {}}
    assert (await get(ports["kms"], "/livez"))[0] == 200
    async with asyncio.timeout(30):
        while 'otway_partitions{agent="custodian"} 12' not in (await get(ports["kms"], "/metrics"))[1]:
            pass
    _, metrics = await get(ports["kms"], "/metrics")
    assert 'otway_partitions{agent="kms"} 12.0' in metrics
    assert 'otway_waiting{agent="kms"} 0.0' in metrics
    assert 'otway_store_round_trips_total{agent="kms",operation="due"}' in metrics
    assert "process_cpu_seconds_total" in metrics

    told = await status(network, lambda told: ready(told) >= {"kms", "custodian"}, 1)
    mine = {agent["role"]: agent for agent in told["agents"] if agent["instance"] == "first"}
    assert mine.keys() == {"kms", "custodian"}
    assert mine["kms"]["partitions"] == list(range(12))
    assert mine["kms"]["lag"] == 0
    assert {share["role"]: share["held"] for share in told["roles"]}["cscf"] == 0

    for role in ("bsf", "cscf"):
        ports[role] = await run(network, role)
        await until(ports[role], "/readyz", 200)
    network.environment["OTWAY_INSTANCE"] = ""
    ports["ue"] = await run(network, "ue", "--host", "bob", "--users", "users.toml")
    await until(ports["ue"], "/readyz", 200)
    everyone = {"kms", "custodian", "bsf", "cscf", "ue"}
    told = await status(network, lambda told: ready(told) >= everyone, 0)
    assert {agent["instance"] for agent in told["agents"] if agent["role"] == "ue"} == {"bob"}
    table = await network.otway("status")
    assert "0-11" in table
    assert "kms         12 of 12 partitions\n" in table

    await network.kill("cscf")
    told = await status(network, lambda told: "cscf" not in ready(told), 1)
    table = await network.otway("status", expect=1)
    assert "no agent that is ready holds 0-11" in table
    network.environment["OTWAY_LOG"] = "json"
    await run(network, "cscf")
    lines = [json.loads(line) for line in (await network.stop("cscf")).splitlines()]
    assert all(line["role"] == "cscf" and "-" in line["instance"] for line in lines)


async def test_a_port_that_is_taken_is_told_before_anything_is_joined(network: Network) -> None:
    await set_up(network)
    port = await run(network, "cscf")
    network.environment["OTWAY_OPERATIONS"] = f"127.0.0.1:{port}"
    said = await network.otway("run", "cscf", expect=1)
    assert f"OTWAY_OPERATIONS: 127.0.0.1:{port}: Address already in use" in said
    assert "partitions" not in said


@pytest.mark.parametrize("service", ["valkey", "kafka-1"])
async def test_it_leaves_in_time_when_a_server_says_nothing(network: Network, service: str) -> None:
    await set_up(network)
    port = await run(network, "kms")
    await until(port, "/readyz", 200)
    async with paused(network.servers, service):
        if service == "valkey":  # every turn asks it; Kafka is only missed after ten seconds
            said = json.loads(await until(port, "/readyz", 503))
            assert said["missing"]["kms"][0].startswith(f"store: {network.store_url}: no answer")
            assert (await get(port, "/livez"))[0] == 200
        told_at = time.monotonic()
        await network.stop("kms")
        assert time.monotonic() - told_at < WITHIN_S


async def test_a_batch_under_way_does_not_keep_it(network: Network) -> None:
    """What is not answered is not committed: it comes again to whoever is next."""
    await set_up(network)
    port = await run(network, "kms")
    await until(port, "/readyz", 200)
    async with paused(network.servers, "valkey"):
        await ask_the_kms(network)
        said = json.loads(await until(port, "/readyz", 503))
        assert "store" in said["missing"]["kms"][0]
        told_at = time.monotonic()
        await network.stop("kms")
        assert time.monotonic() - told_at < WITHIN_S
    port = await run(network, "kms")
    async with asyncio.timeout(30):  # the batch is counted last
        while (
            'otway_requests_total{agent="kms",type="KeyRequest"} 1.0' not in (await get(port, "/metrics"))[1]
        ):
            await until(port, "/livez", 200)
    assert 'otway_refusals_total{agent="kms",check="OR-' in (await get(port, "/metrics"))[1]
    said = await network.stop("kms")
    [line] = [line for line in said.splitlines() if "refused" in line]
    assert f"call={CALL.hex()}" in line
    assert "role=kms" in line


async def ask_the_kms(network: Network) -> None:
    """A request by strangers to this network."""
    bus = KafkaBus(KafkaSettings(bootstrap=network.servers.kafka), "nobody", KMS.name)
    await bus.start()
    await bus.send([Outbound(KMS.name, 0, b"k", encode(Town().request()))])
    await bus.stop()


async def test_the_watchdog_ends_a_process_whose_broker_fell_silent(network: Network) -> None:
    await create_topics(KafkaSettings(bootstrap=network.servers.kafka), catalogue([]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.console.stuck", "bus", network.servers.kafka),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while json.loads(line := await process.stderr.readline())["event"] != "partitions":
            assert line
        async with paused(network.servers, "kafka-1"):
            said = await process.stderr.read()
            assert await process.wait() == EXIT_CODE
    last = json.loads(said.splitlines()[-1])
    assert (last["event"], last["why"][:33]) == ("watchdog", "cscf: nothing was heard of the bu")
