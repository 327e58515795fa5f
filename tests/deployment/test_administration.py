"""What an operator does while agents run: dead letters, lag, key ids; by what is typed, on real servers."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from agents.custodian import Custodian
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from console.operating.audits import outcome_of
from protocol.checks import Check, RefusalCode, Refused
from protocol.profile import HARDENED
from storage.cscf_records import Registration
from storage.kms_records import Subscriber
from storage.records import Key
from storage.redis_store import RedisStore
from storage.store import NO_VERSION, Change, StoredPut
from tests.agents.scene import ALICE, BOB, NOW, Town
from tests.deployment.network import Network
from topics.bus import Inbound, Outbound
from topics.catalogue import CSCF, DEAD_LETTERS, KMS, ORDERS, Party, Topic, ue_inbox
from topics.codec import decode, encode
from topics.dead_letters import bury
from topics.kafka import KafkaBus
from topics.kafka_admin import read_all, sender, tail
from topics.kafka_clients import KafkaSettings
from topics.messages import Contact, Register, Registered, Revoke

pytestmark = pytest.mark.servers

MARK = secrets.token_hex(4)  # other tests leave records on the same servers
PARTITION = 5


def kafka_of(network: Network) -> KafkaSettings:
    return KafkaSettings(bootstrap=network.servers.kafka, session_timeout_s=2.0)


async def send(network: Network, records: Sequence[Outbound]) -> None:
    async with sender(kafka_of(network)) as sending:
        await sending(records)


async def taken(records: AsyncIterator[Inbound], count: int, about: str = "") -> list[Inbound]:
    """The next ones with this text in their value."""
    found: list[Inbound] = []
    async with asyncio.timeout(60):
        async for record in records:
            if record.value is not None and about.encode() in record.value:
                found.append(record)
            if len(found) == count:
                break
    return found


def name_of(letter: Inbound) -> str:
    assert letter.key is not None
    return letter.key.decode()


async def open_letters(network: Network, topic: str) -> dict[str, dict[str, Any]]:
    """What `otway dlq list` has of a topic, by id."""
    listed = await network.otway("dlq", "list", "--topic", topic, "--json")
    return {row["id"]: row for row in map(json.loads, listed.splitlines())}


async def answered(network: Network, answer: str, *arguments: str) -> tuple[int | None, str]:
    """Run a command that asks; its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "console.main", *arguments),
        cwd=network.directory,
        env=network.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(answer.encode()), 120)
    return process.returncode, output.decode()


async def test_dead_letters_from_burial_to_the_end(network: Network) -> None:
    """Two records of garbage, and one that the CSCF cannot deal with until its store is mended."""
    host, identity = f"west-{MARK}", f"sip:{MARK}@ims.example"
    kafka, garbage = kafka_of(network), [f"\xc1 {MARK} {n}".encode("latin-1") for n in range(2)]
    await network.otway("topics", "create", "--host", host)
    await network.run("cscf", "cscf")
    await network.otway("dlq", "drop", "--all", "--yes")  # what other tests have left
    store, name = RedisStore(network.redis_settings), Registration.key_for(identity).name
    assert await store.write([Change([StoredPut(name, NO_VERSION, bytes(16), b"\xc1 broken")])]) == [True]
    register = encode(Register(identity=identity, expires_s=60, sender=Contact(host, "west-1")))

    async with tail(kafka, [DEAD_LETTERS.name]) as letters:
        await send(
            network,
            [
                Outbound(CSCF.name, PARTITION, b"a \xff key", garbage[0], (("trace", b"1"), ("trace", b"2"))),
                Outbound(CSCF.name, PARTITION, b"key", garbage[1]),
                Outbound(CSCF.name, PARTITION, b"key", register),
            ],
        )
        buried = await taken(letters, 3, MARK)
        await send(network, [again(letter) for letter in buried])  # as an agent does that crashed meanwhile
        ids = {letter.value: name_of(letter) for letter in buried}
        first, second, third = ids[garbage[0]], ids[garbage[1]], ids[register]

        listed = await open_letters(network, CSCF.name)
        assert listed.keys() == {first, second, third}
        assert listed[third]["reason"].startswith("record broken")
        assert listed[first]["buried"].startswith("20")
        assert (listed[first]["buried_by"], listed[first]["octets"]) == ("cscf", len(garbage[0]))
        said = await network.otway("dlq", "list", "--limit", "1")
        assert (first in said, second in said, third in said) == (False, False, True)
        assert "3 open: 2 " in said
        assert await open_letters(network, KMS.name) == {}
        shown = await network.otway("dlq", "show", first)
        for told in ("trace: 1", "trace: 2", "0x6120ff206b6579", "OR-01: ", "by cscf", garbage[0].hex(" ")):
            assert told in shown
        assert f"Register  version=1  identity={identity}" in await network.otway("dlq", "show", third)

        code, said = await answered(network, "n\n", "dlq", "replay", first, third)
        assert (code, "2 letters once more (ims.cscf 2)" in said) == (1, True)
        assert (await answered(network, "n\n", "dlq", "drop", "--all"))[0] == 1
        assert (await open_letters(network, CSCF.name)).keys() == {first, second, third}

        [stored] = await store.read([name])
        assert await store.write([Change([StoredPut(name, stored.version, b"mended" + bytes(10), None)])])
        async with tail(kafka, [ue_inbox(host).name], from_beginning=True) as answers:
            code, said = await answered(network, "y\n", "dlq", "replay", first, third)
            assert (code, "2 letters replayed" in said) == (0, True)
            [answer] = await taken(answers, 1)
        assert isinstance(decode(answer.value), Registered)
        while (once_more := (await taken(letters, 1, MARK))[0]).key in {letter.key for letter in buried}:
            pass  # the repeats

    fourth = name_of(once_more)
    assert (once_more.value, fourth in ids.values()) == (garbage[0], False), "under the place of its replay"
    assert fourth.startswith(f"{CSCF.name}/{PARTITION}/")
    headers = dict(once_more.headers)
    assert headers["origin-key"] == b"a \xff key"
    assert [value for name, value in once_more.headers if name == "original-trace"] == [b"1", b"2"]
    assert (await open_letters(network, CSCF.name)).keys() == {second, fourth}
    assert "was replayed already" in await network.otway("dlq", "replay", first, "--yes", expect=1)

    assert "1 letter dropped" in await network.otway("dlq", "drop", second, "--yes")
    await send(network, [again(letter) for letter in buried])
    assert (await open_letters(network, CSCF.name)).keys() == {fourth}, "what is closed stays closed"
    said = await network.otway("dlq", "show", second, expect=1)
    assert said == f"otway: {second} was dropped already\n"
    for command in ("replay", "drop"):
        said = await network.otway("dlq", command, fourth, "ims.cscf/0/999999", "--yes", expect=1)
        assert said.startswith("otway: ims.cscf/0/999999 is no dead letter")
    assert (await open_letters(network, CSCF.name)).keys() == {fourth}, "all of them or none"
    assert "1 letter dropped" in await network.otway("dlq", "drop", "--all", "--topic", CSCF.name, "--yes")
    assert await network.otway("dlq", "list", "--topic", CSCF.name) == "no open letters\n"
    await store.close()


def again(letter: Inbound) -> Outbound:
    """The same letter once more."""
    assert letter.key is not None
    return Outbound(letter.topic, letter.partition, letter.key, letter.value, letter.headers)


async def test_what_is_not_replayed_says_why_and_stays_open(network: Network) -> None:
    gone, here = ue_inbox(f"gone-{MARK}").name, ue_inbox(f"here-{MARK}").name
    record = Inbound(here, 0, 0, b"key", b"value")
    refused = Refused(Check.OR_01, RefusalCode.MALFORMED, "\x1b[2J a reason")
    await network.otway("topics", "create", "--host", f"here-{MARK}")
    await network.otway("dlq", "drop", "--all", "--yes")
    originals = [
        record,
        replace(record, offset=1, key=bytes(5000)),
        replace(record, partition=1),
        replace(record, topic=gone),
        replace(record, topic=ORDERS.name),
    ]
    await send(network, [bury(each, Party.UE, refused) for each in originals])
    assert "?[2J a reason" in await network.otway("dlq", "list")
    said = await network.otway("dlq", "replay", "--all", "--yes", expect=1)
    for why in ("not all of it was kept (key)", f"no {here}, partition 1", f"no {gone}", "an order is given"):
        assert f"1 letter not sent: {why}" in said or f"1 letter not sent: there is {why}" in said
    assert "1 letter replayed" in said
    assert (await open_letters(network, here)).keys() == {f"{here}/0/1", f"{here}/1/0"}
    assert (await open_letters(network, gone)).keys() == {f"{gone}/0/0"}
    assert (await open_letters(network, ORDERS.name)).keys() == {f"{ORDERS.name}/0/0"}
    for wrong in (("replay",), ("drop",), ("drop", f"{here}/0/1", "--all"), ("drop", "x", "--topic", here)):
        assert "--all" in await network.otway("dlq", *wrong, expect=2)
    assert len(await open_letters(network, here)) == 2


async def test_many_letters_are_replayed_in_their_order(network: Network) -> None:
    inbox, refused = ue_inbox(f"many-{MARK}"), Refused(Check.OR_01)
    await network.otway("topics", "create", "--host", f"many-{MARK}")
    letters = [
        bury(Inbound(inbox.name, 0, n, b"key", b"%d" % n, (("h", b"1"),)), Party.UE, refused)
        for n in range(2000)
    ]
    await send(network, letters)
    said = await network.otway("dlq", "replay", "--all", "--topic", inbox.name, "--yes")
    assert "2000 letters replayed" in said
    replayed = [record async for record in read_all(kafka_of(network), inbox.name)]
    assert [record.value for record in replayed] == [b"%d" % n for n in range(2000)]
    assert {(record.key, record.headers) for record in replayed} == {(b"key", (("h", b"1"),))}
    assert await open_letters(network, inbox.name) == {}


async def lag_of(network: Network, group: str, *options: str) -> list[dict[str, Any]]:
    listed = await network.otway("topics", "lag", "--json", *options)
    return [row for row in map(json.loads, listed.splitlines()) if row["group"] == group]


async def test_lag_is_told_for_each_inbox_and_partition(network: Network) -> None:
    host = f"lag-{MARK}"
    await network.otway("topics", "create", "--host", host)
    await network.run("cscf", "cscf")
    register = encode(Register(identity=ALICE, expires_s=60, sender=Contact(host, "lag-1")))
    async with tail(kafka_of(network), [ue_inbox(host).name]) as answers:
        await send(network, [Outbound(CSCF.name, n % 3, b"key", register) for n in range(6)])
        await taken(answers, 6)
    await network.stop("cscf")
    [before] = await lag_of(network, "cscf")
    assert (before["topic"], before["partition"], before["lag"]) == (CSCF.name, None, 0)
    assert before["committed"] == before["end"]

    await send(network, [Outbound(CSCF.name, 1, b"key", register)] * 4)
    [after] = await lag_of(network, "cscf")
    assert (after["committed"], after["end"], after["lag"]) == (before["committed"], before["end"] + 4, 4)
    partitions = await lag_of(network, "cscf", "--partitions")
    assert [row["partition"] for row in partitions] == list(range(CSCF.partitions))
    assert {row["partition"]: row["lag"] for row in partitions if row["lag"]} == {1: 4}
    [ue] = await lag_of(network, f"ue.{host}")
    assert (ue["topic"], ue["committed"], ue["end"], ue["lag"]) == (ue_inbox(host).name, None, 6, 6)
    told = await network.otway("topics", "lag")
    groups = {line.split()[0] for line in told.splitlines()}
    assert f"ue.{host}" in groups
    assert {group for group in groups if not group.startswith("ue.")} == {
        "kms",
        "bsf",
        "cscf",
        "custodian",
        "voicemail",
        "transcoder",
        "conference",
    }
    assert "ims.cscf/1 " in await network.otway("topics", "lag", "--partitions")


@asynccontextmanager
async def serving(network: Network, agent: Agent, inbox: Topic) -> AsyncIterator[None]:
    """An agent in this process, on the servers, with a clock that stands still."""
    bus = KafkaBus(kafka_of(network), agent.party, inbox.name)
    await bus.start()
    store = RedisStore(network.redis_settings)
    loop = Loop(agent, bus, store, network.codec, clock=lambda: NOW, random=secrets.token_bytes)
    stopping = asyncio.Event()
    running = asyncio.create_task(loop.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await running


async def key_of(network: Network, key_id: str) -> dict[str, Any]:
    """What `otway keys list` says of a key id."""
    listed = await network.otway("keys", "list", "--json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in listed.splitlines()]
    [known] = [row for row in rows if row["key_id"] == key_id]
    return known


async def test_or_02_a_key_id_is_listed_once_used_and_revoked_by_order(network: Network) -> None:
    kafka, alice, bob = kafka_of(network), f"psk:alice-{MARK}", f"psk:bob-{MARK}"
    await network.otway("keys", "init")
    await network.otway("topics", "create", "--host", f"town-{MARK}")
    town, codec, store = Town(), network.codec, RedisStore(network.redis_settings)
    town.subscribe(alice, ALICE)
    town.subscribe(bob, BOB)
    for name, record in town.records.items():
        put = StoredPut(name, NO_VERSION, bytes(16), codec.encode(Key(name, type(record)), record))
        assert await store.write([Change([put])]) == [True]

    run = town.run(call=secrets.token_bytes(16))
    request = town.request(run, caller_key=alice, callee_key=bob, host=f"town-{MARK}")
    async with (
        tail(kafka, [ue_inbox(f"town-{MARK}").name]) as answers,
        serving(network, Kms(HARDENED), KMS),
    ):
        await send(network, [Outbound(KMS.name, PARTITION, b"call", encode(request))] * 2)
        await taken(answers, 2)
    known = await key_of(network, bob)
    assert known == {
        "key_id": bob,
        "impi": None,
        "identities": [BOB],
        "not_after": None,
        "owner": "ue",
        "grants": 1,
        "state": "live",
    }
    assert (await key_of(network, alice))["identities"] == [ALICE]

    early = Revoke(key_id=bob, order=secrets.token_bytes(16))
    assert await outcome_of(kafka, early, within_s=0.5) is None, "nobody is there"
    async with serving(network, Custodian(), ORDERS):
        orders = [Revoke(key_id=bob, order=secrets.token_bytes(16)) for _ in range(3)]
        outcomes = await asyncio.gather(*(outcome_of(kafka, order, within_s=30) for order in orders))
        assert [told.order for told in outcomes if told] == [order.order for order in orders], "each its own"
        for _ in range(2):
            told = await network.otway("keys", "revoke", bob)
            assert told == f"{bob} of bob-{MARK}@ims.example: revoked; calls under it end\n"
        nobody = await network.otway("keys", "revoke", f"psk:nobody-{MARK}", expect=1)
        assert nobody.startswith(f"otway: psk:nobody-{MARK} was not revoked: not-found")
        assert "is no key id" in await network.otway("keys", "revoke", "a\x1b key", expect=1)
    [stored] = await store.read([Subscriber.key_for(bob).name])
    assert stored.value is not None
    subscriber = codec.decode(Subscriber.key_for(bob), stored.value)
    assert subscriber == msgspec.structs.replace(town.subscriber(bob), revoked=True, revoked_at=NOW)
    known = await key_of(network, bob)
    assert (known["state"], known["impi"], known["grants"]) == ("revoked", f"bob-{MARK}@ims.example", 1)
    assert known["not_after"] == "2027-01-16T11:46:40Z"
    assert (await key_of(network, alice))["state"] == "live"
    said = await network.otway("keys", "list")
    assert f"psk:nobody-{MARK}" not in said
    assert town.subscriber(bob).key.reveal().hex() not in said
    await store.close()


async def test_an_operators_file_says_what_the_environment_leaves_open(network: Network) -> None:
    place = network.environment.pop("OTWAY_KAFKA")
    assert "Kafka at 127.0.0.1:9092" in await network.otway("topics", "list", expect=1)
    file = network.directory / "secrets" / "operator" / "settings.env"
    file.parent.mkdir(parents=True)
    file.write_text(f"OTWAY_KAFKA={place}\n")
    for command in (("topics", "create"), ("topics", "list"), ("dlq", "list"), ("keys", "list")):
        await network.otway(*command)
