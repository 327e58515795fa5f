"""A conference and a transcoded call by what is typed, each agent its own process, on real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import numpy as np
import pytest
import pytest_asyncio

from media.pcm import SAMPLE_HZ, Pcm
from media.samples import caller_sample
from media.wav import read_sound, write_wav
from tests.deployment.network import Network
from tests.servers import Servers
from topics.catalogue import AUDIT
from topics.messages import Audit, AuditEvent, ReportEvent

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

FOCUS: Final = "sip:conference@ims.example"
TRANSCODER: Final = "sip:transcoder@ims.example"
ALICE, BOB, CAROL = (f"sip:{name}@ims.example" for name in ("alice", "bob", "carol"))
NOBODYS: Final = "00" * 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """Alice has a host of her own, bob and carol share one, which speaks nothing but Opus."""
    network = Network(servers, tmp_path_factory.mktemp("town"))
    await network.set_up("alice", "bob", "carol@bob")
    settings = {
        "OTWAY_TRANSCODER": TRANSCODER,
        "OTWAY_FOCUS": FOCUS,
        "OTWAY_PERMITS": "deferred,transcode",
        "OTWAY_LINES": "8",
    }
    network.environment.update(settings)
    try:
        async with network.overhear() as overheard:
            async with asyncio.TaskGroup() as starting:
                for role in ("kms", "bsf", "cscf", "transcoder", "conference"):
                    starting.create_task(network.run(role, role))
                starting.create_task(run_host(network, "alice", "440"))
            network.environment["OTWAY_CODECS"] = "opus"
            await run_host(network, "bob", "620")
            for device in ("alice-1", "bob-1", "carol-1"):
                await overheard.until_told(f"{device}@ims.example", ReportEvent.REGISTERED)
        yield network
        assert "Traceback" not in await network.leave()
    finally:
        await network.stop_all()


async def run_host(network: Network, host: str, hertz: str) -> None:
    await network.run(host, "ue", "--host", host, "--users", "users.toml", "--hertz", hertz)


async def conference(town: Network, *arguments: str) -> Any:
    """What `otway conference` tells a program."""
    return json.loads(await town.otway("conference", *arguments, "--json"))


async def test_members_come_and_go(town: Network) -> None:
    group = (await town.otway("conference", "create")).strip()
    assert len(bytes.fromhex(group)) == 16
    assert (await conference(town, "show", group))["roster"] == []

    joined = await conference(town, "join", "alice", "bob", "carol", group)
    assert [(each["identity"], each["joined"]) for each in joined] == [
        (ALICE, True),
        (BOB, True),
        (CAROL, True),
    ]
    everybody = sorted([ALICE, BOB, CAROL, FOCUS])
    shown = await conference(town, "show", group)
    assert (shown["focus"], shown["roster"]) == (FOCUS, everybody)
    [again] = await conference(town, "join", "alice", group)
    assert (again["joined"], again["epoch"]) == (True, shown["epoch"])

    left = await conference(town, "leave", "alice", group, "--out", "heard")
    assert (left["joined"], left["told"]) == (False, True)
    heard = read_sound(town.directory / "heard" / "alice-1-heard.wav")
    assert loudest_hertz(heard) == pytest.approx(620, abs=5), "the others, and not herself"
    refused = await town.otway("conference", "leave", "alice", group, expect=1)
    assert "is not in" in refused

    without = await conference(town, "remove", "carol", group)
    assert without["roster"] == [BOB, FOCUS]
    assert without["epoch"] > shown["epoch"]
    assert "is not in" in await town.otway("conference", "remove", "carol", group, expect=1)
    [back] = json.loads(await town.otway("conference", "join", "carol", group, "--json", expect=1))
    assert (back["joined"], back["told"]) == (False, True)

    assert (await conference(town, "end", group))["ended"]
    for command in (("show", group), ("end", NOBODYS), ("show", NOBODYS), ("join", "alice", NOBODYS)):
        told = await town.otway("conference", *command, expect=None)
        assert "there is no conference" in told, command
        assert "Traceback" not in told


async def test_a_transcoder_is_listed_and_put_out(town: Network) -> None:
    write_wav(town.directory / "said.wav", caller_sample()[:40_000])
    arguments = ("call", "alice", "bob", "--wav", "said.wav", "--json", "--seconds", "100")
    async with town.overhear(AUDIT) as overheard:
        calling = asyncio.create_task(town.otway(*arguments))

        def released() -> bool:
            noted = [message for _, message in overheard.passed if isinstance(message, Audit)]
            return any(audit.event is AuditEvent.RELEASED for audit in noted)

        await overheard.until(released, "leg keys for the transcoder")
    [release] = map(json.loads, (await town.otway("releases", "list", "--json")).splitlines())
    assert (release["caller"], release["callee"], release["transcoder"]) == (ALICE, BOB, TRANSCODER)
    assert (release["run"], release["state"]) == (0, "live")
    revoked = await town.otway("releases", "revoke", ALICE, release["call"])
    assert f"call {release['call']} of {ALICE}: revoked" in revoked
    told = await town.otway("releases", "list", "--all", "--json")
    assert [json.loads(line)["state"] for line in told.splitlines()] == ["revoked"]
    outcome = json.loads(await calling)
    assert (outcome["confirmed"], outcome["transcoder"]) == (True, TRANSCODER)
    assert outcome["ended"] == "no-transcoder"
    nothing = await town.otway("releases", "revoke", BOB, release["call"], expect=1)
    assert "nothing was revoked: not-found" in nothing


def loudest_hertz(sound: Pcm) -> float:
    """The frequency of the loudest tone."""
    return float(np.argmax(np.abs(np.fft.rfft(sound)))) * SAMPLE_HZ / sound.size


async def test_a_focus_that_is_not_there_is_told(town: Network) -> None:
    await town.stop("conference")
    told = await town.otway("conference", "create", expect=1)
    assert "does not answer in 10 s" in told
    assert "Traceback" not in told
