"""An operator's place: what a command says to UE hosts that run elsewhere, and what comes back on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import numpy as np

from console.mistakes import Mistake
from media.pcm import Pcm
from protocol.checks import Refused
from protocol.names import Owner
from protocol.sharding import shard_of
from storage.users_file import Device, UsersBroken
from topics.bus import Inbound
from topics.catalogue import Topic, ue_sounds
from topics.codec import decode, encode
from topics.kafka_admin import tail
from topics.kafka_clients import KafkaSettings, make_producer, started, translated
from topics.messages import Message, Report, Sound, SoundUse, Wire
from topics.sounds import Gathering, take_apart

_TAKEN_WITHIN_S: Final = 10.0


class Switchboard:
    """Reads some topics from now on, and says things to UE hosts and agents; `switchboard` makes one."""

    def __init__(
        self,
        settings: KafkaSettings,
        producer: Any,  # noqa: ANN401
        on_message: Callable[[str, Message], None],
    ) -> None:
        self.reports: list[Report] = []
        """All that were read, in their order."""
        self.heard: dict[tuple[str, bytes], Pcm] = {}
        """What devices have handed back, by IMPI and C."""
        self._kept: set[bytes] = set()  # sounds that a host has said to have
        self._settings = settings
        self._producer = producer
        self._on_message = on_message
        self._sounds = Gathering()
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def say(self, topic: Topic, key: str | bytes, message: Wire) -> None:
        """Put a message into a topic; key: octets only where there is one partition.

        Raises BusUnavailable, BusRefused."""
        partition, octets = 0, key
        if isinstance(key, str):
            partition, octets = shard_of(key) % topic.partitions, key.encode()
        with translated(self._settings):
            async with asyncio.timeout(self._settings.deadline_s):
                await self._producer.send_and_wait(
                    topic.name, encode(message), key=octets, partition=partition
                )

    async def hand_over(self, host: str, name: bytes, sound: Pcm) -> None:
        """Give a UE host something to say; its topic of sounds is among those that are read. name: 16 octets,
        one for each host. Raises NotDone, BusUnavailable, BusRefused."""
        self._kept.discard(name)
        for part in take_apart(SoundUse.SAY, name, sound.astype("<i2").tobytes()):
            await self.say(ue_sounds(host), name, part)
        if not await self.until(lambda: name in self._kept, _TAKEN_WITHIN_S):
            raise NotDone(f"the UE host {host} does not take the sound: is it running? `otway status` tells")

    async def until(self, true: Callable[[], object], within_s: float) -> bool:
        """Whether what is read makes it true in that time. Raises whatever ended the reading."""
        assert self._watching is not None
        try:
            async with asyncio.timeout(within_s):
                while not true():
                    if self._watching.done():
                        self._watching.result()
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def watch(self, records: AsyncIterator[Inbound]) -> asyncio.Task[None]:
        """Begin to read."""
        self._watching = asyncio.create_task(self._watch(records))
        self._watching.add_done_callback(lambda _: self._news.set())
        return self._watching

    async def _watch(self, records: AsyncIterator[Inbound]) -> None:
        async for record in records:
            try:
                message = decode(record.value)
            except Refused:
                continue
            match message:
                case Report():
                    self.reports.append(message)
                case Sound(use=SoundUse.KEPT):
                    self._kept.add(message.about)
                case Sound(use=SoundUse.HEARD, device=str(device)):
                    samples = self._sounds.add(message)
                    if samples is not None:
                        self.heard[device, message.about] = np.frombuffer(samples, "<i2").astype(np.int16)
                case _:
                    pass
            self._on_message(record.topic, message)
            self._news.set()


@asynccontextmanager
async def switchboard(
    settings: KafkaSettings, topics: Sequence[Topic], on_message: Callable[[str, Message], None]
) -> AsyncIterator[Switchboard]:
    """on_message: called with the topic and each message that was read. Raises BusUnavailable, BusRefused."""
    async with AsyncExitStack() as closing:
        records = await closing.enter_async_context(tail(settings, [topic.name for topic in topics]))
        producer = await closing.enter_async_context(started(settings, make_producer(settings)))
        board = Switchboard(settings, producer, on_message)
        watching = board.watch(records)
        try:
            yield board
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def find(devices: tuple[Device, ...], who: str) -> Device:
    """The first device of a user: `alice`, `sip:alice@ims.example`, an IMPI, or the name of its UE host.

    Raises UsersBroken.
    """
    devices = tuple(device for device in devices if device.owner is Owner.UE)
    for device in devices:
        if who in {device.impi, device.identity, device.identity.removeprefix("sip:").partition("@")[0]}:
            return device
    for device in devices:
        if who == device.host:
            return device
    known = ", ".join(list(dict.fromkeys(device.identity for device in devices))[:8])
    raise UsersBroken(f"nobody is called {who!r} in the directory; it has {known}")


class NotDone(Mistake):
    """What was asked of a UE host came to nothing; the message says where it stopped and what to look at."""
