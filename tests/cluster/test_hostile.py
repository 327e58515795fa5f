"""Two thousand records that nobody should have sent, into each inbox: each is buried once, calls go on."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest

from protocol.limits import MESSAGE_OCTETS_MAX
from tests.cluster.cluster import Cluster
from tests.cluster.load import check, load
from topics.bus import Outbound
from topics.catalogue import DEAD_LETTERS, INBOXES, Topic, ue_inbox
from topics.codec import encode
from topics.kafka_admin import read_all, sender
from topics.messages import Contact, Register, Report, ReportEvent

pytestmark = pytest.mark.cluster

COUNT = 2000
AT_A_TIME = 250
HOST = "load"
WELL_FORMED = encode(
    Register(identity="sip:mallory@ims.example", expires_s=60, sender=Contact(HOST, "mallory@ims.example"))
)
FOR_NOBODY = encode(Report(event=ReportEvent.UP, device="mallory@ims.example", at=1))


def hostile(seed: int) -> Iterator[bytes | None]:
    """Records without end, each malformed in its own way."""
    draw = random.Random(seed)
    fields = msgspec.msgpack.decode(WELL_FORMED)
    while True:
        yield None
        yield b""
        yield draw.randbytes(draw.randrange(1, 600))
        yield WELL_FORMED[: draw.randrange(1, len(WELL_FORMED))]
        yield WELL_FORMED + draw.randbytes(draw.randrange(1, 9))
        yield WELL_FORMED + bytes(MESSAGE_OCTETS_MAX)
        yield draw.randbytes(draw.randrange(MESSAGE_OCTETS_MAX + 1, 2 * MESSAGE_OCTETS_MAX))
        yield b"\x91" * draw.randrange(1000, 10_000) + b"\xc0"  # arrays in arrays in arrays
        yield b"\xdf\xff\xff\xff\xff" + draw.randbytes(20)  # a map of four thousand million entries
        yield b"\xc6\xff\xff\xff\xff" + draw.randbytes(20)
        yield msgspec.msgpack.encode({**fields, "v": draw.randrange(2, 200)})
        yield msgspec.msgpack.encode({**fields, "a": "sip:MALLORY@ims.example"})
        yield msgspec.msgpack.encode({**fields, "identity": f"sip:{'x' * 300}@ims.example"})
        yield msgspec.msgpack.encode({**fields, "extra": draw.randrange(9)})
        yield msgspec.msgpack.encode(dict(reversed(fields.items())))
        yield bytes([WELL_FORMED[0] + 1]) + WELL_FORMED[1:] + b"\xa1v\x01"  # a key twice
        yield FOR_NOBODY


async def test_hostile_records_cost_a_dead_letter_each_and_calls_nothing(
    cluster: Cluster, measured: Callable[[str], None]
) -> None:
    inboxes = [*INBOXES, ue_inbox("alice"), ue_inbox("bob"), ue_inbox(HOST)]
    marks = {topic.name: f"{topic.name} {secrets.token_hex(4)}" for topic in inboxes}
    async with load(cluster, "hostile", rate=5, seconds=30) as run:
        await run.dialling()
        async with sender(cluster.kafka("operator")) as send:
            for topic in inboxes:
                await flood(send, topic, marks[topic.name])
        buried = await buried_of(cluster, set(marks.values()))
        outcome = await run.outcome()
    await check(cluster, outcome)
    assert outcome.came_up == outcome.dials, outcome.failed
    assert buried == dict.fromkeys(marks.values(), COUNT), "one dead letter for each, in each inbox"
    measured(f"{len(inboxes)} inboxes took {COUNT} hostile records each, set-up in ms: {outcome.set_up_ms}")
    shown = json.loads(
        (await cluster.otway("dlq", "list", "--topic", "ims.cscf", "--limit", "1", "--json")).splitlines()[0]
    )
    assert shown["id"].startswith("ims.cscf/")
    await cluster.otway("dlq", "drop", "--all", "--yes")
    left = await cluster.otway("dlq", "list", "--json")
    assert not left.strip()


async def flood(send: Callable[[list[Outbound]], object], topic: Topic, mark: str) -> None:
    records = hostile(seed=1)  # the same into each
    for begin in range(0, COUNT, AT_A_TIME):
        batch = [
            Outbound(
                topic.name, number % topic.partitions, b"hostile", next(records), (("mark", mark.encode()),)
            )
            for number in range(begin, begin + AT_A_TIME)
        ]
        sending = send(batch)
        assert asyncio.iscoroutine(sending)
        await sending


async def buried_of(cluster: Cluster, marks: set[str]) -> dict[str, int]:
    """How many different records of each mark were buried, once they all are."""
    async with asyncio.timeout(60):
        while True:
            origins: dict[bytes, str] = {}
            async for letter in read_all(cluster.kafka("operator"), DEAD_LETTERS.name):
                mark = dict(letter.headers).get("original-mark", b"").decode()
                if mark in marks and letter.key is not None:
                    origins[letter.key] = mark
            if len(origins) >= COUNT * len(marks):
                return dict(Counter(origins.values()))
