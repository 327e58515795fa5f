"""Commands as a user types them, many in one process: each would take a second to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers import ROOT

_EACH_IN_TURN: Final = """
import contextlib, io, json, sys
from console.main import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["otway", *arguments]
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        try:
            main()
        except SystemExit as ended:
            told.append([ended.code, said.getvalue(), wrong.getvalue()])
print(json.dumps(told))
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What has come of one command."""

    code: int
    said: str
    wrong: str  # on standard error


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run this code, where nothing answers as Kafka."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTWAY_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**environment, "OTWAY_KAFKA": "127.0.0.1:9", "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def told_by(commands: Sequence[Sequence[str]], cwd: Path) -> list[Told]:
    """Each command's outcome."""
    ran = python(_EACH_IN_TURN, json.dumps(commands), cwd=cwd)
    assert ran.returncode == 0, ran.stderr
    return [Told(*outcome) for outcome in json.loads(ran.stdout)]
