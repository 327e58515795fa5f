"""The embedded deployment: all agents in this process, on a memory bus, with real UDP media on loopback.

    Town(...)  start -> registered -> dial -> ... -> stop

The agents and their loop are those of the cluster; only the bus and the stores are in memory. Every record
passes `_carry`, where a demonstration watches, puts its wiretap into the media's path, or changes one bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from agents.bsf import Bsf
from agents.cscf import Cscf, CscfSettings
from agents.decision import Agent
from agents.kms import Kms
from agents.mailbox.stored_message import VoicemailSettings
from agents.runtime import Loop
from agents.voicemail import Voicemail
from chaos.eavesdropping import holdings, keylike
from chaos.lab import draw_codec, draw_mailbox, draw_town
from chaos.tampering import Part, tamper
from chaos.wire import FaultyBus, Fuse
from chaos.wiretap import Wiretap, flip_a_bit_of_media
from console.hosting.ue_host import UeHost, UeHostSettings
from media.engine import EngineSettings
from media.leg import Leg, MediaEvent, MediaInstruction
from media.pcm import Pcm
from media.recorder import Recorder, RecorderSettings
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import HARDENED, Profile
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transport import Statistics
from storage.kms_records import Agreement, Subscriber
from storage.memory import MemoryStore
from storage.provisioning import provision_network
from storage.records import Key, Record
from topics.access import ue_group
from topics.bus import Outbound
from topics.catalogue import BSF, CSCF, KMS, VOICEMAIL, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import (
    Audit,
    DeleteMessage,
    Dial,
    HangUp,
    Invite,
    ListMessages,
    MailboxOk,
    Message,
    Ok,
    PlayMessage,
    Report,
    ReportEvent,
)

_NETWORK: Final = {"kms": KMS, "bsf": BSF, "cscf": CSCF, "voicemail": VOICEMAIL}
R = TypeVar("R", bound=Record)

_MAILBOX_LINES: Final = 4


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
        self.wiretap: Final = Wiretap(flip_a_bit_of_media if settings.tampered is Part.SRTP else None)
        self.reports: list[Report] = []
        self.passed: dict[str, list[Message]] = {}  # what each party was sent
        self._codec = draw_codec(random)
        self._broker = MemoryBroker(catalogue(list(self.names)))
        self._network = MemoryStore()
        self._phones: dict[str, UeHost] = {}
        self._heard: dict[str, list[Pcm]] = {name: [] for name in self.names}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._loops: dict[str, Loop] = {}
        self._recorder: Recorder | None = None
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Provision everybody, bind the media lines, start the loops. Raises OSError without UDP sockets."""
        now = self._clock()
        devices = (*self.devices.values(), self.mailbox)
        await provision_network(self._network, self._codec, devices, now, self._random)
        for party in _NETWORK:
            await self._start_party(party)
        for name in self.names:
            if name not in self._settings.absent:
                await self.switch_on(name)

    async def registered(self, *names: str) -> None:
        """Returns when these handsets, or all that are on, are registered. Raises TimeoutError."""
        awaited = {self.devices[name].impi for name in names or self._phones}
        await self.until(
            lambda: awaited <= {r.device for r in self.reports if r.event is ReportEvent.REGISTERED}
        )

    async def switch_on(self, name: str) -> None:
        """Start a UE host, its lines tapped. Raises OSError."""
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
        """End a UE host's process: all that its handsets had in memory is gone."""
        await self._end(name)
        await self._phones.pop(name).stop()

    async def restart_network(self) -> None:
        """End the processes of all network roles at once, and start them anew on the same store."""
        for party in _NETWORK:
            await self._end(party)
        for party in _NETWORK:
            await self._start_party(party)

    def dial(self, caller: str, callee: str) -> None:
        """A user dials."""
        device, other = self.devices[caller], self.devices[callee]
        request = self._random(16)
        self.tell(caller, Dial(request=request, to=device.impi, callee=other.identity))

    def hang_up(self, name: str) -> None:
        """A user ends the calls that its device has reported to be up."""
        device = self.devices[name]
        for report in self.reports:
            if report.device == device.impi and report.event in {ReportEvent.UP, ReportEvent.MAILBOX}:
                assert report.call is not None
                assert report.caller is not None
                self.tell(name, HangUp(to=device.impi, caller=report.caller, call=report.call))

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
        own = [self.mailbox.psk] if party == "voicemail" and self.mailbox.psk else []
        return [*own, *holdings(self._network, self._codec, party), *seen]

    def granted_keys(self) -> dict[str, bool]:
        """For each UE host whose device K was granted to as a callee: whether the KMS still holds that K."""
        hosts = {device.impi: name for name, device in self.devices.items()}
        return {
            hosts[fork.impi]: fork.key is not None
            for agreement in self._kms_records("agreement", Agreement)
            for run in agreement.runs
            for fork in run.forks
        }

    def long_term_keys(self) -> set[Secret]:
        """All K_x that the KMS holds."""
        return {record.key for record in self._kms_records("subscriber", Subscriber)}

    def stored_parts(self, call: bytes) -> int:
        """How many records with packets of this call the mailbox has."""
        return sum(":part:" in name and call.hex() in name for name, _ in self._network.items())

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
        if self._recorder is not None:
            await self._recorder.stop()
        self.wiretap.stop()

    def _kms_records(self, label: str, kind: type[R]) -> list[R]:
        """The KMS's records of a kind."""
        return [
            self._codec.decode(Key(name, kind), value)
            for name, value in self._network.items()
            if name.startswith("kms:") and f":{label}:" in name
        ]

    async def _start_party(self, party: str) -> None:
        """One network role's process."""
        carry_out = None
        if party == "voicemail":
            agent, carry_out = await self._voicemail()
        else:
            agent = self._agent(party)
        loop = Loop(
            agent,
            self._bus(party, party, _NETWORK[party]),
            self._network,
            self._codec,
            clock=self._clock,
            random=self._random,
            carry_out=carry_out,
        )
        self._loops[party] = loop
        self._run(party, loop)

    def _agent(self, party: str) -> Agent:
        match party:
            case "kms":
                return Kms(self._settings.profile)
            case "bsf":
                return Bsf()
            case _:
                return Cscf(CscfSettings(mailbox=self.mailbox.identity))

    async def _voicemail(self) -> tuple[Agent, Callable[[MediaInstruction], None]]:
        """The mailbox with its recorder, its lines tapped."""
        if self._recorder is not None:
            await self._recorder.stop()
        recorder = self._recorder = Recorder(
            RecorderSettings(lines=_MAILBOX_LINES),
            on_event=self._recorded,
        )
        lines = await recorder.start()
        for line in lines:
            await self.wiretap.tap("voicemail", line)
        assert self.mailbox.psk is not None
        settings = VoicemailSettings(
            identity=self.mailbox.identity,
            key_id=self.mailbox.psk_id,
            key=self.mailbox.psk,
            instance=self._random(8).hex(),
            lines=lines,
        )
        return Voicemail(settings), recorder.carry_out

    def _recorded(self, event: MediaEvent) -> None:
        self._loops["voicemail"].tell(event)

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

    def tell(self, host: str, message: Dial | HangUp | ListMessages | PlayMessage | DeleteMessage) -> None:
        """What a user says to the handset on this host."""
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
        if isinstance(message, Invite | Ok | MailboxOk):
            message = msgspec.structs.replace(message, media=self.wiretap.detour(message.media))
        return message if self._settings.tampered is None else tamper(self._settings.tampered, message)
