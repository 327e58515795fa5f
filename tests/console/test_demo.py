"""`otway demo`, as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.tampering import Part
from console.scenarios.call import CallDemo, DemoSettings, Outcome, account
from media.likeness import likeness
from media.samples import callee_sample, caller_sample, tone
from media.wav import read_sound, write_wav
from protocol.checks import Check
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import LITERAL
from tests.agents.scene import NOW
from tests.console.conftest import AllScenarios
from tests.console.typed import told_by
from tests.servers import ROOT


def otway(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTWAY_")}
    return subprocess.run(
        [sys.executable, "-m", "console.main", *arguments],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def demo(settings: DemoSettings) -> tuple[Outcome, list[str]]:
    """In this process, with real randomness and a clock that stands still."""
    lines: list[str] = []
    call = CallDemo(settings, clock=lambda: NOW, random=os.urandom, show=lines.append)
    outcome = asyncio.run(call.run())
    return outcome, lines + account(outcome)


def test_a_newcomer_runs_it(tmp_path: Path) -> None:
    ran = otway("demo", "call", "--out", "kept", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for said in ("INVITE", "token_a token_b", "200 OK", "who can decrypt", "is up after", "it made K"):
        assert said in ran.stdout
    kept = tmp_path / "kept"
    assert {path.name for path in kept.iterdir()} == {
        "alice-heard.wav",
        "bob-heard.wav",
        "ladder.txt",
        "call.json",
    }
    assert likeness(read_sound(kept / "bob-heard.wav"), caller_sample()) > 0.9
    assert likeness(read_sound(kept / "alice-heard.wav"), callee_sample()) > 0.9
    outcome = json.loads((kept / "call.json").read_text())
    assert outcome["confirmed"]
    assert {each["party"]: set(each["voices"].values()) for each in outcome["access"]} == {
        "alice": {True},
        "bob": {True},
        "kms": {True},
        "bsf": {False},
        "cscf": {False},
        "wiretap": {False},
    }
    assert all(side["on_the_wire"] < 0.1 < 0.9 < side["likeness"] for side in outcome["heard"])
    assert (kept / "ladder.txt").read_text() in ran.stdout + "\n"


def access_in(outcome: dict[str, Any]) -> dict[str, set[bool]]:
    """Which parties could decrypt all voices, none, or some."""
    return {each["party"]: set(each["voices"].values()) for each in outcome["access"]}


def test_all_scenarios_in_turn(all_scenarios: AllScenarios) -> None:
    assert all_scenarios.ran.returncode == 0, all_scenarios.ran.stdout + all_scenarios.ran.stderr
    call, fork, voicemail = (all_scenarios.outcomes[name] for name in ("call", "fork", "voicemail"))
    outsiders = {"bsf": {False}, "cscf": {False}, "wiretap": {False}}
    assert access_in(call) == {"alice": {True}, "bob": {True}, "kms": {True}, **outsiders}

    [loser] = fork["lost"]
    assert {loser, fork["answered_by"]} == {"bob", "bob-2"}
    insiders = {"alice": {True}, fork["answered_by"]: {True}, "kms": {True}}
    assert access_in(fork) == {**insiders, loser: {False}, **outsiders}
    assert fork["keys_differ"]
    assert fork["kms_still_holds"] == {loser: False, fork["answered_by"]: True}
    assert min(fork["heard"].values()) > 0.9

    insiders = {"alice": {True}, "bob-2": {True}, "kms": {True}}
    assert access_in(voicemail) == {**insiders, "voicemail": {False}, **outsiders}
    assert voicemail["whole"]
    assert voicemail["collected"]
    assert voicemail["left_in_the_mailbox"] == 0
    kept = all_scenarios.kept
    assert likeness(read_sound(kept / "voicemail" / "voicemail-heard.wav"), caller_sample()) > 0.9
    assert {path.name for path in kept.iterdir()} == set(all_scenarios.outcomes)


@pytest.mark.parametrize(
    ("suite", "srtp"),
    [
        (Suite.AES_256_GCM, SrtpSuite.AES_CM_128_HMAC_SHA1_80),
        (Suite.CHACHA20_POLY1305, SrtpSuite.AEAD_AES_256_GCM),
    ],
)
def test_suites(suite: Suite, srtp: SrtpSuite) -> None:
    outcome, _ = demo(DemoSettings(suite=suite, srtp_suites=(srtp,), sound=tone(500, 1.0)))
    assert outcome.good
    assert (outcome.suite, outcome.srtp_suite) == (suite.name.replace("_", "-"), srtp)


def test_the_literal_profile_is_for_the_lab(tmp_path: Path) -> None:
    refused = otway("demo", "call", "--profile", "literal", cwd=tmp_path)
    assert refused.returncode == 1
    assert "--lab" in refused.stderr
    assert "Traceback" not in refused.stderr
    outcome, lines = demo(DemoSettings(profile=LITERAL, sound=tone(500, 1.0)))
    assert outcome.good
    assert "literal" in "\n".join(lines)


NOTICED = {
    Part.TOKEN_A: ("kms", Check.OR_04),
    Part.TOKEN_B: ("kms", Check.OR_05),
    Part.GRANT_B: ("bob", Check.OR_20),
    Part.GRANT_A: ("alice", Check.OR_20),
    Part.ANSWER: ("alice", Check.OR_24),
    Part.CONFIRM_B: ("alice", Check.OR_25),
    Part.CONFIRM_A: ("bob", Check.OR_25),
    Part.SETTLED: ("kms", Check.OR_17),
    Part.BYE: ("bob", Check.OR_25),
    Part.SRTP: (None, Check.OR_28),
}


@pytest.mark.parametrize("part", Part)
def test_one_bit_of_each_part_is_noticed(part: Part) -> None:
    """What a user sees of it; the checks themselves are tested in tests/agents and tests/media."""
    outcome, lines = demo(DemoSettings(tampered=part, sound=tone(500, 0.1)))
    party, check = NOTICED[part]
    assert outcome.refused is not None
    assert outcome.refused.check == check
    assert party is None or outcome.refused.party == party
    assert not outcome.good
    assert f"one bit of {part} was changed" in "\n".join(lines)


def test_exit_code_of_a_tampered_call(tmp_path: Path) -> None:
    ran = otway("demo", "call", "--tamper", "grant_a", "--json", cwd=tmp_path)
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["refused"]["check"] == "OR-20"


def test_ones_own_speech(tmp_path: Path) -> None:
    write_wav(tmp_path / "mine.wav", tone(777, 1.0))
    ran = otway("demo", "call", "--wav", "mine.wav", "--out", ".", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert likeness(read_sound(tmp_path / "bob-heard.wav"), tone(777, 1.0)) > 0.9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("demo", "--wav", "nothing.wav"), "nothing.wav"),
        (("demo", "nonsense"), "voicemail"),
        (("demo", "fork", "--tamper", "token_a"), "otway demo call"),
        (("demo", "conference", "--wav", "mine.wav"), "pitch"),
        (("demo", "call", "--tamper", "nonsense"), "token_a"),
        (("nonsense",), "nonsense"),
        (("sim", "--seeds", "0"), "seeds"),
    ],
    ids=str,
)
def test_a_mistake_is_told_without_a_traceback(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    ran = otway(*arguments, cwd=tmp_path)
    assert ran.returncode in {1, 2}
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_every_command_has_help(tmp_path: Path) -> None:
    commands = [
        (),
        ("demo",),
        ("run",),
        ("call",),
        ("mailbox",),
        *(("run", each) for each in ("voicemail", "transcoder", "conference", "ue")),
        *(("conference", each) for each in ("create", "join", "leave", "remove", "end", "show")),
        *(("releases", each) for each in ("list", "revoke")),
        ("doctor",),
        ("sim",),
        ("provision",),
        *(("topics", each) for each in ("create", "list", "tail")),
        *(("keys", each) for each in ("init", "add", "promote")),
    ]
    for told in told_by([[*command, "--help"] for command in commands], tmp_path):
        assert told.code == 0
        assert len(told.said.splitlines()) > 5


def test_sim_says_how_a_seed_is_seen_again(tmp_path: Path) -> None:
    ran = otway("sim", "--seeds", "20", cwd=tmp_path)
    assert ran.returncode == 0
    assert "20 seeds, 0 failed" in ran.stderr
    story = otway("sim", "--seed", "3", cwd=tmp_path)
    assert story.returncode == 0
    assert "INVITE" in story.stdout
    assert otway("sim", "--seed", "3", cwd=tmp_path).stdout == story.stdout
