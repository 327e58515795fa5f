"""Kafka and Valkey of compose.yaml for the tests, under a project name of this run only."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PREFIX: Final = "otway-test-"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they are, and how to break them."""

    kafka: str
    redis_url: str
    project: str

    def compose(self, *arguments: str) -> str:
        """A compose command on this run's project. Raises CalledProcessError."""
        command = ["docker", "compose", "-f", str(ROOT / "compose.yaml"), "-p", self.project, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def project_of(pid: int) -> str:
    """The compose project of one run of the tests."""
    return f"{_PREFIX}{pid}"


def docker_problem() -> str | None:
    """Why no servers can be had; None when they can."""
    try:
        subprocess.run(["docker", "info"], check=True, capture_output=True, timeout=30)
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.SubprocessError:
        return "no Docker engine with the compose plugin answers"
    return None


def choose_images() -> None:
    """Take the images that deploy/airgap has built, where nobody chose others and they are there."""
    for line in (ROOT / "deploy" / "airgap" / "images.env").read_text().splitlines():
        name, _, image = line.partition("=")
        known = subprocess.run(["docker", "image", "inspect", image], check=False, capture_output=True)
        if known.returncode == 0:
            os.environ.setdefault(name, image)


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove_leftovers() -> None:
    """Take down the servers of runs that were killed."""
    listed = subprocess.run(
        ["docker", "ps", "-a", "--format", '{{.Label "com.docker.compose.project"}}'],
        check=True,
        capture_output=True,
        text=True,
    )
    for project in set(listed.stdout.split()):
        pid = project.removeprefix(_PREFIX)
        if project.startswith(_PREFIX) and pid.isdigit() and not Path("/proc", pid).exists():
            Servers("", "", project).compose("down", "-v", "--timeout", "5")
