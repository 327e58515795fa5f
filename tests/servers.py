"""Whether there can be servers, and what is left of those of runs that were killed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from chaos.servers import ROOT, Servers

__all__ = ["ROOT", "Servers", "docker_problem", "project_of", "remove_leftovers"]

_PREFIX: Final = "otway-test-"


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
            Servers(project, "", "").compose("down", "-v", "--timeout", "5")
