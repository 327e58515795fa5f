"""What the layout promises: who imports whom, no clock and no chance where none belongs."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest

from protocol.checks import Check
from tests.servers import ROOT

PACKAGES = ("agents", "chaos", "console", "media", "protocol", "storage", "topics")
MAY_IMPORT = {
    "protocol": {"protocol"},
    "topics": {"topics", "protocol"},
    "storage": {"storage", "protocol"},
    "media": {"media", "protocol"},
    "agents": {"agents", "protocol", "topics", "storage", "media"},
    "chaos": {"chaos", "agents", "protocol", "topics", "storage", "media"},
    "console": set(PACKAGES),
}
IO = {"asyncio", "time", "os", "random", "secrets", "socket", "datetime", "aiokafka", "redis", "structlog"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The first part of each module that is imported."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_who_imports_whom(package: str) -> None:
    for path in modules(package):
        ours = imports(path) & set(PACKAGES)
        assert ours <= MAY_IMPORT[package], path
        assert "tests" not in imports(path), path


def test_nothing_that_decides_can_look_at_a_clock_or_draw() -> None:
    decides = [path for path in modules("agents") if path.name != "runtime.py"] + modules("protocol")
    for path in decides:
        assert not imports(path) & IO, path


def test_chance_comes_in_at_one_place() -> None:
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if re.search(r"[=(] *os\.urandom\b", path.read_text()) or imports(path) & {"secrets", "uuid"}
    ]
    assert found == [
        "chaos/bench.py",
        "chaos/bench_clients.py",
        "chaos/bench_expiry.py",
        "chaos/bench_rekey.py",
        "console/outside.py",
    ]


def test_nobody_else_in_the_environment_claims_our_names() -> None:
    for distribution in distributions():
        if distribution.metadata["Name"] == "otway":
            continue
        names = {str(file).partition("/")[0] for file in distribution.files or ()}
        assert not names & set(PACKAGES), distribution.metadata["Name"]


@pytest.mark.parametrize("check", Check)
def test_every_check_is_in_the_page_in_the_code_and_in_a_tests_name(check: Check) -> None:
    assert f"| {check} |" in (ROOT / "docs" / "protocol.md").read_text()
    code = [
        path
        for package in ("agents", "protocol", "media", "topics")
        for path in modules(package)
        if path.name != "checks.py" and re.search(rf"#.*\b{check}\b", path.read_text())
    ]
    assert code, f"no line of code is marked {check}"
    name = f"or_{check.removeprefix('OR-')}"
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if f"{name}_" in path.read_text()]
    assert tests, f"no test is named after {check}"


def test_every_file_is_in_the_architecture_page() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    missing = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in modules(package)
        if path.name != "__init__.py"
        and f"`{path.name}`" not in page
        and f"`{path.relative_to(ROOT)}`" not in page
    ]
    assert missing == []


def test_no_registry_host_and_no_secret_file_is_in_the_repository() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    names = files.stdout.split()
    assert not [name for name in names if name.startswith("secrets/") or name.endswith("users.toml")]
