"""Who takes a call: one of two devices, or the mailbox; and what becomes of a message, on real servers.

By what is typed, each agent its own process with its own media. One network serves all the tests: each is
about another callee.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio

from media.likeness import likeness
from media.samples import callee_sample, caller_sample, tone
from media.wav import read_sound, write_wav
from storage.kms_records import Agreement
from storage.redis_store import RedisStore
from storage.store import NO_VERSION, Change, StoredPut
from storage.voicemail_records import Part
from tests.deployment.network import Network, Overheard, until
from tests.servers import Servers
from topics.catalogue import AUDIT, ue_inbox
from topics.messages import Audit, AuditEvent, PlayMessage, ReportEvent, Stored

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

ALICE: Final = "sip:alice@ims.example"
HOSTS: Final = ("alice", "bob", "bob-2", "carol", "carol-2", "dave", "erin", "fred", "fred-2")
SAID: Final = caller_sample()[:20_000]  # 2.5 s: three parts
PACKETS: Final = 125  # of 20 ms
DAY_S: Final = 86_400


def identity(user: str) -> str:
    return f"sip:{user}@ims.example"


def device(host: str) -> str:
    user, _, number = host.partition("-")
    return f"{user}-{number or 1}@ims.example"


@dataclass(frozen=True, slots=True)
class Town:
    """The network with its mailbox, and alice; whoever else is there a test switches on."""

    network: Network
    overheard: Overheard
    store: RedisStore

    async def switch_on(self, *hosts: str, options: tuple[str, ...] = ()) -> None:
        """Start UE hosts; returns when their devices are registered."""
        async with self.network.overhear() as overheard:
            async with asyncio.TaskGroup() as starting:
                for host in hosts:
                    starting.create_task(self._run(host, *options))
            for host in hosts:
                await overheard.until_told(device(host), ReportEvent.REGISTERED)

    async def _run(self, host: str, *options: str) -> None:
        memory = ("--memory", f"{host}.memory")
        await self.network.run(host, "ue", "--host", host, "--users", "users.toml", *memory, *options)

    async def call(self, callee: str, *options: str) -> dict[str, Any]:
        """What `otway call` of alice tells."""
        arguments = ("call", "alice", callee, "--wav", "said.wav", "--json", *options)
        outcome: dict[str, Any] = json.loads(await self.network.otway(*arguments))
        return outcome

    async def listed(self, host: str) -> list[dict[str, Any]]:
        """What `otway mailbox` lists."""
        found: list[dict[str, Any]] = json.loads(await self.network.otway("mailbox", host, "list", "--json"))
        return found

    async def heard(self, host: str, *options: str) -> dict[str, Any]:
        """What `otway mailbox` tells of a message that it plays: all that alice has said is heard."""
        arguments = ("mailbox", host, "play", "--json", "--out", host, *options)
        played: dict[str, Any] = json.loads(await self.network.otway(*arguments))
        heard = read_sound(self.network.directory / host / "voicemail-heard.wav")
        assert likeness(heard, SAID) > 0.9
        assert heard.size > 0.9 * SAID.size
        assert (played["heard"], played["whole"], played["problem"]) == (True, True, None)
        return played

    async def fetches(self, call: str) -> list[int]:
        """How often the stored key of this call was fetched."""
        listed = await self.network.otway("keys", "list", "--stored", "--json")
        return [row["fetched"] for row in map(json.loads, listed.splitlines()) if row["call"] == call]

    async def until_no_part_is_left(self, callee: str, call: str) -> None:
        """The mailbox deletes packets a moment after it has said that the message is gone."""
        names = [part_of(callee, call, number) for number in range(4)]

        async def gone() -> bool:
            return all(stored.value is None for stored in await self.store.read(names))

        await until(gone)


def part_of(callee: str, call: str, number: int) -> str:
    return Part.key_for(ALICE, identity(callee), bytes.fromhex(call), number).name


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    network = Network(servers, tmp_path_factory.mktemp("town"))
    await network.set_up(*HOSTS)
    network.environment["OTWAY_MAILBOX"] = identity("voicemail")
    write_wav(network.directory / "said.wav", SAID)
    try:
        async with AsyncExitStack() as closing:
            topics = (AUDIT, ue_inbox("carol"), ue_inbox("carol-2"))
            overheard = await closing.enter_async_context(network.overhear(*topics))
            there = Town(network, overheard, RedisStore(network.redis_settings))
            closing.push_async_callback(there.store.close)
            async with asyncio.TaskGroup() as starting:
                for role in ("kms", "bsf", "cscf", "voicemail"):
                    starting.create_task(network.run(role, role))
                starting.create_task(there.switch_on("alice"))
            yield there
        assert "Traceback" not in await network.leave()
    finally:
        await network.stop_all()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def left(town: Town) -> dict[str, dict[str, Any]]:
    """Alice leaves three messages at a time. By callee: bob has a device that declines, the others none."""
    await town.switch_on("bob", options=("--decline",))
    callees = ("bob", "carol", "dave")
    outcomes = await asyncio.gather(*map(town.call, callees))
    await town.network.stop("bob")
    return dict(zip(callees, outcomes, strict=True))


async def test_one_of_two_devices_takes_the_call(town: Town) -> None:
    winner, loser = device("fred"), device("fred-2")
    async with asyncio.TaskGroup() as starting:
        starting.create_task(town.switch_on("fred", options=("--answer-after", "1")))
        starting.create_task(town.switch_on("fred-2", options=("--answer-after", "30", "--hertz", "620")))
    outcome = await town.call("fred", "--out", "out")
    assert (outcome["confirmed"], outcome["answered_by"], outcome["kept"]) == (True, winner, None)
    call, overheard = outcome["call"], town.overheard
    for ringing in (winner, loser):
        await overheard.until_told(ringing, ReportEvent.RINGING, call)
    assert (await overheard.until_told(loser, ReportEvent.ENDED, call)).reason == "cancelled"
    assert (await overheard.until_told(winner, ReportEvent.ENDED, call)).reason == "bye"
    of_loser = {report.event for report in overheard.board.reports if report.device == loser}
    assert not of_loser & {ReportEvent.CONFIRMED, ReportEvent.MEDIA, ReportEvent.REFUSED}
    out = town.network.directory / "out"
    assert likeness(read_sound(out / "fred-heard.wav"), SAID) > 0.9
    assert likeness(read_sound(out / "alice-heard.wav"), callee_sample()) > 0.9
    assert likeness(read_sound(out / "alice-heard.wav"), tone(620, 2.0)) < 0.2

    def settled() -> bool:
        noted = [message for _, message in overheard.passed if isinstance(message, Audit)]
        return any((each.event, each.call) == (AuditEvent.SETTLED, bytes.fromhex(call)) for each in noted)

    await overheard.until(settled, "SETTLED at the KMS")
    assert await keys_held(town, call) == {winner: True, loser: False}


async def keys_held(town: Town, call: str) -> dict[str, bool]:
    """The devices that have asked the KMS, and whether its record has the key of each."""
    key = Agreement.key_for(ALICE, bytes.fromhex(call))
    [stored] = await town.store.read([key.name])
    assert stored.value is not None
    [agreed] = town.network.codec.decode(key, stored.value).runs
    return {fork.impi: fork.key is not None for fork in agreed.forks}


async def test_a_message_is_heard_on_a_device_that_was_off(
    town: Town, left: dict[str, dict[str, Any]]
) -> None:
    """One device of bob's has declined; the other one is switched on later."""
    outcome = left["bob"]
    assert (outcome["confirmed"], outcome["answered_by"]) == (False, None)
    assert outcome["kept"] > 0.9 * PACKETS
    assert 6 * DAY_S < outcome["kept_until"] - time.time() <= 7 * DAY_S
    await town.switch_on("bob-2")
    [listed] = await town.listed("bob-2")
    told = (listed["direction"], listed["caller"], listed["message"], listed["packets"], listed["kept_until"])
    assert told == ("received", ALICE, outcome["call"], outcome["kept"], outcome["kept_until"])
    played = await town.heard("bob-2")
    assert (played["message"], played["packets"], played["deleted"]) == (
        outcome["call"],
        outcome["kept"],
        True,
    )
    still, fetches = await asyncio.gather(town.listed("bob-2"), town.fetches(outcome["call"]))
    assert (still, fetches) == ([], [1])
    await town.until_no_part_is_left("bob", outcome["call"])


async def test_a_device_dies_while_it_collects_then_two_play_at_a_time(
    town: Town, left: dict[str, dict[str, Any]]
) -> None:
    """Both times the mailbox lacks a part for a while, so that a device has some and waits for more."""
    call, both = left["carol"]["call"], ("carol", "carol-2")
    await town.switch_on(*both)
    await town.overheard.until_told(device("carol"), ReportEvent.WAITING, call)
    wish = PlayMessage(
        request=secrets.token_bytes(16), to=device("carol"), caller=ALICE, call=bytes.fromhex(call)
    )
    async with without_a_part(town, "carol", call):
        await town.overheard.board.say(ue_inbox("carol"), wish.to, wish)
        await until_some_came(town, "carol")
        await town.network.kill("carol")
    await town.switch_on("carol")
    assert not (await town.heard("carol", "--keep"))["deleted"]

    async with asyncio.TaskGroup() as playing, without_a_part(town, "carol", call):
        plays = [
            playing.create_task(town.network.otway("mailbox", host, "play", "--json", expect=None))
            for host in both
        ]
        for host in both:
            await until_some_came(town, host)
    outcomes = [json.loads(play.result()) for play in plays]
    assert any(outcome["whole"] and outcome["deleted"] for outcome in outcomes)
    assert {outcome["problem"] for outcome in outcomes} <= {None, "not-found"}
    assert await asyncio.gather(*map(town.listed, both)) == [[], []]
    await town.until_no_part_is_left("carol", call)


@asynccontextmanager
async def without_a_part(town: Town, callee: str, call: str) -> AsyncIterator[None]:
    """The mailbox does not find part 1 of the message until the context is left."""
    name = part_of(callee, call, 1)
    [stored] = await town.store.read([name])
    assert stored.value is not None
    gone = StoredPut(name, stored.version, secrets.token_bytes(16), None)
    assert await town.store.write([Change([gone])]) == [True]
    town.overheard.passed.clear()
    yield
    back = StoredPut(name, NO_VERSION, secrets.token_bytes(16), stored.value)
    assert await town.store.write([Change([back])]) == [True]


async def until_some_came(town: Town, host: str) -> None:
    """The mailbox has sent this host all it has of the message."""

    def came() -> set[int]:
        passed = town.overheard.passed
        topic = ue_inbox(host).name
        return {stored.part for to, stored in passed if to == topic and isinstance(stored, Stored)}

    await town.overheard.until(lambda: came() >= {0, 2}, f"parts for {host}")
    assert 1 not in came()


async def test_the_sender_takes_her_message_back(town: Town, left: dict[str, dict[str, Any]]) -> None:
    call = left["dave"]["call"]
    [listed] = [each for each in await town.listed("alice") if each["message"] == call]
    assert (listed["direction"], listed["callee"]) == ("left", identity("dave"))
    deleted = json.loads(await town.network.otway("mailbox", "alice", "delete", call, "--json"))
    assert (deleted["deleted"], deleted["heard"], deleted["problem"]) == (True, False, None)
    await town.switch_on("dave")
    ours, his = await asyncio.gather(town.listed("alice"), town.listed("dave"))
    assert call not in {each["message"] for each in ours}
    assert his == []
    await town.until_no_part_is_left("dave", call)


async def test_where_no_message_may_be_left_the_caller_is_told(town: Town) -> None:
    async with kms_that_stores_no_keys(town.network):
        said = await town.network.otway("call", "alice", "erin", "--wav", "said.wav", "--json", expect=1)
        assert said == "otway: the call did not come up: not-permitted\n"
    reports = [report for report in town.overheard.board.reports if report.callee == identity("erin")]
    assert [(report.event, report.reason) for report in reports] == [
        (ReportEvent.CALLING, None),
        (ReportEvent.ENDED, "not-permitted"),
    ]


@asynccontextmanager
async def kms_that_stores_no_keys(network: Network) -> AsyncIterator[None]:
    await restart_kms(network, OTWAY_DEFERRED_DAYS_MAX="0")
    try:
        yield
    finally:
        await restart_kms(network, OTWAY_DEFERRED_DAYS_MAX="7")


async def restart_kms(network: Network, **environment: str) -> None:
    assert "Traceback" not in await network.stop("kms")
    network.environment |= environment
    await network.run("kms", "kms")
