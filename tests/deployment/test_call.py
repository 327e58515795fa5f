"""A call on real Kafka and Redis, each agent its own process, by what a user types."""

from __future__ import annotations

import json
import re
import stat

import pytest

from media.likeness import likeness
from media.samples import callee_sample, caller_sample, tone
from media.wav import read_sound, write_wav
from tests.deployment.network import Network

pytestmark = pytest.mark.servers


async def test_a_call_between_processes(network: Network) -> None:
    await network.set_up("alice", "bob")
    for role in ("kms", "bsf", "cscf"):
        await network.run(role, role)
    await network.run("bob", "ue", "--host", "bob", "--users", "users.toml", "--heard", "heard")
    await network.run("alice", "ue", "--host", "alice", "--users", "users.toml")
    said = await network.otway("call", "alice", "bob", "--out", "out")
    assert "INVITE" in said
    assert "up after" in said
    outcome = json.loads((network.directory / "out" / "call.json").read_text())
    assert outcome["confirmed"]
    for media in outcome["statistics"].values():
        assert media["received"] > 240
        assert media["refused"] == 0
    assert likeness(read_sound(network.directory / "out" / "alice-heard.wav"), callee_sample()) > 0.9
    assert likeness(read_sound(network.directory / "out" / "bob-heard.wav"), caller_sample()) > 0.9

    write_wav(network.directory / "mine.wav", tone(620, 2.0))
    second = json.loads(
        await network.otway("call", "alice", "sip:bob@ims.example", "--wav", "mine.wav", "--json")
    )
    assert second["confirmed"]
    assert second["call"] != outcome["call"]

    stopped = await network.stop("bob")
    assert "stopped" in stopped
    heard = [read_sound(path) for path in (network.directory / "heard").iterdir()]
    assert max(likeness(sound, caller_sample()) for sound in heard) > 0.9
    assert max(likeness(sound, tone(620, 2.0)) for sound in heard) > 0.9
    logs = stopped
    for name in ("alice", "kms", "bsf", "cscf"):
        logs += await network.stop(name)
    assert logs.count("stopped") == 5
    files = "".join((network.directory / name).read_text() for name in ("users.toml", "secrets/keys.toml"))
    secrets = re.findall(r"[0-9a-f]{32,}", files)
    assert len(secrets) == 8
    assert not any(secret in logs + said for secret in secrets)

    shown = await network.otway("topics", "tail", "ims.audit", "--from-beginning", "--count", "1")
    assert "ims.audit/" in shown
    told = json.loads(
        await network.otway("topics", "tail", "ims.reports", "--from-beginning", "--count", "1", "--json")
    )  # an inbox may begin with what a test of malformed records has left there
    assert told["topic"] == "ims.reports"
    assert told["message"]["type"]

    assert "is it running?" in await network.otway("call", "alice", "bob", expect=1)
    nobody = await network.otway("call", "alice", "carol", expect=1)
    assert "nobody is called 'carol'" in nobody
    assert "Traceback" not in nobody


async def test_what_a_user_does_wrong_is_told_in_a_line(network: Network) -> None:
    assert "`otway keys init`" in await network.otway("run", "kms", expect=1)
    assert "`otway keys init`" in await network.otway("doctor", expect=1)
    await network.otway("keys", "init")
    keys = network.directory / "secrets" / "keys.toml"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    before = keys.read_bytes()
    assert "nothing was changed" in await network.otway("keys", "init", expect=1)
    assert keys.read_bytes() == before
    assert "users.toml" in await network.otway("provision", "users.toml", expect=1)
    await network.otway("provision", "users.toml", "--draw", "alice", "--draw", "bob")
    assert stat.S_IMODE((network.directory / "users.toml").stat().st_mode) == 0o600
    assert "is there already" in await network.otway("provision", "users.toml", "--draw", "eve", expect=1)

    keys.rename(keys.with_name("right.toml"))
    await network.otway("keys", "init")
    wrong = await network.otway("provision", "users.toml", expect=1)
    assert "wrapped under key" in wrong
    assert "key file of this store" in await network.otway("doctor", expect=1)
    keys.unlink()
    keys.with_name("right.toml").rename(keys)
    assert "7 as they were" in await network.otway("provision", "users.toml")

    assert "--host" in await network.otway("run", "ue", "--host", "carol", "--users", "users.toml", expect=1)
    network.environment["OTWAY_PROFILE"] = "literal"
    assert "--lab" in await network.otway("run", "kms", expect=1)
    network.environment["OTWAY_PROFILE"] = "hardened"
    network.environment["OTWAY_KAFKA"] = "127.0.0.1:1"
    for command in (("run", "kms"), ("topics", "list"), ("call", "alice", "bob")):
        said = await network.otway(*command, expect=1)
        assert "127.0.0.1:1" in said
        assert "Traceback" not in said
    network.environment["OTWAY_KAFKAA"] = "x"
    assert "OTWAY_KAFKAA" in await network.otway("doctor", expect=1)


async def test_doctor_is_content_with_a_deployment_that_is_set_up(network: Network) -> None:
    await network.set_up("alice", "bob")
    found = [json.loads(line) for line in (await network.otway("doctor", "--json")).splitlines()]
    assert {each["about"] for each in found} == {
        "broker",
        "topics",
        "key file",
        "store",
        "clock",
        "subscribers",
    }
    assert all(each["advice"] is None for each in found)
    listed = [json.loads(line) for line in (await network.otway("topics", "list", "--json")).splitlines()]
    assert {"ims.kms", "ims.audit", "ims.ue.alice"} <= {each["name"] for each in listed}
    network.environment["OTWAY_STORE"] = "redis://:hunter2@127.0.0.1:1/0"
    said = await network.otway("doctor", expect=1)
    assert "hunter2" not in said
    assert "OTWAY_STORE" in said


async def test_the_literal_profile_says_so_on_every_line_of_its_log(network: Network) -> None:
    await network.set_up("alice", "bob")
    network.environment |= {"OTWAY_PROFILE": "literal", "OTWAY_LOG": "json"}
    await network.run("kms", "kms", "--lab")
    said = await network.stop("kms")
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines
    assert all(line["profile"] == "literal" for line in lines)
