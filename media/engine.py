"""The media engine of a host: UDP sockets, the 20 ms beat, and the clock that ends a key's use.

    agent  -> engine   OpenMedia, CloseMedia               OpenStored, TakeStored, CloseStored
    engine -> agent    MediaClosed, MediaSilent            StoredHeard

A line is one UDP socket, bound before any call, so that its address can be told in an offer. It carries one
session at a time. A message out of a mailbox needs none: it is heard as fast as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from media.leg import (
    CloseMedia,
    CloseStored,
    Leg,
    MediaClosed,
    MediaEvent,
    MediaInstruction,
    MediaSilent,
    OpenMedia,
    OpenStored,
    StoredHeard,
    TakeStored,
)
from media.line import Line, SocketAddress, addresses, bind
from media.pcm import PACKET_S, SAMPLE_HZ, Pcm
from media.session import Session
from media.stored import StoredMedia
from protocol.description import Flow
from protocol.sealing import Random
from protocol.transport import MediaAddress, Statistics

Source = Callable[[Leg], Pcm]
"""Gives what to play into a leg. Called on the event loop: it has the sound at hand, and reads no file."""

Sink = Callable[[Leg, Pcm], None]
"""Takes what was heard on a leg when its session closes, live or stored. Called on the event loop."""

_RESOLVE_AGAIN_S: Final = 1.0
_STALLED_S: Final = 1.0  # who is further behind was stopped, and does not send all of it at once


class LineBusy(Exception):  # noqa: N818
    """The agent's records and the engine disagree on who uses a line: a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How an engine is set up."""

    lines: int
    """UDP sockets, and so sessions at a time."""

    host: str = "127.0.0.1"
    """The address to bind to."""

    port: int = 0
    """The first line's port, the others follow; 0: any free ones."""

    advertised_host: str | None = None
    """What peers are told in place of `host`, for instance behind 0.0.0.0."""

    silence_s: float = 10.0
    """Nothing authentic for so long is told once, as MediaSilent."""

    heard_s_max: float = 600.0
    """So much of what is heard is kept for the sink: 16 KB a second."""


@dataclass(slots=True)
class _Running:
    """A session on its line."""

    leg: Leg
    line: Line
    session: Session
    opened: float
    not_after: float
    target: SocketAddress | None = None  # not known before it is resolved
    told_silent: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Stored:
    """A message that is being heard."""

    leg: Leg
    media: StoredMedia
    not_after: float


class Engine:
    """Carries out what the agents of one host decide about media.

    on_event is called on the event loop, also from within `carry_out` and `stop`: it puts the event aside.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        random: Random,
        source: Source,
        on_event: Callable[[MediaEvent], None],
        sink: Sink | None = None,
    ) -> None:
        self._settings = settings
        self._random = random
        self._source = source
        self._sink = sink
        self._on_event = on_event
        self._lines: list[Line] = []
        self._running: dict[str, _Running] = {}
        self._stored: dict[str, _Stored] = {}

    async def start(self) -> tuple[MediaAddress, ...]:
        """Bind the lines. Returns the address of each, as peers are to be told. Raises OSError."""
        settings = self._settings
        self._lines = await bind(settings.lines, settings.host, settings.port)
        return addresses(self._lines, settings.advertised_host or settings.host)

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open or close a session, or take packets of a stored one; one that is open already, or not open, is
        left alone. A call and a message may have the same name.

        Raises LineBusy if another session has the line, IndexError if there is no such line, KeyError for a
        codec that is not in CODECS.
        """
        match instruction:
            case OpenMedia(leg):
                if leg.session not in self._running:
                    self._open(leg)
            case CloseMedia(session):
                if session in self._running:
                    self._close(self._running[session], expired=False)
            case OpenStored(leg):
                if leg.session not in self._stored:
                    self._open_stored(leg)
            case TakeStored(session, packets):
                if session in self._stored:
                    self._take_stored(self._stored[session], packets)
            case CloseStored(session):
                self._close_stored(session)
            case _:
                raise AssertionError(f"for a recorder: {instruction}")

    def statistics(self) -> dict[str, Statistics]:
        """Of each open session so far, by its name."""
        return {name: running.session.statistics() for name, running in self._running.items()}

    async def stop(self) -> None:
        """Close all sessions and sockets."""
        tasks = [running.task for running in self._running.values() if running.task]
        for running in list(self._running.values()):
            self._close(running, expired=False)
        if tasks:
            await asyncio.wait(tasks)
        self._stored.clear()
        while self._lines:
            await self._lines.pop().close()

    def _open(self, leg: Leg) -> None:
        line = self._lines[leg.line]
        if line.session is not None:
            raise LineBusy(f"line {leg.line}")
        loop = asyncio.get_running_loop()
        now = loop.time()
        sound = np.zeros(0, np.int16) if leg.flow is Flow.RECVONLY else self._source(leg)
        session = Session(leg, self._random, sound, now=now, heard_samples_max=self._heard_samples_max)
        running = _Running(leg, line, session, opened=now, not_after=now + leg.lifetime_s)
        line.session, line.not_after = session, running.not_after
        self._running[leg.session] = running
        running.task = loop.create_task(self._run(running))
        running.task.add_done_callback(_raise)

    def _close(self, running: _Running, *, expired: bool) -> None:
        """Raises what the sink raises, when all else is done."""
        now = asyncio.get_running_loop().time()
        if running.task is not None and not expired:
            running.task.cancel()
        if running.target is not None and now < running.not_after:
            running.line.send(running.session.close(now), running.target)
        running.line.session = None
        del self._running[running.leg.session]
        self._on_event(MediaClosed(running.leg.session, running.session.statistics(), expired))
        if self._sink is not None:
            self._sink(running.leg, running.session.heard())

    def _open_stored(self, leg: Leg) -> None:
        media = StoredMedia(leg, heard_samples_max=self._heard_samples_max)
        not_after = asyncio.get_running_loop().time() + leg.lifetime_s
        self._stored[leg.session] = _Stored(leg, media, not_after)

    def _take_stored(self, stored: _Stored, packets: tuple[bytes, ...]) -> None:
        if asyncio.get_running_loop().time() < stored.not_after:  # OR-28
            for packet in packets:
                stored.media.take(packet)

    def _close_stored(self, session: str) -> None:
        """Raises what the sink raises, when all else is done."""
        stored = self._stored.pop(session, None)
        if stored is None:
            self._on_event(StoredHeard(session, packets=0, refused=0, whole=False))
            return
        media = stored.media
        self._on_event(StoredHeard(session, media.authentic, media.refused, media.whole))
        if self._sink is not None:
            self._sink(stored.leg, media.heard())

    @property
    def _heard_samples_max(self) -> int:
        return int(self._settings.heard_s_max * SAMPLE_HZ) if self._sink else 0

    async def _run(self, running: _Running) -> None:
        """Until the key's lifetime ends; CloseMedia cancels it."""
        try:
            async with asyncio.timeout_at(running.not_after):
                await self._find(running)
                await self._beat(running)
        except TimeoutError:
            self._close(running, expired=True)

    async def _find(self, running: _Running) -> None:
        """The peer's socket address; its name may not be known yet."""
        while (target := await running.line.resolve(running.leg.remote_address)) is None:
            self._tell_silence(running)
            await asyncio.sleep(_RESOLVE_AGAIN_S)
        running.target = target

    async def _beat(self, running: _Running) -> None:
        """A tick each 20 ms by absolute deadlines, so that no delay adds up."""
        assert running.target is not None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # when behind, this gives way once, so that what has come meanwhile is read before the next tick
            await asyncio.sleep(due - loop.time())
            now = loop.time()
            if now >= running.not_after:  # OR-28
                raise TimeoutError
            for datagram in running.session.tick(now):
                running.line.send(datagram, running.target)
            self._tell_silence(running)
            due = now if now > due + _STALLED_S else due + PACKET_S

    def _tell_silence(self, running: _Running) -> None:
        if running.leg.to_mailbox:  # which never says anything
            return
        heard_at = running.session.heard_at
        since = running.opened if heard_at is None else heard_at
        if asyncio.get_running_loop().time() - since > self._settings.silence_s and not running.told_silent:
            running.told_silent = True
            self._on_event(MediaSilent(running.leg.session))


def _raise(task: asyncio.Task[None]) -> None:
    """A bug in a session is told by the event loop's exception handler."""
    if not task.cancelled():
        task.result()
