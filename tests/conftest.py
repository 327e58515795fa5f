"""The servers that some tests need: real ones, started once for each run by pytest-docker."""

from __future__ import annotations

import os

import pytest

from tests import servers as test_servers
from tests.servers import ROOT, Servers


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the golden transcripts anew")


@pytest.fixture(scope="session")
def docker_compose_file() -> str:
    return str(ROOT / "compose.yaml")


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return test_servers.project_of(os.getpid())


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up -d --wait --wait-timeout 180"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down -v --timeout 5"]


@pytest.fixture(scope="session")
def _docker() -> None:
    """Says clearly what does not run where there is no Docker; with CI=true that is a failure."""
    problem = test_servers.docker_problem()
    if problem is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs the servers of compose.yaml, and {problem}", pytrace=False)
        pytest.skip(f"not run, because it needs the servers of compose.yaml, and {problem}")
    test_servers.choose_images()
    test_servers.remove_leftovers()
    for name in ("KAFKA_PORT", "VALKEY_PORT"):
        os.environ[name] = str(test_servers.free_port())


@pytest.fixture(scope="session")
def servers(_docker: None, request: pytest.FixtureRequest, docker_compose_project_name: str) -> Servers:
    """Running Kafka and Valkey."""
    request.getfixturevalue("docker_services")
    return Servers(
        kafka=f"127.0.0.1:{os.environ['KAFKA_PORT']}",
        redis_url=f"redis://127.0.0.1:{os.environ['VALKEY_PORT']}/0",
        project=docker_compose_project_name,
    )
