"""A whole deployment in one process, from one seed: real agents, codec, loop; false time and network.

    World(seed, faults, cast).run()     ->  a World with its history, for chaos/invariants.py to judge

The clock jumps from event to event. While trouble lasts the network drops, repeats, delays and reorders, a
confused KMS answers wrongly under the right keys, an outsider sends what it made of other messages, and
parties crash between any two steps of their loops and come back. Then the network heals, and everything must
come to rest within BOUND_S.
"""

from __future__ import annotations

import heapq
import itertools
import random as seeded
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from agents.alarms import HandsetAlarm
from chaos.faults import Cast, Faults
from chaos.forgery import Forger
from chaos.insider import Insider
from chaos.lab import draw_codec, draw_focus, draw_mailbox, draw_town, draw_transcoder
from chaos.observer import Granted, Observer
from chaos.plan import TROUBLE_S, plan_for
from chaos.process import Member, processes
from chaos.silent_media import SilentBridge, SilentMedia, SilentRecorder
from chaos.splicing import Splicer
from chaos.wire import Crashed, FaultyBus, FaultyStore, Fuse
from protocol.sharding import shard_of
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.records import Key, Record
from storage.store import Change
from storage.ue_records import Inbox, Outbox
from storage.users_file import Device
from topics.bus import Inbound, NoSuchTopic, Outbound
from topics.catalogue import AUDIT, DEAD_LETTERS, REPORTS, Party, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import (
    DeleteMessage,
    Dial,
    HangUp,
    JoinConference,
    LeaveConference,
    Message,
    PlayMessage,
    Revoke,
    RevokeRelease,
    Wire,
)

T = TypeVar("T")
R = TypeVar("R", bound=Record)

EPOCH: Final = 1_800_000_000  # where the simulated clock begins, seconds since 1970 UTC
BOUND_S: Final = 300.0  # a call that began in trouble has ended or come up so long after it
HOP_S: Final = 0.001
NAMES: Final = ("alice", "bob", "bob-2", "carol")  # bob has two devices
DURABLE: Final = frozenset({AUDIT.name, DEAD_LETTERS.name, REPORTS.name})  # acknowledged means kept

Wish = Dial | HangUp | PlayMessage | DeleteMessage | JoinConference | LeaveConference


class World:
    """One run of the simulation; `run` it, then read its history."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        cast: Cast | None = None,
        *,
        names: Sequence[str] = NAMES,
        answer_after_s: Callable[[str], int | None] = lambda _: 0,
        mailbox: bool = True,
        tamper: Callable[[Outbound], Outbound] | None = None,
    ) -> None:
        """answer_after_s: of the handset on a host; None: it declines. mailbox: whether call control knows of
        one. tamper: changes records on their way, for a test of one thing."""
        self.seed = seed
        self.faults = Faults.drawn(seed) if faults is None else faults
        self.cast = cast = cast or Cast()
        self.tamper = tamper
        self.time = 0.0
        self._chance = seeded.Random(f"network {seed}")
        self.random = seeded.Random(f"octets {seed}").randbytes
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self.devices = draw_town(names, self.random)
        self.mailbox = draw_mailbox(self.random)
        self.transcoder = draw_transcoder(self.random) if self.faults.foreign else None
        self.focus = draw_focus(self.random) if self.faults.conference else None
        self.diverts = mailbox
        self.broker = MemoryBroker(catalogue(list(names)))
        self.history: list[tuple[float, Inbound]] = []
        self.transmitted: list[tuple[float, Outbound]] = []
        self._arrived: list[tuple[float, Inbound, Message]] = []
        self._sent: list[tuple[float, Outbound, Message]] = []
        self._sent_known = 0
        self.broker.on_append.append(self._appended)
        self.codec = draw_codec(self.random)
        self.network = MemoryStore()
        functions = [each for each in (self.mailbox, self.transcoder, self.focus) if each is not None]
        everybody = (*self.devices, *functions)
        drive(provision_network(self.network, self.codec, everybody, EPOCH, self.random))
        self.sessions: list[SilentMedia] = []
        self.handsets: list[SilentMedia] = []
        self.bridges: dict[str, SilentMedia] = {}
        self.observer = Observer(self.codec, self.devices)
        self.forger = Forger(self.random, self.observer.keys)
        self.insider = Insider(self.devices[2 % len(self.devices)], seed, self.random)
        self.members = processes(self, answer_after_s)
        inboxes = [each.inbox for each in self.members if each.party is not Party.CUSTODIAN]
        self.splicer = Splicer(seed, list(dict.fromkeys(inboxes)))  # orders are an operator's alone
        self.conferences: list[bytes] = []
        """G of each that was created."""
        self.orders: list[tuple[float, Revoke | RevokeRelease]] = []
        """What was revoked, when it was ordered for the last time."""
        for member in self.members:
            self._start(member)

    @property
    def grants(self) -> list[Granted]:
        """Every K that the KMS has stored."""
        return self.observer.grants

    # What a test or a plan does.

    def now(self) -> int:
        """Whole seconds since 1970 UTC, in this world."""
        return EPOCH + int(self.time)

    def at(self, when: float, action: Callable[[], object]) -> None:
        """Do something at a time, seconds since the beginning."""
        heapq.heappush(self._events, (max(when, self.time), next(self._order), action))

    def dial(self, caller: str, callee: str) -> bytes:
        """A user dials, on that host's device, the user of that other host. Returns the request's name."""
        request = self.random(16)
        device, other = self.device(caller), self.device(callee)
        self.tell_host(device.host, Dial(request=request, to=device.impi, callee=other.identity))
        return request

    def hang_up(self, name: str) -> None:
        """A user ends whatever call its device has."""
        device = self.device(name)
        member = self.member(name)
        assert isinstance(member.media, SilentMedia)
        for caller, call in member.media.calls():
            self.tell_host(device.host, HangUp(to=device.impi, caller=caller, call=call))

    def collect(self, name: str) -> None:
        """A user plays all messages that its device on this host knows of."""
        for message in self._inbox(name).waiting:
            wish = PlayMessage(
                request=self.random(16),
                to=self.device(name).impi,
                caller=message.caller,
                call=message.call,
            )
            self.tell_host(name, wish)

    def take_back(self, name: str) -> None:
        """A user deletes all messages that its device on this host has left."""
        device = self.device(name)
        for left in self._outbox(name).left:
            wish = DeleteMessage(
                request=self.random(16), to=device.impi, caller=device.identity, call=left.call
            )
            self.tell_host(name, wish)

    def tell_network(self, topic: Topic, key: str, message: Wire) -> None:
        """What an operator asks of an agent of the network."""
        self.broker.append(
            Outbound(topic.name, shard_of(key) % topic.partitions, key.encode(), encode(message))
        )

    def crash(self, member: Member, *, back_after_s: float) -> None:
        """A process dies, and comes back."""
        if member.loop is None:
            return
        assert member.bus is not None
        member.bus.abandon()
        member.loop = member.bus = None
        member.crashed_at.append(self.time)
        if member.media is not None:
            member.media.die()
        if member.party is Party.UE:  # a handset's memory dies with it
            member.store = MemoryStore()
        self.at(self.time + back_after_s, lambda: self._start(member))

    def switch_off(self, name: str, for_s: float) -> None:
        """A user's device is off for a while."""
        self.crash(self.member(name), back_after_s=for_s)

    def light(self, member: Member, fuse: Fuse) -> None:
        """The party will die at one of its next operations."""
        member.fuse.left, member.fuse.after = fuse.left, fuse.after

    def put_out_fuses(self) -> None:
        """Who has not died by now lives on."""
        for member in self.members:
            member.fuse.left = None

    def run_until(self, end: float) -> None:
        """Let the world go on until then."""
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
        self.time = end

    def run(self) -> World:
        """What chaos/plan.py has the users do; trouble; then all heals and rests."""
        plan_for(self)
        self.run_until(TROUBLE_S + BOUND_S)
        return self

    def identity_of(self, host: str) -> str:
        """Whose device lives there."""
        return self.device(host).identity

    def member(self, name: str) -> Member:
        """The process of that name: kms#1, kms#2, bsf, cscf, ..., or a user's host."""
        return next(member for member in self.members if member.name == name)

    def messages(self) -> list[tuple[float, Inbound, Message]]:
        """All that arrived on the bus, decoded."""
        fresh = self.history[len(self._arrived) :]
        self._arrived += ((when, record, decode(record.value)) for when, record in fresh)
        return self._arrived

    def sent(self) -> list[tuple[float, Outbound, Message]]:
        """What honest parties have sent, decoded, but for what they have buried."""
        fresh = self.transmitted[self._sent_known :]
        self._sent_known = len(self.transmitted)
        self._sent += (
            (when, record, decode(record.value))
            for when, record in fresh
            if record.topic != DEAD_LETTERS.name
        )
        return self._sent

    # How it works.

    @property
    def in_trouble(self) -> bool:
        return self.time < TROUBLE_S

    def device(self, name: str) -> Device:
        return next(device for device in self.devices if device.host == name)

    def _inbox(self, host: str) -> Inbox:
        return self._of_handset(host, Inbox.key_for(self.device(host).impi)) or Inbox()

    def _outbox(self, host: str) -> Outbox:
        return self._of_handset(host, Outbox.key_for(self.device(host).impi)) or Outbox()

    def _of_handset(self, host: str, key: Key[R]) -> R | None:
        [stored] = drive(self.member(host).store.read([key.name]))
        return None if stored.value is None else self.codec.decode(key, stored.value)

    def tell_host(self, host: str, message: Wish) -> None:
        """What a user wants of a device on that host."""
        self.broker.append(Outbound(ue_inbox(host).name, 0, message.to.encode(), encode(message)))

    def _start(self, member: Member) -> None:
        if member.loop is not None:
            return
        member.fuse = Fuse()
        if member.party is Party.UE:
            drive(provision_handsets(member.store, self.codec, member.devices, self.now(), self.random))
        member.bus = FaultyBus(
            MemoryBus(self.broker, member.group, member.inbox), member.fuse, self._transmit
        )
        store = FaultyStore(member.store, member.fuse, lambda changes: self._wrote(member, changes))
        if isinstance(member.media, SilentRecorder | SilentBridge):
            member.instance = self.random(8).hex()
        member.loop = member.loop_type(
            member.make(member.instance),
            member.bus,
            store,
            self.codec,
            clock=self.now,
            random=self.observer.drawing(self.random) if member.party is Party.KMS else self.random,
            carry_out=member.media.carry_out if member.media else None,
            monotonic=lambda: self.time,
        )
        member.soon_at = None
        for device in member.devices:
            member.loop.tell(HandsetAlarm(device.impi))
        for other in self.members:
            if other.inbox == member.inbox:  # its group was shared out anew
                self.step_soon(other)
                self.at(int(self.time) + 1, partial(self.step_soon, other))

    def step_soon(self, member: Member) -> None:
        """The party has something to do."""
        if not member.step_due:
            member.step_due = True
            self.at(self.time + HOP_S / 2, lambda: self._step(member))

    def deliver(self, address: MediaAddress, packet: bytes) -> None:
        """A media packet, for the recorder whose line it is."""
        for member in self.members:
            if isinstance(member.media, SilentRecorder):
                member.media.take(address, packet)

    def tell(self, name: str, event: Any) -> None:  # noqa: ANN401
        """A media event for the host of that name."""
        member = self.member(name)
        if member.loop is not None:
            member.loop.tell(event)
            self.step_soon(member)

    def _step(self, member: Member) -> None:
        member.step_due = False
        if member.loop is None:
            return
        try:
            busy = drive(member.loop.step(0))
        except Crashed:
            self.crash(member, back_after_s=self._chance.uniform(0.1, 10.0))
            return
        if busy:
            self.step_soon(member)
        soon = member.loop.soon_at
        if soon is not None and soon != member.soon_at:
            member.soon_at = soon
            self.at(soon, partial(self.step_soon, member))

    def _wrote(self, member: Member, changes: Sequence[Change]) -> None:
        for change in changes:
            for put in change.puts:
                if put.value is not None:
                    self.observer.put(member.party, member.name, put.name, put.value)
            for alarm in change.alarms:
                if alarm.at is not None:
                    # a loop looks for alarms once a second: one for this second may have to wait for the next
                    due = max(alarm.at - EPOCH, int(self.time) + 1)
                    self.at(due, partial(self._alarm_due, member.inbox, alarm.shard))

    def _alarm_due(self, inbox: str, shard: int) -> None:
        for member in self.members:
            if member.inbox != inbox or member.bus is None:
                continue
            if member.party is Party.UE or shard in member.bus.partitions():
                self.step_soon(member)

    def _transmit(self, record: Outbound) -> None:
        """One record on the network. Raises NoSuchTopic."""
        if not self.broker.takes(record.topic, record.partition):
            raise NoSuchTopic(record.topic)
        self.transmitted.append((self.time, record))
        if record.topic in DURABLE:
            self.broker.append(record)
            return
        if self.tamper is not None:
            record = self.tamper(record)
        if self.faults.forge:
            self.forger.sees(record)
        if self.faults.splice:
            self.splicer.sees(record)
        if self.faults.insider:
            self.insider.sees(record, self.observer.keys)
        if not self.in_trouble:
            self.at(self.time + HOP_S, lambda: self.broker.append(record))
            return
        if self._chance.random() < self.faults.forge:
            forged = self.forger.forge(record, self.now())
            if forged is not None:
                self.at(self.time + HOP_S / 4, lambda: self.broker.append(forged))
        if self._chance.random() < self.faults.insider:
            tried = self.insider.tries(record, self.now())
            if tried is not None:
                self.at(self.time + tried[0], partial(self.broker.append, tried[1]))
        if self._chance.random() < self.faults.splice:
            spliced = self.splicer.splice()
            if spliced is not None:
                self.at(self.time + self._chance.uniform(0.0, 10.0), lambda: self.broker.append(spliced))
        if self._chance.random() < self.faults.drop:
            return
        copies = 2 if self._chance.random() < self.faults.duplicate else 1
        for _ in range(copies):
            delay = HOP_S + self._chance.uniform(0.0, self.faults.delay_s)
            self.at(self.time + delay, lambda: self.broker.append(record))

    def _appended(self, record: Inbound) -> None:
        self.history.append((self.time, record))
        for member in self.members:
            if member.inbox == record.topic:
                self.step_soon(member)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coroutine.close()
    raise AssertionError("a simulated party waited for something real")
