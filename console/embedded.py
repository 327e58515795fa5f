"""The embedded deployment: all agents in this process, on a memory bus, with real UDP media on loopback.

    Town(...)  start -> bootstrapped -> dial -> ... -> stop

The agents and their loop are those of the cluster; only the bus and the stores are in memory. Every record
passes `_carry`, where a demonstration watches, puts its wiretap into the media's path, or changes one bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from agents.bsf import Bsf
from agents.cscf import Cscf
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from chaos.eavesdropping import holdings, keylike
from chaos.lab import draw_codec, draw_town
from chaos.tampering import Part, tamper
from chaos.wire import FaultyBus, Fuse
from chaos.wiretap import Wiretap, flip_a_bit_of_media
from console.ue_host import UeHost, UeHostSettings
from media.engine import EngineSettings
from media.leg import Leg
from media.pcm import Pcm
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transport import Statistics
from storage.memory import MemoryStore
from storage.provisioning import provision_network
from topics.access import ue_group
from topics.bus import Outbound
from topics.catalogue import BSF, CSCF, KMS, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Audit, Dial, HangUp, Invite, Message, Ok, Report, ReportEvent

_NETWORK: Final[tuple[tuple[str, Topic], ...]] = (("kms", KMS), ("bsf", BSF), ("cscf", CSCF))


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
    """What each user says, by name; a UE host for each."""
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
        self.wiretap: Final = Wiretap(flip_a_bit_of_media if settings.tampered is Part.SRTP else None)
        self.reports: list[Report] = []
        self.passed: dict[str, list[Message]] = {}  # what each party was sent
        self._codec = draw_codec(random)
        self._broker = MemoryBroker(catalogue(list(self.names)))
        self._network = MemoryStore()
        self._phones: dict[str, UeHost] = {}
        self._heard: dict[str, list[Pcm]] = {name: [] for name in self.names}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Provision everybody, bind the media lines, start the loops. Raises OSError without UDP sockets."""
        now = self._clock()
        await provision_network(self._network, self._codec, tuple(self.devices.values()), now, self._random)
        agents: dict[str, Agent] = {"kms": Kms(self._settings.profile), "bsf": Bsf(), "cscf": Cscf()}
        for name, inbox in _NETWORK:
            self._run(
                Loop(
                    agents[name],
                    self._bus(name, name, inbox),
                    self._network,
                    self._codec,
                    clock=self._clock,
                    random=self._random,
                )
            )
        for name in self.names:
            await self._switch_on(name)

    async def bootstrapped(self) -> None:
        """Returns when every handset is registered. Raises TimeoutError."""
        await self.until(
            lambda: (
                len({r.device for r in self.reports if r.event is ReportEvent.REGISTERED}) == len(self.names)
            )
        )

    def dial(self, caller: str, callee: str) -> None:
        """A user dials."""
        device, other = self.devices[caller], self.devices[callee]
        request = self._random(16)
        self._tell(caller, Dial(request=request, to=device.impi, callee=other.identity))

    def hang_up(self, name: str) -> None:
        """A user ends the calls that its device has reported to be up."""
        device = self.devices[name]
        for report in self.reports:
            if report.device == device.impi and report.event is ReportEvent.UP:
                assert report.call is not None
                assert report.caller is not None
                self._tell(name, HangUp(to=device.impi, caller=report.caller, call=report.call))

    async def until(self, true: Callable[[], bool], within_s: float = 40.0) -> None:
        """Returns when what has happened so far makes it true. Raises TimeoutError, and whatever ended
        an agent's loop."""
        async with asyncio.timeout(within_s):
            while not true():
                for task in self._tasks:
                    if task.done():
                        task.result()
                self._news.clear()
                await self._news.wait()

    def holdings(self, party: str) -> list[Secret]:
        """All secrets of a party's records, and for the control function what it could take for a key in the
        messages that passed it."""
        if party in self._phones:
            return holdings(self._phones[party].store, self._phones[party].codec, "ue")
        seen = [secret for message in self.passed.get(party, []) for secret in keylike(message)]
        return [*holdings(self._network, self._codec, party), *seen]

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
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for phone in self._phones.values():
            await phone.stop()
        self.wiretap.stop()

    async def _switch_on(self, name: str) -> None:
        """One user's host, its lines tapped."""
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
        self._run(phone.loop)

    def _bus(self, party: str, group: str, inbox: Topic) -> FaultyBus:
        bus = MemoryBus(self._broker, group, inbox.name)
        return FaultyBus(bus, Fuse(), lambda record: self._carry(party, record))

    def _run(self, loop: Loop) -> None:
        task = asyncio.create_task(loop.run(self._stopping))
        task.add_done_callback(lambda _: self._news.set())
        self._tasks.append(task)

    def _tell(self, host: str, message: Dial | HangUp) -> None:
        self._broker.append(Outbound(ue_inbox(host).name, 0, message.to.encode(), encode(message)))

    def _carry(self, sender: str, record: Outbound) -> None:
        """One record on its way."""
        message = decode(record.value)
        receiver = record.topic.removeprefix("ims.").removeprefix("ue.")
        if isinstance(message, Report):
            self.reports.append(message)
        elif not isinstance(message, Audit):
            message = self._altered(message)
            self.passed.setdefault(receiver, []).append(message)
        self._on_hop(Hop(sender, receiver, message))
        self._news.set()
        self._broker.append(
            Outbound(record.topic, record.partition, record.key, encode(message), record.headers)
        )

    def _altered(self, message: Message) -> Message:
        """As whoever controls the path wants it: media by way of the wiretap, one bit changed."""
        if isinstance(message, Invite | Ok):
            message = msgspec.structs.replace(message, media=self.wiretap.detour(message.media))
        return message if self._settings.tampered is None else tamper(self._settings.tampered, message)
