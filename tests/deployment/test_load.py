"""`otway load` against real processes: every call is accounted for, also those that a fault makes fail."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from chaos.lab import draw_crowd
from console.outside import random
from storage.users_file import write_users
from tests.deployment.network import Network
from topics.catalogue import REPORTS
from topics.codec import decode
from topics.kafka_admin import tail
from topics.kafka_clients import KafkaSettings
from topics.messages import Report, ReportEvent

pytestmark = pytest.mark.servers


async def set_up(network: Network) -> None:
    """Topics, eight handsets on one host, KMS and CSCF; nobody has a USIM, so that no BSF is needed."""
    (network.directory / "users.toml").write_text(write_users(draw_crowd(8, "load", random)))
    await network.otway("keys", "init")
    await network.otway("provision", "users.toml")
    await network.otway("topics", "create", "--users", "users.toml")
    for role in ("kms", "cscf"):
        await network.run(role, role)


async def load(network: Network, *arguments: str) -> dict[str, Any]:
    """The outcome, printed and kept alike. What is on standard error comes before it."""
    said = await network.otway("load", "--json", "--out", "kept/load.json", *arguments)
    printed: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert printed == json.loads((network.directory / "kept" / "load.json").read_bytes())
    return printed


async def test_a_short_load_is_all_accounted_for(network: Network) -> None:
    await set_up(network)
    outcome = await load(network, "--rate", "10", "--seconds", "5", "--hold", "1")
    assert outcome["dials"] == outcome["came_up"] == outcome["confirmed"] == 50
    assert (outcome["failed"], outcome["unaccounted"]) == ({}, 0)
    assert (outcome["disagreeing"], outcome["two_keys"], outcome["shared_keys"]) == (0, 0, 0)
    assert outcome["without_media"] == 0
    assert sum(outcome["ups"]) == 50
    assert 0 < outcome["set_up_ms"]["p50"] <= outcome["set_up_ms"]["max"]
    calls = outcome["calls"]
    assert {(call["caller"], call["callee"]) for call in calls} == {
        (f"sip:load-{n}@ims.example", f"sip:load-{n + 1}@ims.example") for n in (0, 2, 4, 6)
    }
    assert all((call["ended_at_caller"], call["ended_at_callee"]) == ("hung-up", "bye") for call in calls)
    assert all(call["key_at_caller"] == call["key_at_callee"] for call in calls)
    assert len({call["key_at_caller"] for call in calls}) == 50


async def test_calls_that_fail_are_accounted_for(network: Network) -> None:
    """The CSCF dies and stays dead: no INVITE, no BYE arrives, and each end comes to its end alone."""
    await set_up(network)
    async with tail(KafkaSettings(bootstrap=network.servers.kafka), [REPORTS.name]) as reports:
        loading = asyncio.create_task(load(network, "--rate", "8", "--seconds", "5", "--hold", "2"))
        up = 0
        async with asyncio.timeout(90):
            while up < 5:
                report = decode((await anext(reports)).value)
                up += isinstance(report, Report) and report.event is ReportEvent.UP
        await network.kill("cscf")
        outcome = await loading
    assert outcome["dials"] == 40
    assert outcome["unaccounted"] == 0
    assert 0 < outcome["came_up"] < 40
    assert outcome["came_up"] + sum(outcome["failed"].values()) == 40
    assert outcome["failed"]["no-answer"] > 0
    assert any(call["ended_at_callee"] == "silent" for call in outcome["calls"])
    assert outcome["gaps"]
