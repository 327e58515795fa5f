"""`otway conference` and `otway releases` without servers: what is told, and mistakes in a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

from chaos.lab import draw_focus, draw_town
from console.calls.conferences import Attendance, Standing
from storage.users_file import write_directory, write_users
from tests.console.typed import Told, python, told_by

G = "0" * 30 + "ab"
FOCUS = "sip:conference@ims.example"
ALICE, BOB = "sip:alice@ims.example", "sip:bob@ims.example"
TOWN = draw_town(["alice", "bob"], os.urandom)


def standing(**fields: Any) -> Standing:
    about: dict[str, Any] = {
        "group": G,
        "focus": FOCUS,
        "epoch": 3,
        "roster": (ALICE, BOB, FOCUS),
        "in_use": (ALICE,),
        "speakers": (ALICE,),
        "instance": "conference-1",
        "not_after": 1_800_000_000,
    }
    return Standing(**{**about, **fields})


def test_who_is_in_who_speaks_and_who_mixes() -> None:
    head, *members = standing().lines()
    for part in (G, FOCUS, "epoch 3 until 2027-01-15T08:00:00Z", "mixed by conference-1"):
        assert part in head
    assert [member.split() for member in members] == [
        [ALICE, "speaks"],
        [BOB, "not", "yet", "in", "this", "epoch"],
        [FOCUS, "mixes"],
    ]
    assert standing(epoch=0, roster=(), not_after=None, instance=None).lines() == [
        f"conference {G} at {FOCUS}: epoch 0",
        "  nobody is in",
    ]


@pytest.mark.parametrize(
    ("joined", "told", "reason", "line"),
    [
        (True, True, None, f"alice-1 is in, epoch 3: {ALICE}, {FOCUS}"),
        (False, True, "not-permitted", "alice-1 is out: not-permitted"),
        (False, False, "no answer of the focus", "alice-1 may be in or out: no answer of the focus"),
    ],
)
def test_what_became_of_a_handset(*, joined: bool, told: bool, reason: str | None, line: str) -> None:
    attendance = Attendance(
        identity=ALICE,
        device="alice-1",
        joined=joined,
        told=told,
        epoch=3 if joined else None,
        roster=(ALICE, FOCUS) if joined else (),
        reason=reason,
        call=None,
    )
    assert attendance.line() == line
    assert attendance.left is (told and not joined)


MISTAKES: Final = {
    ("conference", "show", "zz"): "'zz' is no conference: 32 hexadecimal digits",
    ("conference", "show", G[2:]): "is no conference",
    ("conference", "join", "alice", "carol", G): "nobody is called 'carol'",
    ("conference", "leave", "conference", G): "nobody is called 'conference'",
    ("conference", "remove", "carol", G): "nobody is called 'carol'",
    ("conference", "create", "--directory", "listed.toml"): "listed.toml names 0 focuses: set OTWAY_FOCUS",
    ("conference", "create", "--focus", "conference"): "'conference' is no identity",
    ("conference", "show", G): "Kafka at 127.0.0.1:9",
    ("releases", "revoke", "alice", G): "'alice' is no identity",
    ("releases", "revoke", ALICE, "0g"): "'0g' is no call's name",
    ("releases", "list"): "Kafka at 127.0.0.1:9",
    ("run", "transcoder"): '0 devices with kind = "transcoder"',
    ("run", "conference"): "secrets/keys.toml is not there",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Told]:
    """Where a users file has a focus, and another one has none."""
    directory = tmp_path_factory.mktemp("mistakes")
    (directory / "users.toml").write_text(write_users((*TOWN, draw_focus(os.urandom))))
    (directory / "listed.toml").write_text(write_directory(TOWN))
    return dict(zip(MISTAKES, told_by(list(MISTAKES), directory), strict=True))


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_a_mistake_is_told_in_a_line(arguments: tuple[str, ...], told: dict[tuple[str, ...], Told]) -> None:
    outcome = told[arguments]
    assert outcome.code == 1
    assert outcome.wrong.startswith("otway: ")
    assert MISTAKES[arguments] in outcome.wrong
    assert "Traceback" not in outcome.wrong


WITHOUT_MEDIA = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "av" else real(name, *more)
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"av", "numpy", "pylibsrtp"}:
            raise ModuleNotFoundError(f"no {name} in this image")
sys.meta_path.insert(0, Blocked())
from console.main import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--help",), 0, "conference"),
        (("run", "--help"), 0, "voicemail"),
        (("releases", "--help"), 0, "revoke"),
        (("conference",), 1, "no media libraries"),
    ],
    ids=str,
)
def test_an_image_of_a_network_role_needs_no_media_libraries(
    arguments: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    ran = python(WITHOUT_MEDIA, *arguments, cwd=tmp_path)
    assert ran.returncode == code, ran.stderr
    assert told in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
