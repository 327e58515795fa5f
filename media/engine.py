"""The media engine of a host: UDP sockets, the 20 ms beat, and the clock that ends a key's use.

    agent  -> engine   OpenMedia, RenewMedia, MoveMedia, CloseMedia    OpenStored, TakeStored, CloseStored
    engine -> agent    MediaClosed, MediaSilent                        StoredHeard

A line is one UDP socket, bound before any call, so that its address can be told in an offer. It carries one
session at a time. A message out of a mailbox needs none: it is heard as fast as it comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from media.leg import (
    CloseMedia,
    CloseStored,
    Leg,
    MediaEvent,
    MediaInstruction,
    MoveMedia,
    OpenMedia,
    OpenStored,
    RenewMedia,
    StoredHeard,
    TakeStored,
)
from media.line import Line, addresses, bind
from media.pcm import PACKET_S, SAMPLE_HZ, Pcm
from media.placed import LineBusy, Placed, beat, tell_failure
from media.session import Session
from media.srtp import SEQUENCE_MAX
from media.stored import StoredMedia
from protocol.description import Flow
from protocol.sealing import Random
from protocol.transport import MediaAddress, Statistics

Source = Callable[[Leg], Pcm]
"""Gives what to play into a leg. Called on the event loop: it has the sound at hand, and reads no file."""

Sink = Callable[[Leg, Pcm], None]
"""Takes what was heard on a leg when its session closes, live or stored. Called on the event loop."""


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

    unheard_s: float | None = None
    """Likewise, before the peer is heard for the first time, or from a new address; None: the same."""

    heard_s_max: float = 600.0
    """So much of what is heard is kept for the sink: 16 KB a second."""

    packets_max: int = SEQUENCE_MAX
    """Of one SSRC; fewer than it must be, in a test."""


@dataclass(slots=True)
class _Running:
    """A session that is open."""

    placed: Placed
    session: Session
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
        """Open, renew, move or close a session, or take packets of a stored one; one that is open already is
        not opened again, one that is not open is left alone, but RenewMedia opens it. A call and a message
        may have the same name.

        Raises LineBusy if another session has the line, IndexError if there is no such line, KeyError for a
        codec that is not in CODECS.
        """
        match instruction:
            case OpenMedia(leg):
                if leg.session not in self._running:
                    self._open(leg)
            case RenewMedia(leg):
                if leg.session in self._running:
                    self._running[leg.session].placed.renew(instruction)
                else:
                    self._open(leg)
            case MoveMedia(session, address):
                if session in self._running:
                    self._running[session].placed.move(address)
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
        loop = asyncio.get_running_loop()
        sound = np.zeros(0, np.int16) if leg.flow is Flow.RECVONLY else self._source(leg)
        session = Session(
            leg,
            self._random,
            sound,
            now=loop.time(),
            heard_samples_max=self._heard_samples_max,
            packets_max=self._settings.packets_max,
        )
        placed = Placed(
            line,
            leg,
            session.link,
            silence_s=self._settings.silence_s,
            unheard_s=self._settings.unheard_s,
            on_event=self._on_event,
        )
        running = self._running[leg.session] = _Running(placed, session)
        running.task = loop.create_task(beat(lambda now: self._tick(running, now), PACKET_S))
        running.task.add_done_callback(tell_failure)

    def _tick(self, running: _Running, now: float) -> bool:
        """20 ms of a session. Whether it goes on."""
        placed = running.placed
        if placed.over(now):
            self._close(running, expired=True)
            return False
        if placed.target is not None:  # else nobody would hear the beginning
            placed.send(running.session.tick(now))
        placed.tell_silence(now)
        return True

    def _close(self, running: _Running, *, expired: bool) -> None:
        """Raises what the sink raises, when all else is done."""
        if running.task is not None and not expired:
            running.task.cancel()
        leg = running.placed.leg
        del self._running[leg.session]
        running.placed.leave(expired=expired)
        if self._sink is not None:
            self._sink(leg, running.session.heard())

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


__all__ = ["Engine", "EngineSettings", "LineBusy", "Sink", "Source"]
