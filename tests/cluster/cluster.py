"""The cluster of compose.yaml as a test has it: a project, ports and secrets of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from pytest_docker.plugin import get_docker_services

from chaos.servers import ROOT, free_port
from protocol.secret import Secret
from protocol.sharding import SHARDS
from storage import key_file
from storage.records import RecordCodec
from storage.redis_store import RedisSettings
from storage.wrapping import Wrapping
from topics.kafka_clients import KafkaSettings

BROKERS: Final = ("kafka-1", "kafka-2", "kafka-3")
AGENTS: Final = ("kms", "bsf", "cscf", "voicemail", "transcoder", "conference", "ue-alice", "ue-bob")
USERS: Final = {  # names of users by their hosts; the tests themselves are the last host
    "alice": ("alice", "carol", "dave", "erin"),
    "bob": ("bob", "frank", "grace", "heidi"),
    "mallory": ("mallory", "oscar", "trudy"),
}
_PORTS: Final = ("KAFKA_1_PORT", "KAFKA_2_PORT", "KAFKA_3_PORT", "VALKEY_PORT")


def wanted_users() -> str:
    """As compose.yaml is told of USERS."""
    named = ((name, host) for host, names in USERS.items() for name in names)
    return ",".join(name if name == host else f"{name}@{host}" for name, host in named)


@dataclass(frozen=True)
class Cluster:
    """One cluster. directory: where an operator would stand, with secrets/ in it."""

    project: str
    directory: Path
    files: tuple[str, ...] = ("compose.yaml",)
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in _PORTS})
    settings: dict[str, str] = field(default_factory=dict)
    """What compose.yaml leaves open; `changed` changes it while the cluster runs."""

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTWAY_")},
            **{name: str(port) for name, port in self.ports.items()},
            **self.settings,
            "SECRETS": str(self.secrets),
            "DOCKER_BUILDKIT": "0",  # Debian's engine has no other builder
        }

    @contextmanager
    def running(self, *services: str) -> Iterator[None]:
        """From nothing to ready; gone in the end, whatever happens."""
        os.environ.update(self.environment)  # pytest-docker gives its commands nothing else
        down = "--profile chaos down -v --timeout 5"
        try:
            with get_docker_services(
                "docker compose",
                [str(ROOT / file) for file in self.files],
                self.project,
                [down, f"up -d --wait --wait-timeout 240 {' '.join(services)}"],
                [],
            ):
                yield
        finally:
            self.compose("--profile", "chaos", "down", "-v", "--timeout", "5")

    def compose(self, *arguments: str) -> str:
        return self.compose_octets(*arguments).decode()

    def compose_octets(self, *arguments: str, given: bytes | None = None) -> bytes:
        """The same for a command that takes or gives a file."""
        files = [part for file in self.files for part in ("-f", str(ROOT / file))]
        command = ["docker", "compose", *files, "-p", self.project, *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, input=given, env=self.environment, timeout=300
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
        return done.stdout

    def scale(self, **instances: int) -> None:
        """So many of each of these services; returns when all are ready."""
        wanted = [part for service, count in instances.items() for part in ("--scale", f"{service}={count}")]
        self.compose("up", "-d", "--wait", "--no-recreate", *wanted, *instances)

    @contextmanager
    def changed(self, settings: dict[str, str], *services: str) -> Iterator[None]:
        """These services, with other settings; as they were afterwards."""
        before = dict(self.settings)
        try:
            self.settings.update(settings)
            self.compose("up", "-d", "--wait", "--no-deps", *services)
            yield
        finally:
            self.settings.clear()
            self.settings.update(before)
            self.compose("up", "-d", "--wait", "--no-deps", *services)

    def docker(self, *arguments: str) -> str:
        return docker(*arguments)

    def logs(self, container: str) -> list[str]:
        """The lines that it has written to standard error."""
        done = subprocess.run(["docker", "logs", container], check=True, capture_output=True, text=True)
        return done.stderr.splitlines()

    def containers(self, service: str) -> list[str]:
        """Of a service, by number."""
        listed = self.compose("ps", "-a", "--format", "json", service)
        found = [json.loads(line) for line in listed.splitlines()]
        return [each["ID"] for each in sorted(found, key=lambda each: each["Name"])]

    def inspect(self, container: str, what: str) -> str:
        return docker("inspect", "-f", what, container).strip()

    def address(self, container: str) -> str:
        """In the network of the cluster."""
        return self.inspect(container, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")

    def kill(self, container: str) -> None:
        """SIGKILL to its process: unlike `docker kill`, the restart policy takes it for a crash."""
        os.kill(int(self.inspect(container, "{{.State.Pid}}")), signal.SIGKILL)

    async def until_healthy(self, *services: str, within_s: float = 90) -> None:
        async with asyncio.timeout(within_s):
            for service in services:
                for container in self.containers(service):
                    while self.inspect(container, "{{.State.Health.Status}}") != "healthy":  # noqa: ASYNC110
                        await asyncio.sleep(0.5)  # nobody in this process could set an event

    async def shared_out(self, role: str, *, instances: int) -> list[int]:
        """Returns when `otway status` has each partition at one of so many instances of a role that are
        ready: how many each holds.

        Until then it may have one at two: what an instance has told last is there for half a minute, also of
        one that is gone, or has not heard yet that another serves a partition."""
        async with asyncio.timeout(60):
            while True:
                told = json.loads(await self.otway("status", "--json", expect=None))
                mine = [each for each in told["agents"] if each["role"] == role and each["health"] == "ready"]
                held = [each["partitions"] for each in mine]
                numbers = sorted(number for each in held for number in each)
                if len(held) == instances and numbers == list(range(SHARDS)):
                    return sorted(map(len, held))

    async def otway(self, *arguments: str, expect: int | None = 0, within_s: float = 150) -> str:
        """An operator's command in the cluster's directory; standard output and error."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console.main", *arguments),
            cwd=self.directory,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), within_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert expect is None or process.returncode == expect, output.decode()
        return output.decode()

    def password(self, who: str) -> Secret:
        return Secret((self.secrets / who / "password").read_bytes())

    def kafka(self, who: str, **changes: object) -> KafkaSettings:
        """The bus as a principal reaches it from this host."""
        given: dict[str, object] = {
            "bootstrap": ",".join(f"127.0.0.1:{self.ports[f'KAFKA_{n}_PORT']}" for n in (1, 2, 3)),
            "user": who,
            "password": self.password(who),
            "session_timeout_s": 3.0,
            "ca_file": self.secrets / who / "ca.pem" if "compose.tls.yaml" in self.files else None,
        }
        return KafkaSettings(**{**given, **changes})  # type: ignore[arg-type]

    def store(self, who: str) -> RedisSettings:
        """The store, likewise."""
        password = quote(self.password(who).reveal().decode())
        scheme, options = "redis", ""
        if "compose.tls.yaml" in self.files:
            scheme, options = "rediss", f"?ssl_ca_certs={self.secrets / 'operator' / 'ca.pem'}"
        return RedisSettings(
            url=f"{scheme}://{who}:{password}@127.0.0.1:{self.ports['VALKEY_PORT']}/0{options}"
        )

    @property
    def codec(self) -> RecordCodec:
        """Opens what the KMS has stored."""
        return RecordCodec(Wrapping(key_file.read(self.secrets / "keys" / "keys.toml"), os.urandom))


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
