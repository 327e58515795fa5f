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
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from agents.alarms import HandsetAlarm
from agents.bsf import Bsf
from agents.cscf import Cscf
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from agents.ue import Ue
from agents.ue_call import UeSettings
from chaos.forgery import Forger
from chaos.lab import draw_codec, draw_town
from chaos.silent_media import SilentMedia
from chaos.splicing import Splicer
from chaos.wire import Crashed, FaultyBus, FaultyStore, Fuse
from protocol.profile import HARDENED, Profile
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.kms_records import Agreement, Fork, Subscriber
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.records import Key
from storage.store import Change
from storage.ue_records import Collecting, UeCall
from storage.users_file import Device
from topics.bus import Inbound, NoSuchTopic, Outbound
from topics.catalogue import AUDIT, BSF, CSCF, DEAD_LETTERS, KMS, REPORTS, Party, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Dial, HangUp, Message

T = TypeVar("T")

EPOCH: Final = 1_800_000_000  # where the simulated clock begins, seconds since 1970 UTC
TROUBLE_S: Final = 60.0  # how long the network and the crashes go on
BOUND_S: Final = 300.0  # a call that began in trouble has ended or come up so long after it
HOP_S: Final = 0.001
LINES: Final = 4
NAMES: Final = ("alice", "bob", "bob-2", "carol")  # bob has two devices
DURABLE: Final = frozenset({AUDIT.name, DEAD_LETTERS.name, REPORTS.name})  # acknowledged means kept


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad it is, while it lasts."""

    drop: float = 0.0
    """Chance that a record is lost."""
    duplicate: float = 0.0
    """Chance that it comes twice."""
    delay_s: float = 0.0
    """The longest delay; records of different delays overtake each other."""
    forge: float = 0.0
    """Chance that a confused KMS answers a request first, wrongly, under the right keys."""
    splice: float = 0.0
    """Chance that an outsider adds a record, spliced from those that it has seen."""
    crashes: int = 0
    """How many times a party dies."""
    calls: int = 1
    """How many calls are dialled."""

    @staticmethod
    def drawn(seed: int) -> Faults:
        """The faults of a seed: one in eight seeds has none, so that the plain way is walked too."""
        chance = seeded.Random(f"faults {seed}")
        if chance.random() < 0.125:
            return Faults(calls=chance.randint(1, 3))
        return Faults(
            drop=chance.choice((0.0, 0.02, 0.1, 0.3)),
            duplicate=chance.choice((0.0, 0.1, 0.3)),
            delay_s=chance.choice((0.0, 0.05, 2.0, 8.0)),
            forge=chance.choice((0.0, 0.0, 0.2)),
            splice=chance.choice((0.0, 0.0, 0.5)),
            crashes=chance.choice((0, 1, 2, 4)),
            calls=chance.randint(1, 3),
        )


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays; a mutant takes one of the parts to show that the invariants notice."""

    kms: Callable[[], Agent] = field(default=lambda: Kms(HARDENED))
    ue_profile: Profile = HARDENED
    kms_loop: type[Loop] = Loop


@dataclass(frozen=True, slots=True)
class Granted:
    """K, as a KMS has stored it."""

    call: str  # ID-A and C, as protocol/sharding.py writes them
    n: int
    callee: str
    caller_key: str
    callee_key: str | None  # None: for a message in a mailbox, which any device of the callee may fetch
    key: Secret
    at: int
    not_after: int


@dataclass(slots=True)
class _Member:
    """One process: its agent, its memory, and whether it runs."""

    name: str
    party: Party
    inbox: str
    group: str
    make: Callable[[], Agent]
    loop_type: type[Loop]
    store: MemoryStore
    devices: tuple[Device, ...] = ()  # of a UE host
    media: SilentMedia | None = None
    loop: Loop | None = None
    bus: FaultyBus | None = None
    fuse: Fuse = field(default_factory=Fuse)
    step_due: bool = False
    crashed_at: list[float] = field(default_factory=list)


class World:
    """One run of the simulation; `run` it, then read its history."""

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        cast: Cast | None = None,
        *,
        names: Sequence[str] = NAMES,
        answer_after_s: int | None = 0,
        tamper: Callable[[Outbound], Outbound] | None = None,
    ) -> None:
        """tamper: changes records on their way, for a test of one thing."""
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
        self.broker = MemoryBroker(catalogue(list(names)))
        self.history: list[tuple[float, Inbound]] = []
        self.transmitted: list[tuple[float, Outbound]] = []
        self.broker.on_append.append(self._appended)
        self.codec = draw_codec(self.random)
        self.network = MemoryStore()
        drive(provision_network(self.network, self.codec, self.devices, EPOCH, self.random))
        self.forger = Forger(self.random)
        inboxes = [KMS.name, BSF.name, CSCF.name, *(ue_inbox(device.host).name for device in self.devices)]
        self.splicer = Splicer(seed, inboxes)
        self.sessions: list[SilentMedia] = []
        self.grants: list[Granted] = []
        self.hosts_of_keys: dict[str, str] = {}  # key id -> the UE host of the device whose it is
        self.held: dict[Secret, set[str]] = {}  # K -> the UE hosts in whose records it was
        self.members: list[_Member] = []
        self.members += [
            self._network_member("kms#1", Party.KMS, KMS.name, cast.kms, cast.kms_loop),
            self._network_member("kms#2", Party.KMS, KMS.name, cast.kms, cast.kms_loop),
            self._network_member("bsf", Party.BSF, BSF.name, Bsf, Loop),
            self._network_member("cscf", Party.CSCF, CSCF.name, Cscf, Loop),
            *(self._ue_member(device, answer_after_s) for device in self.devices),
        ]
        for member in self.members:
            self._start(member)

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
        device, other = self._device(caller), self._device(callee)
        self._tell_host(device.host, Dial(request=request, to=device.impi, callee=other.identity))
        return request

    def hang_up(self, name: str) -> None:
        """A user ends whatever call its device has."""
        device = self._device(name)
        member = self.member(name)
        assert member.media is not None
        for caller, call in member.media.calls():
            self._tell_host(device.host, HangUp(to=device.impi, caller=caller, call=call))

    def crash(self, member: _Member, *, back_after_s: float) -> None:
        """A process dies, and comes back."""
        if member.loop is None:
            return
        assert member.bus is not None
        member.bus.abandon()
        member.loop = member.bus = None
        member.crashed_at.append(self.time)
        if member.media is not None:  # a handset's memory dies with it
            member.media.die()
            member.store = MemoryStore()
        self.at(self.time + back_after_s, lambda: self._start(member))

    def run_until(self, end: float) -> None:
        """Let the world go on until then."""
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
        self.time = end

    def run(self) -> World:
        """A plan from the seed: dial, hang up and crash in trouble, then heal and come to rest."""
        plan = seeded.Random(f"plan {self.seed}")
        for _ in range(self.faults.calls):
            caller, callee = self._two_users(plan)
            when = plan.uniform(2.0, TROUBLE_S * 0.8)
            self.at(when, partial(self.dial, caller, callee))
            if plan.random() < 0.5:
                end = when + plan.uniform(0.0, 30.0)
                self.at(end, partial(self.hang_up, plan.choice((caller, callee))))
        for _ in range(self.faults.crashes):
            fuse = Fuse(plan.randint(1, 12), after=plan.random() < 0.5)
            self.at(plan.uniform(0.0, TROUBLE_S), partial(self._light, plan.choice(self.members), fuse))
        self.run_until(TROUBLE_S + BOUND_S)
        return self

    def identity_of(self, host: str) -> str:
        """Whose device lives there."""
        return self._device(host).identity

    def member(self, name: str) -> _Member:
        """The process of that name: kms#1, kms#2, bsf, cscf, or a user's host."""
        return next(member for member in self.members if member.name == name)

    def messages(self) -> list[tuple[float, Inbound, Message]]:
        """All that arrived on the bus, decoded."""
        return [(when, record, decode(record.value)) for when, record in self.history]

    # How it works.

    @property
    def in_trouble(self) -> bool:
        return self.time < TROUBLE_S

    def _device(self, name: str) -> Device:
        return next(device for device in self.devices if device.host == name)

    def _two_users(self, plan: seeded.Random) -> tuple[str, str]:
        """The hosts of two devices that are not the same user's."""
        caller = plan.choice(self.devices)
        others = [device for device in self.devices if device.identity != caller.identity]
        return caller.host, plan.choice(others).host

    def _tell_host(self, host: str, message: Dial | HangUp) -> None:
        self.broker.append(Outbound(ue_inbox(host).name, 0, message.to.encode(), encode(message)))

    def _network_member(
        self, name: str, party: Party, inbox: str, make: Callable[[], Agent], loop_type: type[Loop]
    ) -> _Member:
        return _Member(name, party, inbox, party, make, loop_type, self.network)

    def _ue_member(self, device: Device, answer_after_s: int | None) -> _Member:
        settings = UeSettings(
            host=device.host,
            lines=tuple(MediaAddress(device.host, 40_000 + line) for line in range(LINES)),
            answer_after_s=answer_after_s,
        )
        profile = self.cast.ue_profile
        inbox = ue_inbox(device.host).name
        member = _Member(
            device.host,
            Party.UE,
            inbox,
            f"ue.{device.host}",
            lambda: Ue(profile, settings),
            Loop,
            MemoryStore(),
        )
        member.devices = (device,)
        member.media = SilentMedia(self, member.name)
        self.sessions.append(member.media)
        return member

    def _start(self, member: _Member) -> None:
        if member.loop is not None:
            return
        member.fuse = Fuse()
        if member.party is Party.UE:
            drive(provision_handsets(member.store, self.codec, member.devices, self.now(), self.random))
        member.bus = FaultyBus(
            MemoryBus(self.broker, member.group, member.inbox), member.fuse, self._transmit
        )
        store = FaultyStore(member.store, member.fuse, lambda changes: self._wrote(member, changes))
        member.loop = member.loop_type(
            member.make(),
            member.bus,
            store,
            self.codec,
            clock=self.now,
            random=self.random,
            carry_out=member.media.carry_out if member.media else None,
        )
        for device in member.devices:
            member.loop.tell(HandsetAlarm(device.impi))
        for other in self.members:
            if other.inbox == member.inbox:  # its group was shared out anew
                self.step_soon(other)

    def step_soon(self, member: _Member) -> None:
        """The party has something to do."""
        if not member.step_due:
            member.step_due = True
            self.at(self.time + HOP_S / 2, lambda: self._step(member))

    def tell(self, name: str, event: Any) -> None:  # noqa: ANN401
        """A media event for the host of that name."""
        member = self.member(name)
        if member.loop is not None:
            member.loop.tell(event)
            self.step_soon(member)

    def _step(self, member: _Member) -> None:
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

    def _light(self, member: _Member, fuse: Fuse) -> None:
        """The party will die at one of its next operations."""
        member.fuse.left, member.fuse.after = fuse.left, fuse.after

    def _wrote(self, member: _Member, changes: Sequence[Change]) -> None:
        for change in changes:
            for put in change.puts:
                if put.value is not None and member.party is Party.KMS:
                    self._kms_put(put.name, put.value)
                elif put.value is not None and member.party is Party.UE:
                    self._ue_put(member.name, put.name, put.value)
            for alarm in change.alarms:
                if alarm.at is not None:
                    for other in self.members:
                        if other.inbox == member.inbox:
                            self.at(alarm.at - EPOCH, partial(self.step_soon, other))

    def _kms_put(self, name: str, value: bytes) -> None:
        """Note what the KMS now holds: K for each answering device and each message, K_x for each key id."""
        if ":agreement:" in name:
            agreement = self.codec.decode(Key(name, Agreement), value)
            for run in agreement.runs:
                deposits = (run.deposit,) if run.deposit is not None else ()
                for made in (*run.forks, *deposits):
                    if made.key is not None:
                        granted = Granted(
                            call=name.partition(":agreement:")[2],
                            n=run.n,
                            callee=run.callee,
                            caller_key=run.caller_key,
                            callee_key=made.callee_key if isinstance(made, Fork) else None,
                            key=made.key,
                            at=made.granted,
                            not_after=made.not_after,
                        )
                        if granted not in self.grants:
                            self.grants.append(granted)
        elif ":subscriber:" in name:
            subscriber = self.codec.decode(Key(name, Subscriber), value)
            self.forger.keys[subscriber.key_id] = subscriber.key
            host = next((device.host for device in self.devices if device.impi == subscriber.impi), "")
            self.hosts_of_keys[subscriber.key_id] = host

    def _ue_put(self, host: str, name: str, value: bytes) -> None:
        """Note which K a UE host now holds."""
        key: Secret | None = None
        if ":call:" in name:
            key = self.codec.decode(Key(name, UeCall), value).key
        elif ":collecting:" in name:
            key = self.codec.decode(Key(name, Collecting), value).key
        if key is not None:
            self.held.setdefault(key, set()).add(host)

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
        self.forger.sees(record)
        self.splicer.sees(record)
        if not self.in_trouble:
            self.at(self.time + HOP_S, lambda: self.broker.append(record))
            return
        if self._chance.random() < self.faults.forge:
            forged = self.forger.forge(record, self.now())
            if forged is not None:
                self.at(self.time + HOP_S / 4, lambda: self.broker.append(forged))
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
