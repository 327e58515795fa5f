"""Kafka and Valkey of deploy/servers.yaml for a benchmark or a test: a project and ports of their own."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they are. project: compose's name for them."""

    project: str
    kafka: str
    redis_url: str

    def compose(self, *arguments: str) -> str:
        """A compose command on these servers. Raises CalledProcessError, FileNotFoundError."""
        command = [
            "docker",
            "compose",
            "-f",
            str(ROOT / "deploy" / "servers.yaml"),
            "-p",
            self.project,
            *arguments,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def pid(self, service: str) -> int:
        """The process on this machine that is a service's container's first."""
        container = self.compose("ps", "-q", service).strip()
        command = ["docker", "inspect", "-f", "{{.State.Pid}}", container]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def choose_images() -> None:
    """Those of deploy/airgap, if they are there and nobody chose others, into the environment for compose."""
    for line in (ROOT / "deploy" / "airgap" / "images.env").read_text().splitlines():
        name, _, image = line.partition("=")
        known = subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True)
        if known.returncode == 0:
            os.environ.setdefault(name, image)


def place(project: str) -> Servers:
    """Choose images and free ports, and leave both in the environment. Nothing is started."""
    choose_images()
    for name in ("KAFKA_PORT", "VALKEY_PORT"):
        os.environ[name] = str(free_port())
    return Servers(
        project,
        f"127.0.0.1:{os.environ['KAFKA_PORT']}",
        f"redis://127.0.0.1:{os.environ['VALKEY_PORT']}/0",
    )


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
