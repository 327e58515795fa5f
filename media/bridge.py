"""The media engine of a transcoder or a conference: sessions of one bridge hear the sum of the others.

    agent  -> bridge   OpenMedia, RenewMedia, MoveMedia, CloseMedia      of legs that name a bridge
    bridge -> agent    MediaClosed, MediaSilent, Speakers

Each session has its line, its codec and its keys; all bridges share one 20 ms beat. Of two sessions each
hears the other one: that is transcoding. No sound is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import numpy as np

from media.codec import CODECS
from media.engine import EngineSettings
from media.leg import (
    CloseMedia,
    Leg,
    MediaEvent,
    MediaInstruction,
    MoveMedia,
    OpenMedia,
    RenewMedia,
    Speakers,
)
from media.line import Line, addresses, bind
from media.link import Link
from media.outgoing import Ssrcs
from media.pcm import PACKET_S, PACKETS_PER_S, SAMPLE_HZ, WIDE_HZ, Pcm, clipped, silence
from media.placed import Placed, beat, tell_failure
from protocol.sealing import Random
from protocol.transport import MediaAddress, Statistics

LOUD: Final = 300.0  # root mean square of a second with a voice in it; of 32,767


class BridgeEngine:
    """Carries out what the agent of a transcoder or of a focus decides about media.

    on_event is called on the event loop, also from within `carry_out` and `stop`: it puts the event aside.
    """

    def __init__(
        self, settings: EngineSettings, *, random: Random, on_event: Callable[[MediaEvent], None]
    ) -> None:
        """settings: as of an engine for handsets; how much is kept means nothing."""
        self._settings = settings
        self._random = random
        self._on_event = on_event
        self._lines: list[Line] = []
        self._bridges: dict[str, _Bridge] = {}
        self._bridge_of: dict[str, _Bridge] = {}  # by session
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> tuple[MediaAddress, ...]:
        """Bind the lines. Returns the address of each, as peers are to be told. Raises OSError."""
        settings = self._settings
        self._lines = await bind(settings.lines, settings.host, settings.port)
        self._beating = asyncio.get_running_loop().create_task(beat(self._tick, PACKET_S))
        self._beating.add_done_callback(tell_failure)
        return addresses(self._lines, settings.advertised_host or settings.host)

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open, renew, move or close a session; one that is open already is not opened again, one that is not
        open is left alone, but RenewMedia opens it.

        Raises LineBusy if another session has the line, IndexError if there is no such line, KeyError for a
        codec that is not in CODECS.
        """
        match instruction:
            case OpenMedia(leg):
                if leg.session not in self._bridge_of:
                    self._open(leg)
            case RenewMedia(leg):
                if leg.session in self._bridge_of:
                    self._bridge_of[leg.session].renew(instruction)
                else:
                    self._open(leg)
            case MoveMedia(session, address):
                if session in self._bridge_of:
                    self._bridge_of[session].placed[session].move(address)
            case CloseMedia(session):
                if session in self._bridge_of:
                    self._close(session, expired=False)
            case _:
                raise AssertionError(f"not for a bridge: {instruction}")

    def statistics(self) -> dict[str, Statistics]:
        """Of each open session so far, by its name."""
        return {
            session: bridge.placed[session].link.statistics() for session, bridge in self._bridge_of.items()
        }

    async def stop(self) -> None:
        """Close all sessions and sockets."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        for session in list(self._bridge_of):
            self._close(session, expired=False)
        while self._lines:
            await self._lines.pop().close()

    def _open(self, leg: Leg) -> None:
        assert leg.bridge
        line = self._lines[leg.line]
        bridge = self._bridges.get(leg.bridge) or _Bridge(leg.bridge, conference=leg.group is not None)
        link = Link(
            leg,
            self._random,
            now=asyncio.get_running_loop().time(),
            rate_hz=bridge.rate_hz,
            packets_max=self._settings.packets_max,
            ssrcs=bridge.ssrcs,
        )
        placed = Placed(
            line,
            leg,
            link,
            silence_s=self._settings.silence_s,
            unheard_s=self._settings.unheard_s,
            on_event=self._on_event,
        )
        self._bridges[leg.bridge] = self._bridge_of[leg.session] = bridge
        bridge.join(placed)

    def _close(self, session: str, *, expired: bool) -> None:
        bridge = self._bridge_of.pop(session)
        placed = bridge.placed.pop(session)
        if not bridge.placed:
            del self._bridges[bridge.name]
        placed.leave(expired=expired)

    def _tick(self, now: float) -> bool:
        """20 ms of all bridges."""
        for bridge in list(self._bridges.values()):
            for session, placed in list(bridge.placed.items()):
                if placed.over(now):
                    self._close(session, expired=True)
            speakers = bridge.tick(now)
            if speakers is not None:
                self._on_event(speakers)
        return True


class _Bridge:
    """Sessions that hear each other."""

    def __init__(self, name: str, *, conference: bool) -> None:
        self.name = name
        self.placed: dict[str, Placed] = {}  # by session
        self.ssrcs = Ssrcs()  # in a conference all sessions send under one key
        self.rate_hz = SAMPLE_HZ if conference else WIDE_HZ
        self._conference = conference
        self._ticks = 0
        self._energies: dict[str, float] = {}  # of this second
        self._told: tuple[str, ...] = ()

    def join(self, placed: Placed) -> None:
        self.placed[placed.leg.session] = placed
        self._agree()

    def renew(self, instruction: RenewMedia) -> None:
        self.placed[instruction.leg.session].renew(instruction)
        self._agree()

    def tick(self, now: float) -> Speakers | None:
        """20 ms: each session's sound in, the sum of the others out. Returns the speakers if they change."""
        quiet = silence(self.rate_hz)
        loud: list[str] = []
        sounds: list[Pcm] = []
        for session, placed in self.placed.items():
            sound = placed.link.pull()
            if sound is not quiet:
                loud.append(session)
                sounds.append(sound)
        others: dict[str, Pcm] = {}
        everybody = quiet
        if sounds:
            each = np.array(sounds, np.int32)
            total = each.sum(axis=0)
            everybody = clipped(total)
            others = dict(zip(loud, clipped(total - each), strict=True))
            if self._conference:
                self._add_energies(loud, each)
        for session, placed in self.placed.items():
            if placed.target is not None:
                placed.send(placed.link.packets(others.get(session, everybody), now))
            placed.tell_silence(now)
        self._ticks += 1
        return self._speakers() if self._conference and self._ticks % PACKETS_PER_S == 0 else None

    def _agree(self) -> None:
        """A transcoder's rate is what the lesser of its codecs can say."""
        if not self._conference:
            native = (CODECS[placed.leg.codec].native_hz for placed in self.placed.values())
            self.rate_hz = min(WIDE_HZ, *native)
            for placed in self.placed.values():
                placed.link.at_rate(self.rate_hz)

    def _add_energies(self, loud: list[str], each: np.ndarray[tuple[int, int], np.dtype[np.int32]]) -> None:
        energies = np.square(each, dtype=np.float64).sum(axis=1).tolist()
        for session, energy in zip(loud, energies, strict=True):
            self._energies[session] = self._energies.get(session, 0.0) + energy

    def _speakers(self) -> Speakers | None:
        threshold = LOUD * LOUD * self.rate_hz  # samples in a second
        energies, self._energies = self._energies, {}
        speaking = [session for session in self.placed if energies.get(session, 0.0) >= threshold]
        speaking.sort(key=lambda session: -energies[session])
        if tuple(speaking) == self._told:
            return None
        self._told = tuple(speaking)
        return Speakers(self.name, self._told)
