"""Whether there can be servers, and that nothing is left of them, also when a run was killed.

python -m tests.servers PID       waits until that process has ended, then removes what is left of its servers
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

from chaos.servers import ROOT, Servers

__all__ = ["ROOT", "Servers", "needs_docker", "project_of"]

_PREFIX: Final = "otway-test-"
_LABEL: Final = "com.docker.compose.project"
_watchers: Final[list[subprocess.Popen[bytes]]] = []  # kept, so that nobody complains that one still runs


def project_of(pid: int, part: str = "") -> str:
    """The compose project of one run of the tests. part: of a second set of servers in the same run."""
    return f"{_PREFIX}{pid}{part and f'-{part}'}"


@lru_cache
def needs_docker() -> None:
    """Says clearly what does not run where there is no Docker; with CI=true that is a failure."""
    problem = _problem()
    if problem is not None and os.environ.get("CI") == "true":
        pytest.fail(f"CI needs real servers, and {problem}", pytrace=False)
    if problem is not None:
        pytest.skip(f"not run, because it needs real servers, and {problem}")
    _remove_leftovers()
    _watchers.append(_watcher())


def _watcher() -> subprocess.Popen[bytes]:
    """It outlives this process, however that ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers", str(os.getpid())],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _problem() -> str | None:
    """Why no servers can be had; None when they can."""
    try:
        subprocess.run(["docker", "info"], check=True, capture_output=True, timeout=30)
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.SubprocessError:
        return "no Docker engine with the compose plugin answers"
    return None


def _remove_leftovers() -> None:
    """What runs have left whose process is no more."""
    for project in {*_listed("ps", "-a"), *_listed("volume", "ls"), *_listed("network", "ls")}:
        pid = project.removeprefix(_PREFIX).partition("-")[0]
        if project.startswith(_PREFIX) and pid.isdigit() and not Path("/proc", pid).exists():
            _remove(project)


def _listed(*what: str) -> set[str]:
    """The compose projects of all containers, volumes or networks."""
    return set(_docker(*what, "--format", f'{{{{.Label "{_LABEL}"}}}}'))


def _remove(project: str) -> None:
    for listing, removal in (
        (("ps", "-aq"), ("rm", "-f", "-v")),
        (("volume", "ls", "-q"), ("volume", "rm", "-f")),
        (("network", "ls", "-q"), ("network", "rm")),
    ):
        found = _docker(*listing, "--filter", f"label={_LABEL}={project}")
        if found:
            _docker(*removal, *found)


def _docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    return done.stdout.split()


def _main(pid: str) -> None:
    while Path("/proc", pid).exists():
        time.sleep(1)
    _remove_leftovers()


if __name__ == "__main__":
    _main(sys.argv[1])
