"""The embedded deployment: all agents in this process, on a memory bus, with real UDP media on loopback.

    Town(...)  start -> registered -> dial -> ... -> stop

The agents and their loop are those of the cluster; only the bus and the stores are in memory. Every record
passes `_carry`, where a demonstration watches, puts its wiretap into the media's path, or changes one bit.
Network functions that have media may have more than one process (console/instances.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agents.bsf import Bsf
from agents.cscf import Cscf, CscfSettings
from agents.custodian import Custodian
from agents.decision import Agent
from agents.kms import Kms, KmsSettings
from agents.runtime import Loop
from chaos.eavesdropping import holdings, keylike
from chaos.lab import draw_codec, draw_focus, draw_mailbox, draw_town, draw_transcoder
from chaos.tampering import Part, tamper
from chaos.wire import FaultyBus, Fuse
from chaos.wiretap import Wiretap, flip_a_bit_of_media
from console.hosting.ue_host import UeHost, UeHostSettings
from console.instances import Instances, role_of
from console.remembered import Remembered
from console.wishes import Wishes
from media.engine import EngineSettings
from media.leg import Leg, MediaEvent, MediaInstruction
from media.pcm import Pcm
from protocol.description import SrtpSuite
from protocol.limits import LIFE_S
from protocol.names import Permit, Suite
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transport import Statistics
from storage.memory import MemoryStore
from storage.provisioning import provision_network
from topics.access import ue_group
from topics.bus import Outbound
from topics.catalogue import (
    BSF,
    CONFERENCE,
    CSCF,
    KMS,
    ORDERS,
    TRANSCODER,
    VOICEMAIL,
    Topic,
    catalogue,
    ue_inbox,
)
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import (
    Audit,
    ConferenceReport,
    HangUp,
    Invite,
    Join,
    Joined,
    MailboxOk,
    Message,
    Notice,
    Ok,
    Rekey,
    Report,
    ReportEvent,
)

_ROLES: Final = {"kms": KMS, "custodian": ORDERS, "bsf": BSF, "cscf": CSCF}
_FUNCTIONS: Final = {"voicemail": VOICEMAIL, "transcoder": TRANSCODER, "conference": CONFERENCE}
_LINES: Final = {"voicemail": 4, "transcoder": 4, "conference": 16}


@dataclass(frozen=True, slots=True)
class Hop:
    """A message from one party to the next."""

    sender: str
    receiver: str
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class TownSettings:
    """How the town is set up."""

    sounds: dict[str, Pcm]
    """What is said on each UE host, by its name; `bob-2` is bob's second device."""
    absent: frozenset[str] = frozenset()
    """Hosts that are not switched on at the start."""
    functions: tuple[str, ...] = ("voicemail",)
    """The processes of network functions, such as `voicemail`, `transcoder`, `transcoder-2`, `conference`;
    those of `absent` are not switched on at the start."""
    codecs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What each UE host can speak, the first choice first; PCMU where nothing is said."""
    permits: dict[str, tuple[Permit, ...]] = field(default_factory=dict)
    """What its user consents to, sorted; `deferred` where nothing is said."""
    life_s: int = LIFE_S
    """The life of a call's key."""
    answer_after_s: int = 0
    """Seconds of ringing before a handset answers by itself."""
    profile: Profile = HARDENED
    suite: Suite = Suite.AES_256_GCM
    srtp_suites: tuple[SrtpSuite, ...] = tuple(SrtpSuite)
    tampered: Part | None = None
    """The part of which one bit is changed on its way."""


class Town:
    """Everybody, running."""

    def __init__(
        self,
        settings: TownSettings,
        *,
        clock: Callable[[], int],
        random: Random,
        on_hop: Callable[[Hop], None],
    ) -> None:
        """on_hop: called with each message, report and audit record as it leaves."""
        self._settings = settings
        self._clock = clock
        self._random = random
        self._on_hop = on_hop
        self.names: Final = tuple(settings.sounds)
        self.devices: Final = {device.host: device for device in draw_town(self.names, random)}
        self.mailbox: Final = draw_mailbox(random)
        self.transcoder: Final = draw_transcoder(random)
        self.focus: Final = draw_focus(random)
        self._functions = {"voicemail": self.mailbox, "transcoder": self.transcoder, "conference": self.focus}
        self.wiretap: Final = Wiretap(flip_a_bit_of_media if settings.tampered is Part.SRTP else None)
        self.reports: list[Report] = []
        self.conferences: list[ConferenceReport] = []
        self.audits: list[Audit] = []
        self.passed: dict[str, list[Message]] = {}  # what each party was sent
        self._codec = draw_codec(random)
        self._broker = MemoryBroker(catalogue(list(self.names)))
        self._network = MemoryStore()
        self.remembered: Final = Remembered(self._network, self._codec)
        self.wishes: Final = Wishes(self.devices, self.focus.identity, random, self._broker.append)
        self._phones: dict[str, UeHost] = {}
        self._heard: dict[str, list[Pcm]] = {name: [] for name in self.names}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loops: dict[str, Loop] = {}
        self._instances = Instances(random, self.wiretap)
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Provision everybody, bind the media lines, start the loops. Raises OSError without UDP sockets."""
        now = self._clock()
        devices = (*self.devices.values(), self.mailbox, self.transcoder, self.focus)
        await provision_network(self._network, self._codec, devices, now, self._random)
        for role in _ROLES:
            self._start_role(role)
        for name in (*self._settings.functions, *self.names):
            if name not in self._settings.absent:
                await self.switch_on(name)

    async def registered(self, *names: str) -> None:
        """Returns when these handsets, or all that are on, are registered. Raises TimeoutError."""
        awaited = {self.devices[name].impi for name in names or self._phones}
        await self.until(
            lambda: awaited <= {r.device for r in self.reports if r.event is ReportEvent.REGISTERED}
        )

    async def switch_on(self, name: str) -> None:
        """Start a UE host, or a process of a network function, its lines tapped. Raises OSError."""
        if role_of(name):
            await self._start_instance(name)
        else:
            await self._start_phone(name)

    async def _start_phone(self, name: str) -> None:
        settings, sound = self._settings, self._settings.sounds[name]

        def sink(_leg: Leg, pcm: Pcm) -> None:
            self._heard[name].append(pcm)
            self._news.set()

        phone = self._phones[name] = UeHost(
            UeHostSettings(
                host=name,
                devices=(self.devices[name],),
                engine=EngineSettings(lines=1),
                profile=settings.profile,
                suite=settings.suite,
                srtp_suites=settings.srtp_suites,
                codecs=settings.codecs.get(name, ("PCMU",)),
                permits=settings.permits.get(name, (Permit.DEFERRED,)),
                answer_after_s=settings.answer_after_s,
            ),
            self._bus(name, ue_group(name), ue_inbox(name)),
            clock=self._clock,
            random=self._random,
            source=lambda _leg: sound,
            sink=sink,
        )
        await phone.start()
        for line in phone.lines:
            await self.wiretap.tap(name, line)
        self._run(name, phone.loop)

    async def switch_off(self, name: str) -> None:
        """End a process where it stands: all that it had in memory is gone, as its handsets' calls are. Of a
        network function another process takes over what it had."""
        await self._end(name)
        if role_of(name):
            await self._instances.close(name)
        else:
            await self._phones.pop(name).stop()

    async def restart_network(self) -> None:
        """End the processes of all network roles at once, and start them anew on the same store."""
        running = [name for name in self._tasks if role_of(name)]
        for name in (*_ROLES, *running):
            await self._end(name)
        await self._instances.close_all()
        for role in _ROLES:
            self._start_role(role)
        for name in running:
            await self._start_instance(name)

    def told(self, event: ReportEvent) -> list[str]:
        """The UE hosts that have told it, as often as they did."""
        hosts = {device.impi: name for name, device in self.devices.items()}
        return [hosts[report.device] for report in self.reports if report.event is event]

    def hang_up(self, name: str) -> None:
        """A user ends the calls that its device has reported to be up."""
        device = self.devices[name]
        for report in self.reports:
            if report.device == device.impi and report.event in {ReportEvent.UP, ReportEvent.MAILBOX}:
                assert report.call is not None
                assert report.caller is not None
                self.wishes.tell(name, HangUp(to=device.impi, caller=report.caller, call=report.call))

    async def until(self, true: Callable[[], bool], within_s: float = 40.0) -> None:
        """Returns when what has happened so far makes it true. Raises TimeoutError, and whatever ended
        an agent's loop."""
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    for task in self._tasks.values():
                        if task.done():
                            task.result()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"what should follow has not happened within {within_s:.0f} s") from None

    def holdings(self, party: str) -> list[Secret]:
        """All secrets of a party's records, and for the control function what it could take for a key in the
        messages that passed it."""
        if party in self._phones:
            return holdings(self._phones[party].store, self._phones[party].codec, "ue")
        seen = [secret for message in self.passed.get(party, []) for secret in keylike(message)]
        psk = self._functions[party].psk if party in self._functions else None
        own = [psk] if psk else []
        given = [
            key for name, keys in self._instances.roots.items() if role_of(name) == party for key in keys
        ]
        return [*own, *given, *self.remembered.secrets(party), *seen]

    def roots(self, instance: str) -> list[Secret]:
        """The root keys that the media of this process of a network function were given so far."""
        return self._instances.roots.get(instance, [])

    def statistics(self, name: str) -> Statistics:
        """How a user's media went in the last call that has ended. Raises StopIteration before."""
        impi = self.devices[name].impi
        return next(r.statistics for r in reversed(self.reports) if r.device == impi and r.statistics)

    def heard(self, name: str) -> list[Pcm]:
        """What a user has heard, one sound for each call that has ended."""
        return self._heard[name]

    async def stop(self) -> None:
        """Everybody finishes and goes."""
        self._stopping.set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for phone in self._phones.values():
            await phone.stop()
        await self._instances.close_all()
        self.wiretap.stop()

    def _start_role(self, role: str) -> None:
        """One network role's process."""
        self._start_loop(role, role, self._agent(role), _ROLES[role], None)

    async def _start_instance(self, name: str) -> None:
        """One process of a network function."""
        role = role_of(name)

        def told(event: MediaEvent) -> None:
            self._loops[name].tell(event)

        device, lines = self._functions[role], _LINES[role]
        agent, carry_out = await self._instances.open(name, device, lines, told)
        self._start_loop(name, role, agent, _FUNCTIONS[role], carry_out)

    def _start_loop(
        self,
        name: str,
        group: str,
        agent: Agent,
        inbox: Topic,
        carry_out: Callable[[MediaInstruction], None] | None,
    ) -> None:
        loop = self._loops[name] = Loop(
            agent,
            self._bus(group, group, inbox),
            self._network,
            self._codec,
            clock=self._clock,
            random=self._random,
            carry_out=carry_out,
        )
        self._run(name, loop)

    def _agent(self, role: str) -> Agent:
        settings = self._settings
        match role:
            case "kms":
                return Kms(settings.profile, KmsSettings(life_s=settings.life_s))
            case "custodian":
                return Custodian()
            case "bsf":
                return Bsf()
            case _:
                there = {role_of(name) for name in settings.functions}
                named = {role: device.identity for role, device in self._functions.items() if role in there}
                return Cscf(
                    CscfSettings(
                        mailbox=named.get("voicemail", ""),
                        transcoder=named.get("transcoder", ""),
                        focus=named.get("conference", ""),
                    )
                )

    async def _end(self, party: str) -> None:
        """End a process where it stands."""
        task = self._tasks.pop(party)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _bus(self, party: str, group: str, inbox: Topic) -> FaultyBus:
        bus = MemoryBus(self._broker, group, inbox.name)
        return FaultyBus(bus, Fuse(), lambda record: self._carry(party, record))

    def _run(self, party: str, loop: Loop) -> None:
        task = asyncio.create_task(loop.run(self._stopping))
        task.add_done_callback(lambda _: self._news.set())
        self._tasks[party] = task

    def _carry(self, sender: str, record: Outbound) -> None:
        """One record on its way."""
        message = decode(record.value)
        receiver = record.topic.removeprefix("ims.").removeprefix("ue.")
        match message:
            case Report():
                self.reports.append(message)
            case ConferenceReport():
                self.conferences.append(message)
            case Audit():
                self.audits.append(message)
            case _:
                message = self._altered(message)
                self.passed.setdefault(receiver, []).append(message)
        self._on_hop(Hop(sender, receiver, message))
        self._news.set()
        self._broker.append(
            Outbound(record.topic, record.partition, record.key, encode(message), record.headers)
        )

    def _altered(self, message: Message) -> Message:
        """As whoever controls the path wants it: media by way of the wiretap, one bit changed."""
        if isinstance(message, Invite | Ok | MailboxOk | Notice | Join | Joined | Rekey) and message.media:
            message = msgspec.structs.replace(message, media=self.wiretap.detour(message.media))
        return message if self._settings.tampered is None else tamper(self._settings.tampered, message)
