"""The servers that some tests need: real ones, started once for each run by pytest-docker."""

from __future__ import annotations

import os

import pytest

from chaos.servers import ROOT, Servers, place
from tests.servers import docker_problem, project_of, remove_leftovers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the golden transcripts anew")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "deploy" / "servers.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return project_of(os.getpid())


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up -d --wait --wait-timeout 180"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down -v --timeout 5"]


@pytest.fixture(scope="session")
def _placed(docker_compose_project_name: str) -> Servers:
    """Says clearly what does not run where there is no Docker; with CI=true that is a failure."""
    problem = docker_problem()
    if problem is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the servers of deploy/servers.yaml, and {problem}", pytrace=False)
        pytest.skip(f"not run, because it needs the servers of deploy/servers.yaml, and {problem}")
    remove_leftovers()
    return place(docker_compose_project_name)


@pytest.fixture(scope="session")
def servers(_placed: Servers, request: pytest.FixtureRequest) -> Servers:
    """Running Kafka and Valkey."""
    request.getfixturevalue("docker_services")
    return _placed
