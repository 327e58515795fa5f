"""One cluster for all tests of this directory: from nothing to ready takes half a minute."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from chaos.servers import ROOT, choose_images
from tests.cluster.cluster import Cluster, wanted_users
from tests.servers import needs_docker, project_of


@pytest.fixture(scope="session")
def images() -> None:
    """otway's own images, of this tree."""
    needs_docker()
    choose_images()
    built = subprocess.run(
        ["docker", "compose", "build", "-q"],
        check=False,
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    measured: Callable[[str], None],
) -> Iterator[Cluster]:
    """All of compose.yaml, ready."""
    request.getfixturevalue("images")
    made = Cluster(
        project_of(os.getpid(), "cluster"),
        tmp_path_factory.mktemp("cluster"),
        settings={"USERS": wanted_users()},
    )
    made.secrets.mkdir()
    began = time.monotonic()
    with made.running():
        measured(f"cluster from nothing to ready: {time.monotonic() - began:.1f} s")
        yield made
