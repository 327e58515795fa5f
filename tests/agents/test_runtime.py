"""The loop: what cannot be read is buried and costs the rest nothing; what was granted is audited first."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from agents.alarms import HandsetAlarm
from agents.cscf import Cscf
from agents.decision import Agent
from agents.handset.ue_call import UeSettings
from agents.kms import Kms
from agents.runtime import Loop
from agents.ue import Ue
from chaos.lab import draw_codec, draw_town
from media.leg import MediaInstruction, OpenMedia
from protocol.limits import MESSAGE_OCTETS_MAX
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.kms_records import Agreement
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.records import Key
from storage.store import NO_VERSION, Change, StoredPut
from tests.agents.scene import ALICE, CALL, NOW, Town
from tests.servers import Servers
from topics.bus import Bus, BusRefused, BusUnavailable, Inbound, Outbound
from topics.catalogue import AUDIT, CSCF, DEAD_LETTERS, KMS, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.kafka import KafkaBus
from topics.kafka_admin import create_topics, tail
from topics.kafka_clients import KafkaSettings
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Audit, Contact, Dial, KeyRequest, KeyResponse, Register, Registered

TRACE = secrets.token_hex(4)  # other tests leave records on the same servers
HOSTS = [f"alice-{TRACE}", "bob"]


def is_of(record: Inbound, trace: str | None) -> bool:
    return trace is None or trace.encode() in dict(record.headers).get("original-trace", b"")


@dataclass
class Deployment:
    """A bus with the topics of the catalogue, whichever it is."""

    async def bus(self, group: str, inbox: Topic) -> Bus:
        raise NotImplementedError

    async def records(self, topic: str, count: int, trace: str | None = None) -> list[Inbound]:
        """The first `count` records of a topic, once they are there; those that were sent with this trace."""
        raise NotImplementedError


@dataclass
class InMemory(Deployment):
    broker: MemoryBroker = field(default_factory=lambda: MemoryBroker(catalogue(HOSTS)))

    async def bus(self, group: str, inbox: Topic) -> Bus:
        return MemoryBus(self.broker, group, inbox.name)

    async def records(self, topic: str, count: int, trace: str | None = None) -> list[Inbound]:
        found = [record for record in self.broker.records(topic) if is_of(record, trace)]
        assert len(found) == count
        return found


@dataclass
class OnKafka(Deployment):
    settings: KafkaSettings
    started: list[KafkaBus] = field(default_factory=list)

    async def bus(self, group: str, inbox: Topic) -> Bus:
        bus = KafkaBus(self.settings, group, inbox.name)
        await bus.start()
        self.started.append(bus)
        return bus

    async def records(self, topic: str, count: int, trace: str | None = None) -> list[Inbound]:
        found: list[Inbound] = []
        async with (
            asyncio.timeout(20),
            tail(self.settings, [topic], from_beginning=True) as records,
        ):
            async for record in records:
                if is_of(record, trace):
                    found.append(record)
                if len(found) == count:
                    break
        return found


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.servers)])
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    if request.param == "memory":
        yield InMemory()
        return
    servers: Servers = request.getfixturevalue("servers")
    settings = KafkaSettings(bootstrap=servers.kafka, session_timeout_s=2.0)
    await create_topics(settings, catalogue(HOSTS))
    on_kafka = OnKafka(settings)
    yield on_kafka
    for bus in on_kafka.started:
        await bus.stop()


REGISTER = Register(
    identity="sip:alice@ims.example", expires_s=3600, sender=Contact(HOSTS[0], "alice-1@ims.example")
)
POISON: list[tuple[str, bytes | None]] = [
    ("msgspec", b"\xc1 not msgpack"),
    ("oversize", encode(REGISTER) + bytes(MESSAGE_OCTETS_MAX)),
    ("tombstone", None),
    ("version", encode(REGISTER).replace(b"\xa1v\x01", b"\xa1v\x02")),
    ("no message for cscf", encode(Registered(identity="sip:a@b", to="x", not_after=1))),
]


async def test_or_01_poison_costs_one_dead_letter_and_delays_nothing(deployment: Deployment) -> None:
    bus = await deployment.bus("cscf", CSCF)
    sent = [Outbound(CSCF.name, 0, b"good", encode(REGISTER))]
    for reason, value in POISON:
        sent.append(Outbound(CSCF.name, 0, b"bad", value, (("trace", f"{TRACE} {reason}".encode()),)))
        sent.append(Outbound(CSCF.name, 0, b"good", encode(REGISTER)))
    await bus.send(sent)
    store = MemoryStore()
    loop = Loop(Cscf(), bus, store, draw_codec(bytes), clock=lambda: NOW, random=Town().random)
    async with asyncio.timeout(30):
        dealt_with = 0
        while dealt_with < len(sent):
            dealt_with += await loop.step(0.2)
    answers = await deployment.records(f"ims.ue.{HOSTS[0]}", len(POISON) + 1)
    assert {type(decode(record.value)) for record in answers} == {Registered}
    letters = await deployment.records(DEAD_LETTERS.name, len(POISON), TRACE)
    found = {
        dict(letter.headers)["original-trace"].decode().removeprefix(f"{TRACE} "): letter
        for letter in letters
    }
    first = int(dict(found[POISON[0][0]].headers)["origin-offset"]) - 1
    for number, (reason, value) in enumerate(POISON):
        letter, headers = found[reason], dict(found[reason].headers)
        assert letter.value == value, "the original octets"
        assert headers["origin-topic"] == CSCF.name.encode()
        place = int(headers["origin-offset"]) - 2 * number - 1
        assert (headers["origin-partition"], place) == (b"0", first)
        assert (headers["origin-key"], headers["buried-by"], headers["check"]) == (b"bad", b"cscf", b"OR-01")
        assert headers["reason"]
        if reason in {"oversize", "tombstone", "no message for cscf"}:
            assert reason in headers["reason"].decode()


async def put(store: MemoryStore, name: str, value: bytes) -> None:
    assert await store.write([Change([StoredPut(name, NO_VERSION, bytes(16), value)])]) == [True]


async def kms_loop(bus: Bus, town: Town, store: MemoryStore) -> Loop:
    """A KMS that knows the town's people."""
    codec = draw_codec(town.random)
    for name, record in town.records.items():
        await put(store, name, codec.encode(Key(name, type(record)), record))
    return Loop(Kms(HARDENED), bus, store, codec, clock=lambda: NOW, random=town.random)


def outbound(request: KeyRequest) -> Outbound:
    return Outbound(KMS.name, 0, b"call", encode(request))


class Recorder:
    """A bus that fails when it is told to, and remembers what went through."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self.fails_for: set[str] = set()
        self.log: list[str] = []
        self.receive = bus.receive
        self.give_back = bus.give_back
        self.partitions = bus.partitions
        self.joined = bus.joined
        self.lag = bus.lag
        self.stop = bus.stop

    async def send(self, records: Sequence[Outbound]) -> Sequence[Outbound]:
        if any(record.topic in self.fails_for for record in records):
            raise BusUnavailable("told to")
        undeliverable = await self._bus.send(records)
        self.log += [f"sent {record.topic}" for record in records if record not in undeliverable]
        return undeliverable

    def commit(self, records: Sequence[Inbound]) -> None:
        self._bus.commit(records)
        if records:
            self.log.append("committed")


async def test_or_16_the_audit_has_it_before_the_grant_leaves() -> None:
    broker, store, town = MemoryBroker(catalogue(HOSTS)), MemoryStore(), Town()
    bus = Recorder(MemoryBus(broker, "kms", KMS.name))
    loop = await kms_loop(bus, town, store)
    broker.append(outbound(town.request()))
    await loop.step(0)
    assert bus.log == [f"sent {AUDIT.name}", "sent ims.ue.bob", "committed"]


async def test_or_16_no_audit_no_grant() -> None:
    """The audit topic is gone: nothing is granted, nothing is lost, and it goes on when it is back."""
    broker, store, town = MemoryBroker(catalogue(HOSTS)), MemoryStore(), Town()
    bus = Recorder(MemoryBus(broker, "kms", KMS.name))
    loop = await kms_loop(bus, town, store)
    request = town.request()
    broker.append(outbound(request))
    bus.fails_for = {AUDIT.name}
    for _ in range(3):
        with pytest.raises(BusUnavailable):
            await loop.step(0)
    assert broker.records("ims.ue.bob") == []
    assert bus.log == []
    bus.fails_for = set()
    await loop.step(0)
    [answer] = broker.records("ims.ue.bob")
    [audit] = broker.records(AUDIT.name)
    response, noted = decode(answer.value), decode(audit.value)
    assert isinstance(response, KeyResponse)
    assert isinstance(noted, Audit)
    assert noted.fork == response.fork
    assert town.grants(request, response)[0].now == NOW


async def test_what_was_decided_is_done_when_the_bus_is_back() -> None:
    """The callee's answer is stored when the bus goes: its media opens all the same. A second
    look at the RESPONSE would find that it was answered."""
    broker, town = MemoryBroker(catalogue(["alice", "bob"])), Town()
    codec, network = draw_codec(town.random), MemoryStore()
    devices = draw_town(["alice", "bob"], town.random, shared=True)
    await provision_network(network, codec, devices, NOW, town.random)
    network_agents: tuple[tuple[Agent, str, Topic], ...] = (
        (Kms(HARDENED), "kms", KMS),
        (Cscf(), "cscf", CSCF),
    )
    loops = [
        Loop(
            agent, MemoryBus(broker, party, inbox.name), network, codec, clock=lambda: NOW, random=town.random
        )
        for agent, party, inbox in network_agents
    ]
    buses: list[Recorder] = []
    opened: list[list[MediaInstruction]] = []
    for device in devices:
        store, media, line = MemoryStore(), list[MediaInstruction](), MediaAddress("192.0.2.1", 4000)
        await provision_handsets(store, codec, [device], NOW, town.random)
        bus = Recorder(MemoryBus(broker, f"ue.{device.host}", ue_inbox(device.host).name))
        ue = Ue(HARDENED, UeSettings(host=device.host, lines=(line,)))
        loop = Loop(ue, bus, store, codec, clock=lambda: NOW, random=town.random, carry_out=media.append)
        loop.tell(HandsetAlarm(device.impi))
        loops.append(loop)
        buses.append(bus)
        opened.append(media)

    async def settle() -> int:
        """Until nobody has anything to do. Returns how many errors there were."""
        for _ in range(100):
            errors, done = 0, 0
            for loop in loops:
                try:
                    done += await loop.step(0)
                except BusUnavailable:
                    errors += 1
            if not done:
                return errors
        raise AssertionError("it does not end")

    assert await settle() == 0, "registered"
    buses[1].fails_for = {CSCF.name}
    loops[2].tell(Dial(request=bytes(16), to=devices[0].impi, callee=devices[1].identity))
    assert await settle() == 1, "bob cannot send his answer"
    assert [len(instructions) for instructions in opened] == [0, 1], "his media is open before alice can know"
    buses[1].fails_for = set()
    assert await settle() == 0
    [[at_alice], [at_bob]] = opened
    assert isinstance(at_alice, OpenMedia)
    assert isinstance(at_bob, OpenMedia)
    assert at_alice.leg.root == at_bob.leg.root


async def test_an_answer_to_a_host_that_does_not_exist_holds_up_nobody() -> None:
    """Whoever may write to an inbox can name any UE host."""
    broker, store, town = MemoryBroker(catalogue(HOSTS)), MemoryStore(), Town()
    bus = Recorder(MemoryBus(broker, "kms", KMS.name))
    loop = await kms_loop(bus, town, store)
    broker.append(outbound(town.request(host="nowhere")))
    broker.append(outbound(town.request(town.run(call=bytes(16)))))
    await loop.step(0)
    assert len(broker.records("ims.ue.bob")) == 1
    assert bus.log[-1] == "committed"


async def test_or_16_no_topic_for_the_audit_no_grant() -> None:
    topics = [topic for topic in catalogue(HOSTS) if topic is not AUDIT]
    broker, store, town = MemoryBroker(topics), MemoryStore(), Town()
    loop = await kms_loop(MemoryBus(broker, "kms", KMS.name), town, store)
    broker.append(outbound(town.request()))
    with pytest.raises(BusRefused, match="audit"):
        await loop.step(0)
    assert broker.records("ims.ue.bob") == []


async def test_a_record_that_does_not_open_buries_the_request_and_is_left_as_it_is() -> None:
    broker, store, town = MemoryBroker(catalogue(HOSTS)), MemoryStore(), Town()
    bus = MemoryBus(broker, "kms", KMS.name)
    loop = await kms_loop(bus, town, store)
    broken = Agreement.key_for(ALICE, CALL).name
    await put(store, broken, b"\x01 wrapped under another key, or not at all")
    broker.append(outbound(town.request()))
    broker.append(outbound(town.request(town.run(call=bytes(16)))))
    await loop.step(0)
    [letter] = broker.records(DEAD_LETTERS.name)
    assert broken in dict(letter.headers)["reason"].decode()
    assert len(broker.records("ims.ue.bob")) == 1, "the other call goes on"
    [kept] = await store.read([broken])
    assert kept.value == b"\x01 wrapped under another key, or not at all"


async def test_two_instances_on_one_request_make_one_key() -> None:
    """A paused instance that wakes up reads what it meanwhile does not own: it cannot overwrite."""
    town, store = Town(), MemoryStore()
    request = town.request()
    loops = []
    brokers = [MemoryBroker(catalogue(HOSTS)) for _ in range(2)]
    first = await kms_loop(MemoryBus(brokers[0], "kms", KMS.name), town, store)
    second = Loop(
        Kms(HARDENED),
        MemoryBus(brokers[1], "kms", KMS.name),
        store,
        first._codec,
        clock=lambda: NOW,
        random=town.random,
    )
    loops = [first, second]
    for broker in brokers:
        broker.append(outbound(request))
    await asyncio.gather(*(loop.step(0) for loop in loops))
    keys = set()
    for broker in brokers:
        [answer] = broker.records("ims.ue.bob")
        response = decode(answer.value)
        assert isinstance(response, KeyResponse)
        keys.add(town.grants(request, response)[0].key)
    assert len(keys) == 1


async def test_a_conflict_is_read_and_decided_again() -> None:
    """Another instance grants between the read and the write: its K is the one that is given."""
    broker, town = MemoryBroker(catalogue(HOSTS)), Town()
    request = town.request()

    class Racing(MemoryStore):
        async def write(self, changes: Sequence[Change]) -> list[bool]:
            if not self.raced and any(":agreement:" in put.name for c in changes for put in c.puts):
                self.raced = True
                other = changes[0].puts[0]
                await super().write([Change([StoredPut(other.name, NO_VERSION, b"o" * 16, theirs)])])
            return await super().write(changes)

        raced = False

    store = Racing()
    loop = await kms_loop(MemoryBus(broker, "kms", KMS.name), town, store)
    other = Town()
    other.records = dict(town.records)
    other.give(request)
    theirs = loop._codec.encode(Agreement.key_for(ALICE, CALL), other.agreement() or Agreement())
    broker.append(outbound(request))
    await loop.step(0)
    assert store.raced
    [answer] = broker.records("ims.ue.bob")
    response = decode(answer.value)
    assert isinstance(response, KeyResponse)
    agreement = other.agreement()
    assert agreement is not None
    assert town.grants(request, response)[0].key == agreement.runs[0].forks[0].key
