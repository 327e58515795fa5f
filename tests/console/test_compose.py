"""What compose.yaml gives each service: settings that there are, its own secrets, and nobody else's."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Final

import pytest

from chaos.lab import draw_functions
from console.settings import PREFIX, Settings
from protocol.names import Owner
from tests.servers import ROOT
from topics.access import principals

ONCE_OR_SERVER: Final = {"secrets", "setup", "kafka-1", "kafka-2", "kafka-3", "valkey"}


def services(name: str) -> dict[str, str]:
    """The text of each service, by its name."""
    [text] = re.findall(r"^services:\n(.*?)(?=^\S|\Z)", (ROOT / name).read_text(), re.DOTALL | re.MULTILINE)
    parts = re.split(r"^  ([a-z0-9-]+):", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


AGENTS: Final = {name: text for name, text in services("compose.yaml").items() if name not in ONCE_OR_SERVER}


def test_the_agents_are_all_there() -> None:
    roles = {"kms", "bsf", "cscf", "voicemail", "transcoder", "conference"}
    assert set(AGENTS) == roles | {"ue-alice", "ue-bob", "load"}
    tls = services("compose.tls.yaml")
    assert {name for name, text in tls.items() if "environment: *settings" in text} == {*AGENTS, "setup"}


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_has_its_own_name_and_secrets(name: str) -> None:
    [user] = re.findall(r"OTWAY_USER: ([a-z-]+)", AGENTS[name])
    assert user == ("ue-load" if name == "load" else name)
    assert user in principals(["alice", "bob", "load"])
    mounted = set(re.findall(r"\$\{SECRETS:-./secrets\}/([a-z-]+):", AGENTS[name]))
    assert mounted == {user} | ({"keys"} if name in {"kms", "bsf"} else set())
    assert "container_name" not in AGENTS[name]
    assert "ports:" not in AGENTS[name]


def test_every_setting_is_one() -> None:
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    for name in ("compose.yaml", "compose.tls.yaml"):
        lines = [line.partition("#")[0] for line in (ROOT / name).read_text().splitlines()]
        said = set(re.findall(r"\bOTWAY_[A-Z_]+(?=:)", "\n".join(lines)))
        assert said - {"OTWAY_VERSION"} <= known


def test_call_control_knows_the_functions_that_are_provisioned() -> None:
    identities = {device.owner: device.identity for device in draw_functions(bytes)}
    for setting, owner in (
        ("MAILBOX", Owner.MAILBOX),
        ("TRANSCODER", Owner.TRANSCODER),
        ("FOCUS", Owner.FOCUS),
    ):
        assert f"OTWAY_{setting}: {identities[owner]}\n" in AGENTS["cscf"]


def test_what_mixes_or_transcodes_is_in_the_image_with_the_media_libraries() -> None:
    with_media = {name for name, text in AGENTS.items() if "<<: *ue\n" in text}
    assert with_media == {"transcoder", "conference", "ue-alice", "ue-bob"}


def test_a_focus_has_a_key_file_of_its_own() -> None:
    assert "OTWAY_KEY_FILE: /run/secrets/otway/keys.toml" in AGENTS["conference"]
