"""The servers that some tests need: real ones, started once for each run by pytest-docker."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import pytest

from chaos.servers import ROOT, Servers, place
from tests.servers import needs_docker, project_of

MEASURED: Final = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the golden transcripts anew")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MEASURED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[MEASURED]:
        terminalreporter.write_line(f"measured: {line}")


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line for the end of the run: what a test has seen that is no verdict."""
    return request.config.stash[MEASURED].append


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
    needs_docker()
    return place(docker_compose_project_name)


@pytest.fixture(scope="session")
def servers(_placed: Servers, request: pytest.FixtureRequest) -> Servers:
    """Running Kafka and Valkey."""
    request.getfixturevalue("docker_services")
    return _placed
