"""A network function that has media, in this process: mailbox, transcoder or focus, with its loop.

Any number of processes may run: each has its own lines and its own name, and takes over what another's
partitions had.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import structlog

from agents.decision import Agent
from agents.runtime import Loop
from console.hosting.operations import operated, telling
from console.hosting.readiness import Watched
from console.hosting.roles import together, until_told_to_stop
from console.settings import Settings
from media.leg import MediaEvent, MediaInstruction
from protocol.names import Owner
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.records import RecordCodec
from storage.redis_store import RedisStore
from storage.users_file import Device, UsersBroken, read_users
from topics.catalogue import Party, Topic
from topics.kafka import KafkaBus

log = structlog.get_logger()

_LAST_WORDS_S: Final = 0.5  # for the loop to store what the media still had, before it is told to stop
_ANY_ADDRESS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104


class Media(Protocol):
    """What carries out what the agent decides about media."""

    async def start(self) -> tuple[MediaAddress, ...]:
        """Bind the lines; the address of each, as peers are to be told. Raises OSError."""
        ...

    def carry_out(self, instruction: MediaInstruction) -> None:
        """One decision."""
        ...

    async def stop(self) -> None:
        """Close everything."""
        ...


M = TypeVar("M", bound=Media)


@dataclass(frozen=True, slots=True)
class Own:
    """Who a process is: what its agent is told of it."""

    identity: str
    key_id: str
    key: Secret
    instance: str
    """A name of this process that no other has had."""
    lines: tuple[MediaAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFunction(Generic[M]):
    """One kind of network function."""

    owner: Owner
    """Its kind in a users file."""
    party: Party
    inbox: Topic
    make_media: Callable[[Settings, Random, Callable[[MediaEvent], None]], M]
    """What is called with a media event puts it aside; on the loop of whoever has made it."""
    make_agent: Callable[[Own], Agent]
    make_codec: Callable[[Settings, Random], RecordCodec]
    on_leaving: Callable[[M], None] | None = None
    """What the media do when the process is told to stop: the loop still deals with what they tell."""


def read_function(users: Path, owner: Owner) -> Device:
    """The one network function of this kind in a users file, with its key. Raises UsersBroken."""
    found = [device for device in read_users(users) if device.owner is owner]
    if len(found) != 1:
        raise UsersBroken(f'{users}: {len(found)} devices with kind = "{owner}"; one is needed')
    return found[0]


def advertised_host(settings: Settings) -> str | None:
    """What peers are told of the lines of this process. Behind any address it is the name of this machine, if
    nothing else was said: each process of a network function has its own. None: the address itself."""
    here = socket.gethostname().lower() if settings.media_host in _ANY_ADDRESS else None
    return settings.media_advertised or here


def own_of(device: Device, lines: tuple[MediaAddress, ...], random: Random) -> Own:
    """A new process of this network function. device: with a pre-shared key."""
    assert device.psk is not None
    return Own(device.identity, device.psk_id, device.psk, random(8).hex(), lines)


async def run_function(
    function: NetworkFunction[M],
    device: Device,
    settings: Settings,
    *,
    clock: Callable[[], int],
    random: Random,
) -> None:
    """The network function until SIGTERM or SIGINT. device: as read_function has it.

    Raises OSError, KeyFileBroken, SettingsBroken, BusUnavailable, BusRefused, StoreRefused, GaveUp.
    """
    codec = function.make_codec(settings, random)
    watched = Watched(function.party)
    name = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
    leaving, stopping = until_told_to_stop(), asyncio.Event()

    def told(event: MediaEvent) -> None:
        loop.tell(event)

    media = function.make_media(settings, random, told)
    bus = KafkaBus(settings.kafka_settings, function.party, function.inbox.name)

    async def last_words() -> None:
        await leaving.wait()
        if function.on_leaving is not None:
            function.on_leaving(media)
            await asyncio.sleep(_LAST_WORDS_S)
        stopping.set()

    async with AsyncExitStack() as closing:
        closing.enter_context(operated(settings, function.party, name, [watched]))
        lines = await media.start()
        closing.push_async_callback(media.stop)
        loop = Loop(
            function.make_agent(own_of(device, lines, random)),
            bus,
            RedisStore(settings.redis_settings),
            codec,
            clock=clock,
            random=random,
            carry_out=media.carry_out,
            vitals=watched.vitals,
        )
        closing.push_async_callback(bus.stop)  # once more: a status may have connected again meanwhile
        await bus.start()
        log.info("running", identity=device.identity, lines=len(lines))
        async with telling(bus, watched, name, clock=clock):
            await together([loop.run(stopping), last_words()], leaving)
    log.info("stopped", handled=watched.vitals.handled)
