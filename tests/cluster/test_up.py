"""From nothing: a call between two containers, sound for sound; and what the containers are."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from media.likeness import likeness
from media.samples import callee_sample, tone
from media.wav import read_sound, write_wav
from tests.cluster.cluster import AGENTS, BROKERS, Cluster, docker

pytestmark = pytest.mark.cluster


async def test_a_call_from_this_host_between_two_containers(cluster: Cluster) -> None:
    said = tone(620, 2.0)
    write_wav(cluster.directory / "mine.wav", said)
    shown = await cluster.otway("call", "alice", "bob", "--wav", "mine.wav", "--out", "out")
    assert "INVITE" in shown
    assert "up after" in shown
    out = cluster.directory / "out"
    outcome = json.loads((out / "call.json").read_text())
    assert outcome["confirmed"]
    for media in outcome["statistics"].values():
        assert media["received"] > 90
        assert media["refused"] == 0
    assert likeness(read_sound(out / "bob-1@ims.example-heard.wav"), said) > 0.9
    assert likeness(read_sound(out / "alice-1@ims.example-heard.wav"), callee_sample()) > 0.9


async def test_what_a_user_does_wrong_is_told_in_a_line(cluster: Cluster) -> None:
    assert "nobody is called 'zoe'" in await cluster.otway("call", "alice", "zoe", expect=1)
    (cluster.directory / "none.wav").write_text("no sound")
    for arguments in (
        ("call", "alice", "bob", "--wav", "none.wav"),
        ("call", "load-0", "bob"),  # its host does not run
        ("keys", "revoke", "nobody@nowhere"),
    ):
        said = await cluster.otway(*arguments, expect=1)
        assert "otway: " in said
        assert "Traceback" not in said


async def test_every_agent_says_how_it_stands(cluster: Cluster) -> None:
    told = json.loads(await cluster.otway("status", "--json"))
    assert {agent["role"] for agent in told["agents"]} == {
        "kms",
        "custodian",
        "bsf",
        "cscf",
        "voicemail",
        "transcoder",
        "conference",
        "ue",
    }
    for service in AGENTS:
        [container] = cluster.containers(service)
        for path, expected in (("livez", "200"), ("readyz", "200"), ("metrics", "otway_requests_total")):
            asked = (
                f"exec 3<>/dev/tcp/127.0.0.1/9600 && printf 'GET /{path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
            )
            assert expected in docker("exec", container, "bash", "-c", asked)


def test_containers_have_no_more_than_they_need(cluster: Cluster) -> None:
    for service in AGENTS:
        [container] = cluster.containers(service)
        assert cluster.inspect(container, "{{.HostConfig.ReadonlyRootfs}}") == "true"
        assert cluster.inspect(container, "{{.HostConfig.CapDrop}}") == "[ALL]"
        assert docker("exec", container, "id", "-u").strip() == "10001"
        assert cluster.inspect(container, "{{json .Config.Entrypoint}}") == '["otway"]'
        mounted = json.loads(cluster.inspect(container, "{{json .Mounts}}"))
        seen = {mount["Source"].rpartition("/")[2] for mount in mounted if mount["Type"] == "bind"}
        keys = {"keys"} if service in {"kms", "bsf"} else set()
        assert seen == {service} | keys, "its own secrets, and the key file where it seals records"
    [kms] = cluster.containers("kms")
    for library in ("av", "numpy", "pylibsrtp", "confluent_kafka"):
        with pytest.raises(AssertionError, match="ModuleNotFoundError"):
            docker("exec", kms, "python", "-c", f"import {library}")
    with pytest.raises(AssertionError, match="no media libraries"):
        docker("exec", kms, "otway", "demo")


def test_no_secret_is_in_a_log_or_in_the_environment(cluster: Cluster) -> None:
    secrets = [
        line.strip()
        for path in cluster.secrets.rglob("*")
        if path.is_file() and path.name in {"password", "keys.toml", "users.toml", "client.key"}
        for word in path.read_text().replace('"', " ").split()
        for line in [word]
        if len(line) >= 32 and not line.startswith("-")
    ]
    assert len(secrets) > 20
    logs = cluster.compose("logs", "--no-color")
    environments = "".join(
        cluster.inspect(container, "{{json .Config}}")
        for service in (*AGENTS, *BROKERS, "valkey", "setup", "secrets")
        for container in cluster.containers(service)
    )
    assert "granted" in logs
    for secret in secrets:
        assert secret not in logs
        assert secret not in environments


async def test_an_agents_log_is_json_with_call_and_role(cluster: Cluster) -> None:
    await cluster.otway("call", "alice", "bob", "--seconds", "0.2")
    lines = [json.loads(line) for line in cluster.compose("logs", "--no-log-prefix", "kms").splitlines()]
    granted = [line for line in lines if line["event"] == "granted"]
    assert granted
    assert all(line["role"] == "kms" and len(line["call"]) == 32 for line in granted)


@pytest.mark.parametrize("service", AGENTS)
async def test_sigterm_leaves_within_five_seconds(
    cluster: Cluster, service: str, measured: Callable[[str], None]
) -> None:
    [container] = cluster.containers(service)
    told = datetime.now(UTC)
    cluster.docker("kill", "--signal", "TERM", container)
    cluster.docker("wait", container)
    ended = datetime.fromisoformat(cluster.inspect(container, "{{.State.FinishedAt}}")[:26] + "+00:00")
    took = (ended - told).total_seconds()
    assert cluster.inspect(container, "{{.State.ExitCode}}") == "0"
    assert took < 5
    measured(f"{service} left {took:.1f} s after SIGTERM")
    cluster.compose("start", service)
    await cluster.until_healthy(service)
