"""Messages for who does not answer: left, heard, taken back and refused, by what is typed, on real servers.

Each test calls somebody else, so that one network serves them all.
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

from chaos.lab import draw_mailbox, draw_town
from media.likeness import likeness
from media.samples import caller_sample
from media.wav import read_sound, write_wav
from storage.redis_store import RedisStore
from storage.store import NO_VERSION, Change, StoredPut
from storage.voicemail_records import Part
from tests.deployment.network import Network, Overheard
from tests.servers import Servers
from topics.catalogue import ue_inbox
from topics.messages import PlayMessage, ReportEvent, Stored

pytestmark = [pytest.mark.servers, pytest.mark.asyncio(loop_scope="module")]

ALICE: Final = "sip:alice@ims.example"
HOSTS: Final = ("alice", "bob", "bob-2", "carol", "carol-2", "dave", "erin")
SAID: Final = caller_sample()[:24_000]  # 3 s
DAY_S: Final = 86_400


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
            await asyncio.gather(
                *(
                    self.network.run(host, "ue", "--host", host, "--users", "users.toml", *options)
                    for host in hosts
                )
            )
            for host in hosts:
                await overheard.until_told(device(host), ReportEvent.REGISTERED)

    async def call(self, callee: str) -> dict[str, Any]:
        """What `otway call` of alice tells."""
        said = await self.network.otway("call", "alice", callee, "--wav", "said.wav", "--json")
        outcome: dict[str, Any] = json.loads(said)
        return outcome

    async def mailbox(self, host: str, *arguments: str) -> Any:
        """What `otway mailbox` tells."""
        return json.loads(await self.network.otway("mailbox", host, *arguments, "--json"))

    async def heard_well(self, host: str, *arguments: str) -> dict[str, Any]:
        """The message is played on this host, and it is all that was said."""
        played: dict[str, Any] = await self.mailbox(host, "play", *arguments, "--out", host)
        heard = read_sound(self.network.directory / host / "voicemail-heard.wav")
        assert likeness(heard, SAID) > 0.9
        assert abs(heard.size - SAID.size) < 0.1 * SAID.size
        return played

    async def until_no_part_is_left(self, callee: str, call: bytes) -> None:
        """The mailbox deletes packets a moment after it has said that the message is gone."""
        names = [Part.key_for(ALICE, callee, call, part).name for part in range(8)]
        async with asyncio.timeout(30):
            while any(stored.value is not None for stored in await self.store.read(names)):
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    network = Network(servers, tmp_path_factory.mktemp("town"))
    mailbox = draw_mailbox(secrets.token_bytes)
    await network.set_up((*draw_town(HOSTS, secrets.token_bytes), mailbox))
    network.environment["OTWAY_MAILBOX"] = mailbox.identity
    write_wav(network.directory / "said.wav", SAID)
    try:
        async with AsyncExitStack() as closing:
            inboxes = (ue_inbox("carol"), ue_inbox("carol-2"))
            overheard = await closing.enter_async_context(network.overhear(*inboxes))
            store = RedisStore(network.redis_settings)
            closing.push_async_callback(store.close)
            there = Town(network, overheard, store)
            await asyncio.gather(
                *(network.run(role, role) for role in ("kms", "bsf", "cscf", "voicemail")),
                there.switch_on("alice"),
            )
            yield there
        assert "Traceback" not in await network.leave()
    finally:
        await network.stop_all()


async def test_a_message_is_heard_on_a_device_that_was_off(town: Town) -> None:
    """One device of bob's declines; the other is switched on later."""
    await town.switch_on("bob", options=("--decline",))
    outcome = await town.call("bob")
    assert (outcome["confirmed"], outcome["answered_by"], outcome["statistics"].keys()) == (
        False,
        None,
        {ALICE},
    )
    assert outcome["kept"] > 140
    assert 6 * DAY_S < outcome["kept_until"] - time.time() <= 7 * DAY_S
    assert await fetches(town, outcome["call"]) == [0]
    await town.network.stop("bob")

    await town.switch_on("bob-2")
    [listed] = await town.mailbox("bob-2", "list")
    assert listed == {
        "message": outcome["call"],
        "direction": "received",
        "caller": ALICE,
        "callee": "sip:bob@ims.example",
        "left_at": listed["left_at"],
        "kept_until": outcome["kept_until"],
        "packets": outcome["kept"],
        "collected": False,
    }
    played = await town.heard_well("bob-2")
    assert (played["message"], played["whole"], played["deleted"]) == (outcome["call"], True, True)
    assert (played["packets"], played["problem"]) == (outcome["kept"], None)
    assert await town.mailbox("bob-2", "list") == []
    assert await fetches(town, outcome["call"]) == [1]
    await town.until_no_part_is_left("sip:bob@ims.example", bytes.fromhex(outcome["call"]))


async def fetches(town: Town, call: str) -> list[int]:
    """How often the stored key of this call was fetched, by `otway keys list`."""
    listed = await town.network.otway("keys", "list", "--stored", "--json")
    rows = [json.loads(line) for line in listed.splitlines()]
    return [row["fetched"] for row in rows if row["call"] == call]


async def test_a_device_dies_while_it_collects_and_two_play_at_a_time(town: Town) -> None:
    """A part is kept away, so that a device has some of the message and waits for more."""
    callee = "sip:carol@ims.example"
    call = (await town.call("carol"))["call"]
    await town.switch_on("carol", "carol-2")
    async with without_a_part(town, callee, bytes.fromhex(call)) as away:
        wish = PlayMessage(
            request=secrets.token_bytes(16), to=device("carol"), caller=ALICE, call=bytes.fromhex(call)
        )
        await town.overheard.board.say(ue_inbox("carol"), device("carol"), wish)
        await until_parts_came(town, "carol", away)
        await town.network.kill("carol")
    await town.switch_on("carol")
    assert (await town.heard_well("carol", "--keep"))["whole"]

    async with without_a_part(town, callee, bytes.fromhex(call)) as away:
        playing = [
            asyncio.create_task(town.network.otway("mailbox", host, "play", "--json", expect=None))
            for host in ("carol", "carol-2")
        ]
        for host in ("carol", "carol-2"):
            await until_parts_came(town, host, away)
    both = await asyncio.gather(*playing)
    outcomes = [json.loads(said) for said in both]
    assert any(outcome["whole"] and outcome["deleted"] for outcome in outcomes)
    for outcome in outcomes:
        assert outcome["problem"] in {None, "not-found"}
    for host in ("carol", "carol-2"):
        assert await town.mailbox(host, "list") == []
    await town.until_no_part_is_left(callee, bytes.fromhex(call))


@asynccontextmanager
async def without_a_part(town: Town, callee: str, call: bytes) -> AsyncIterator[int]:
    """The mailbox does not find a part of the message until the context is left."""
    away = 1
    name = Part.key_for(ALICE, callee, call, away).name
    [stored] = await town.store.read([name])
    assert stored.value is not None
    gone = StoredPut(name, stored.version, secrets.token_bytes(16), None)
    assert await town.store.write([Change([gone])]) == [True]
    town.overheard.passed.clear()
    yield away
    back = StoredPut(name, NO_VERSION, secrets.token_bytes(16), stored.value)
    assert await town.store.write([Change([back])]) == [True]


async def until_parts_came(town: Town, host: str, away: int) -> None:
    """The mailbox has sent what it has: the parts around the one that is away."""

    def came() -> set[int]:
        return {
            message.part
            for topic, message in town.overheard.passed
            if topic == ue_inbox(host).name and isinstance(message, Stored)
        }

    await town.overheard.until(lambda: came() >= {away - 1, away + 1}, f"parts for {host}")
    assert away not in came()


async def test_the_sender_takes_her_message_back(town: Town) -> None:
    call = (await town.call("dave"))["call"]
    listed = await town.mailbox("alice", "list")
    assert [(each["direction"], each["callee"]) for each in listed if each["message"] == call] == [
        ("left", "sip:dave@ims.example")
    ]
    deleted = await town.mailbox("alice", "delete", call)
    assert (deleted["deleted"], deleted["heard"], deleted["problem"]) == (True, False, None)
    assert call not in {each["message"] for each in await town.mailbox("alice", "list")}
    await town.switch_on("dave")
    assert await town.mailbox("dave", "list") == []
    assert await town.network.otway("mailbox", "dave", "play", expect=1) == "otway: there is no message\n"


async def test_where_no_message_may_be_left_the_caller_is_told(town: Town) -> None:
    async with kms_that_stores_no_keys(town.network):
        said = await town.network.otway("call", "alice", "erin", "--wav", "said.wav", "--json", expect=1)
        assert said == "otway: the call did not come up: not-permitted\n"
        refused = [
            report
            for report in town.overheard.board.reports
            if report.device == device("alice") and report.callee == "sip:erin@ims.example"
        ]
        assert [(report.event, report.reason) for report in refused] == [
            (ReportEvent.CALLING, None),
            (ReportEvent.ENDED, "not-permitted"),
        ]
    assert (await town.call("erin"))["kept"] > 140, "here one may again"


@asynccontextmanager
async def kms_that_stores_no_keys(network: Network) -> AsyncIterator[None]:
    async def restart(days: str) -> None:
        assert "Traceback" not in await network.stop("kms")
        network.environment["OTWAY_DEFERRED_DAYS_MAX"] = days
        await network.run("kms", "kms")

    await restart("0")
    yield
    await restart("7")
