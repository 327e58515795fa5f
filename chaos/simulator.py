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
from agents.cscf import Cscf, CscfSettings
from agents.decision import Agent
from agents.handset.ue_call import UeSettings
from agents.runtime import Loop
from agents.ue import Ue
from agents.voicemail import VoicemailSettings
from chaos.faults import Cast, Faults
from chaos.forgery import Forger
from chaos.insider import Insider
from chaos.lab import draw_codec, draw_mailbox, draw_town
from chaos.observer import Granted, Observer
from chaos.silent_media import SilentMedia, SilentRecorder
from chaos.splicing import Splicer
from chaos.wire import Crashed, FaultyBus, FaultyStore, Fuse
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets, provision_network
from storage.records import Key, Record
from storage.store import Change
from storage.ue_records import Inbox, Outbox
from storage.users_file import Device
from topics.bus import Inbound, NoSuchTopic, Outbound
from topics.catalogue import (
    AUDIT,
    BSF,
    CSCF,
    DEAD_LETTERS,
    KMS,
    REPORTS,
    VOICEMAIL,
    Party,
    catalogue,
    ue_inbox,
)
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import DeleteMessage, Dial, HangUp, Message, PlayMessage

T = TypeVar("T")
R = TypeVar("R", bound=Record)

EPOCH: Final = 1_800_000_000  # where the simulated clock begins, seconds since 1970 UTC
TROUBLE_S: Final = 60.0  # how long the network and the crashes go on
BOUND_S: Final = 300.0  # a call that began in trouble has ended or come up so long after it
HOP_S: Final = 0.001
LINES: Final = 4
SECONDS_MAX: Final = 30  # of a message
NAMES: Final = ("alice", "bob", "bob-2", "carol")  # bob has two devices
DURABLE: Final = frozenset({AUDIT.name, DEAD_LETTERS.name, REPORTS.name})  # acknowledged means kept


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
    media: SilentMedia | SilentRecorder | None = None
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
        mailbox: bool = True,
        tamper: Callable[[Outbound], Outbound] | None = None,
    ) -> None:
        """mailbox: whether call control knows of one. tamper: changes records on their way, for a test of one
        thing."""
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
        self._diverts = mailbox
        self.broker = MemoryBroker(catalogue(list(names)))
        self.history: list[tuple[float, Inbound]] = []
        self.transmitted: list[tuple[float, Outbound]] = []
        self.broker.on_append.append(self._appended)
        self.codec = draw_codec(self.random)
        self.network = MemoryStore()
        everybody = (*self.devices, self.mailbox)
        drive(provision_network(self.network, self.codec, everybody, EPOCH, self.random))
        inboxes = [
            KMS.name,
            BSF.name,
            CSCF.name,
            VOICEMAIL.name,
            *(ue_inbox(device.host).name for device in self.devices),
        ]
        self.splicer = Splicer(seed, inboxes)
        self.insider = Insider(self.devices[2 % len(self.devices)], seed, self.random)
        self.sessions: list[SilentMedia] = []
        self.observer = Observer(self.codec, self.devices)
        self.forger = Forger(self.random, self.observer.keys)
        self.members: list[_Member] = []
        self.members += [
            self._network_member("kms#1", Party.KMS, KMS.name, cast.kms, cast.kms_loop),
            self._network_member("kms#2", Party.KMS, KMS.name, cast.kms, cast.kms_loop),
            self._network_member("bsf", Party.BSF, BSF.name, Bsf, Loop),
            self._network_member("cscf", Party.CSCF, CSCF.name, self._cscf, Loop),
            self._mailbox_member("voicemail#1"),
            self._mailbox_member("voicemail#2"),
            *(self._ue_member(device, answer_after_s) for device in self.devices),
        ]
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
        device, other = self._device(caller), self._device(callee)
        self._tell_host(device.host, Dial(request=request, to=device.impi, callee=other.identity))
        return request

    def hang_up(self, name: str) -> None:
        """A user ends whatever call its device has."""
        device = self._device(name)
        member = self.member(name)
        assert isinstance(member.media, SilentMedia)
        for caller, call in member.media.calls():
            self._tell_host(device.host, HangUp(to=device.impi, caller=caller, call=call))

    def collect(self, name: str) -> None:
        """A user plays all messages that its device on this host knows of."""
        for message in self._inbox(name).waiting:
            wish = PlayMessage(
                request=self.random(16),
                to=self._device(name).impi,
                caller=message.caller,
                call=message.call,
            )
            self._tell_host(name, wish)

    def take_back(self, name: str) -> None:
        """A user deletes all messages that its device on this host has left."""
        device = self._device(name)
        for left in self._outbox(name).left:
            wish = DeleteMessage(
                request=self.random(16), to=device.impi, caller=device.identity, call=left.call
            )
            self._tell_host(name, wish)

    def crash(self, member: _Member, *, back_after_s: float) -> None:
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

    def run_until(self, end: float) -> None:
        """Let the world go on until then."""
        while self._events and self._events[0][0] <= end:
            self.time, _, action = heapq.heappop(self._events)
            action()
        self.time = end

    def run(self) -> World:
        """A plan from the seed: dial, hang up, crash, be away, collect, in trouble; then heal and rest."""
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
        if self.faults.away:
            self._plan_messages(plan)
        self.run_until(TROUBLE_S + BOUND_S)
        return self

    def _plan_messages(self, plan: seeded.Random) -> None:
        """A user's devices are off for a while; later messages are collected, or taken back."""
        user = plan.choice(self.devices).identity
        hosts = [device.host for device in self.devices if device.identity == user]
        off = plan.uniform(0.0, TROUBLE_S / 2)
        for host in hosts:
            self.at(off, partial(self._switch_off, host, plan.uniform(5.0, TROUBLE_S)))
        callers = [device for device in self.devices if device.identity != user]
        when = off + plan.uniform(0.0, 5.0)
        caller = plan.choice(callers).host
        self.at(when, partial(self.dial, caller, hosts[0]))
        self.at(when + plan.uniform(10.0, 40.0), partial(self.hang_up, caller))
        for host in plan.sample(hosts, plan.randint(1, len(hosts))):
            self.at(plan.uniform(TROUBLE_S, TROUBLE_S + 90.0), partial(self.collect, host))
        if plan.random() < 0.25:
            self.at(plan.uniform(TROUBLE_S / 2, TROUBLE_S + 90.0), partial(self.take_back, caller))

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

    def _switch_off(self, host: str, for_s: float) -> None:
        self.crash(self.member(host), back_after_s=for_s)

    def _inbox(self, host: str) -> Inbox:
        return self._of_handset(host, Inbox.key_for(self._device(host).impi)) or Inbox()

    def _outbox(self, host: str) -> Outbox:
        return self._of_handset(host, Outbox.key_for(self._device(host).impi)) or Outbox()

    def _of_handset(self, host: str, key: Key[R]) -> R | None:
        [stored] = drive(self.member(host).store.read([key.name]))
        return None if stored.value is None else self.codec.decode(key, stored.value)

    def _tell_host(self, host: str, message: Dial | HangUp | PlayMessage | DeleteMessage) -> None:
        self.broker.append(Outbound(ue_inbox(host).name, 0, message.to.encode(), encode(message)))

    def _network_member(
        self, name: str, party: Party, inbox: str, make: Callable[[], Agent], loop_type: type[Loop]
    ) -> _Member:
        return _Member(name, party, inbox, party, make, loop_type, self.network)

    def _cscf(self) -> Agent:
        return Cscf(CscfSettings(mailbox=self.mailbox.identity if self._diverts else ""))

    def _mailbox_member(self, name: str) -> _Member:
        """One process of the mailbox; each start of it is another instance."""
        lines = tuple(MediaAddress(name.replace("#", "-"), 50_000 + line) for line in range(LINES))
        member = _Member(
            name,
            Party.VOICEMAIL,
            VOICEMAIL.name,
            Party.VOICEMAIL,
            lambda: self.cast.voicemail(self._voicemail_settings(lines)),
            Loop,
            self.network,
        )
        member.media = SilentRecorder(self, name, lines)
        return member

    def _voicemail_settings(self, lines: tuple[MediaAddress, ...]) -> VoicemailSettings:
        assert self.mailbox.psk is not None
        return VoicemailSettings(
            identity=self.mailbox.identity,
            key_id=self.mailbox.psk_id,
            key=self.mailbox.psk,
            instance=self.random(8).hex(),
            lines=lines,
            message_s=SECONDS_MAX,
            keep_s=self.faults.keep_s,
        )

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
                    self.observer.kms_put(put.name, put.value)
                elif put.value is not None and member.party is Party.UE:
                    self.observer.ue_put(member.name, put.name, put.value)
                elif put.value is not None and member.party is Party.VOICEMAIL:
                    self.observer.mailbox_octets.append(put.value)
            for alarm in change.alarms:
                if alarm.at is not None:
                    # a loop looks for alarms once a second: one for this second may have to wait for the next
                    due = max(alarm.at - EPOCH, int(self.time) + 1)
                    for other in self.members:
                        if other.inbox == member.inbox:
                            self.at(due, partial(self.step_soon, other))

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
