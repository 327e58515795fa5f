"""`otway demo` as a whole, run once for all tests that look at it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT


@dataclass(frozen=True)
class AllScenarios:
    """What has come of `otway demo --json --out kept`."""

    ran: subprocess.CompletedProcess[str]
    kept: Path

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """By scenario."""
        names = ("call", "fork", "voicemail", "transcode", "conference", "renew")
        lines = self.ran.stdout.splitlines()
        return {name: json.loads(line) for name, line in zip(names, lines, strict=True)}


@pytest.fixture(scope="session")
def all_scenarios(tmp_path_factory: pytest.TempPathFactory) -> AllScenarios:
    cwd = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTWAY_")}
    ran = subprocess.run(
        [sys.executable, "-m", "console.main", "demo", "--out", "kept", "--json"],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    return AllScenarios(ran, cwd / "kept")
