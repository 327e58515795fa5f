"""A UE host in the test's own process, on this machine, whose handsets are in the cluster's calls: what they
hold can be looked at."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec

from agents.alarms import HandsetAlarm
from agents.handset.ue_call import UeSettings, device_of
from agents.runtime import Loop
from agents.ue import Ue
from chaos.lab import draw_codec
from console.outside import clock
from media.engine import Engine, EngineSettings
from media.leg import Leg, MediaEvent, MediaInstruction, MoveMedia, OpenMedia, RenewMedia
from media.pcm import Pcm
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.provisioning import provision_handsets
from storage.users_file import read_users
from tests.cluster.cluster import Cluster
from topics.access import ue_group
from topics.catalogue import ue_inbox
from topics.kafka import KafkaBus


@dataclass
class OwnHost:
    """What its handsets have got and heard."""

    addresses: dict[str, str]
    """IP addresses of containers by their names, which this machine cannot look up."""
    legs: dict[str, dict[int, Leg]] = field(default_factory=lambda: defaultdict(dict))
    """That media was opened or renewed with, by device and epoch: K_e is in each."""
    heard: dict[str, list[Pcm]] = field(default_factory=lambda: defaultdict(list))
    """By device, one for each attendance."""
    peer: str = ""
    """The name of the container that media goes to."""

    def look_up(self, instruction: MediaInstruction) -> MediaInstruction:
        """The same with an IP address, after what is to be seen in it was noted."""
        match instruction:
            case OpenMedia(leg) | RenewMedia(leg):
                self.legs[device_of(leg.session)][leg.n] = leg
                there = msgspec.structs.replace(leg, remote_address=self._address(leg.remote_address))
                return replace(instruction, leg=there)
            case MoveMedia(session, address):
                return MoveMedia(session, self._address(address))
            case _:
                return instruction

    def _address(self, address: MediaAddress) -> MediaAddress:
        self.peer = address.host
        return MediaAddress(self.addresses.get(address.host, address.host), address.port)


@asynccontextmanager
async def own_host(
    cluster: Cluster,
    name: str,
    *,
    address: str,
    names: dict[str, str],
    sound: Callable[[str], Pcm],
    lines: int = 8,
) -> AsyncIterator[OwnHost]:
    """The UE host of this name, for which the cluster has no container. address: of this machine, as
    containers reach it. names: IP addresses of containers. sound: what the handset of an identity says."""
    host = OwnHost(names)
    store, codec = MemoryStore(), draw_codec(os.urandom)
    devices = read_users(cluster.secrets / f"ue-{name}" / "users.toml")

    def keep(leg: Leg, pcm: Pcm) -> None:
        host.heard[device_of(leg.session)].append(pcm)

    def tell(event: MediaEvent) -> None:
        loop.tell(event)

    engine = Engine(
        EngineSettings(lines=lines, host=address),
        random=os.urandom,
        source=lambda leg: sound(leg.local),
        on_event=tell,
        sink=keep,
    )
    bus = KafkaBus(cluster.kafka(f"ue-{name}"), ue_group(name), ue_inbox(name).name)
    await bus.start()
    settings = UeSettings(host=name, lines=await engine.start())
    loop = Loop(
        Ue(HARDENED, settings),
        bus,
        store,
        codec,
        clock=clock,
        random=os.urandom,
        carry_out=lambda instruction: engine.carry_out(host.look_up(instruction)),
    )
    await provision_handsets(store, codec, devices, clock(), os.urandom)
    for device in devices:
        loop.tell(HandsetAlarm(device.impi))
    leaving = asyncio.Event()
    serving = asyncio.create_task(loop.run(leaving))
    try:
        yield host
    finally:
        leaving.set()
        await serving
        await engine.stop()
        await bus.stop()
