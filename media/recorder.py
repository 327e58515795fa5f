"""The recorder of a mailbox: keeps what comes to its lines, in the order in which it comes, unread.

    agent    -> recorder   OpenRecording, CloseRecording
    recorder -> agent      Recorded, RecordingClosed

It holds no key, and tells SRTP from anything else by its first octet and its length only. A session ends when
the agent says so, or when nothing comes any more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from media.leg import (
    NOTHING_S,
    SILENT_S,
    CloseRecording,
    MediaEvent,
    MediaInstruction,
    OpenRecording,
    Recorded,
    RecordingClosed,
)
from media.line import Line, addresses, bind
from media.rtp import HEADER_OCTETS, VERSION
from protocol.limits import PACKET_OCTETS_MAX, STORED_OCTETS_MAX
from protocol.transport import MediaAddress

BATCH_PACKETS: Final = 50  # a second of 20 ms packets; fewer than STORED_PACKETS_MAX
_BATCH_S: Final = 1.0
_BEAT_S: Final = 0.1  # how exactly times are kept


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """How a recorder is set up."""

    lines: int
    """UDP sockets, and so messages at a time."""

    host: str = "127.0.0.1"
    """The address to bind to."""

    port: int = 0
    """The first line's port, the others follow; 0: any free ones."""

    advertised_host: str | None = None
    """What callers are told in place of `host`, for instance behind 0.0.0.0."""

    silence_s: float = SILENT_S
    """Nothing more for so long ends a session: its caller is gone."""

    nothing_s: float = NOTHING_S
    """No packet at all for so long ends one: its caller never came."""

    linger_s: float = 0.3
    """After CloseRecording what is still on its way is taken for so long."""

    octets_max: int = 4 * 2**20
    """Of one session; what comes after that is dropped. The agent closes before, if it is not held up."""


@dataclass(slots=True)
class _Recording:
    """One session on its line."""

    session: str
    line: Line
    on_event: Callable[[MediaEvent], None]
    octets_left: int
    opened: float
    parts: int = 0
    heard_at: float | None = None
    closing_at: float = math.inf
    batch: list[bytes] = field(default_factory=list)
    batch_octets: int = 0
    batch_since: float = 0.0

    def take(self, datagram: bytes, now: float) -> None:
        """A datagram from anybody: who has the key will see whose it is."""
        octets = len(datagram)
        if not HEADER_OCTETS <= octets <= PACKET_OCTETS_MAX or datagram[0] >> 6 != VERSION:
            return
        if octets > self.octets_left:
            return
        self.octets_left -= octets
        self.heard_at = now
        if self.batch_octets + octets > STORED_OCTETS_MAX:
            self.tell()
        if not self.batch:
            self.batch_since = now
        self.batch.append(datagram)
        self.batch_octets += octets
        if len(self.batch) == BATCH_PACKETS:
            self.tell()

    def tell(self) -> None:
        """Hand over what has come since the last time."""
        if not self.batch:
            return
        packets, part = tuple(self.batch), self.parts
        self.batch, self.batch_octets, self.parts = [], 0, part + 1
        self.on_event(Recorded(self.session, part, packets))


class Recorder:
    """Carries out what a mailbox decides about media.

    on_event is called on the event loop, also from within `carry_out` and `stop`: it puts the event aside.
    """

    def __init__(self, settings: RecorderSettings, *, on_event: Callable[[MediaEvent], None]) -> None:
        self._settings = settings
        self._on_event = on_event
        self._lines: list[Line] = []
        self._open: dict[str, _Recording] = {}
        self._beating: asyncio.Task[None] | None = None
        self._leaving = False

    async def start(self) -> tuple[MediaAddress, ...]:
        """Bind the lines. Returns the address of each, as callers are to be told. Raises OSError."""
        settings = self._settings
        self._lines = await bind(settings.lines, settings.host, settings.port)
        for line in self._lines:
            line.not_after = math.inf  # what K's lifetime is a mailbox need not know
        self._beating = asyncio.get_running_loop().create_task(self._beat())
        self._beating.add_done_callback(_raise)
        return addresses(self._lines, settings.advertised_host or settings.host)

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Open or close a session; one that is open already, or closing, is left alone. One that is not open
        is closed at once.

        Raises IndexError if there is no such line.
        """
        match instruction:
            case OpenRecording(session, line):
                if self._leaving:
                    self._on_event(RecordingClosed(session))
                elif session not in self._open:
                    self._begin(session, self._lines[line])
            case CloseRecording(session):
                recording = self._open.get(session)
                if recording is None:
                    self._on_event(RecordingClosed(session))
                else:
                    closing_at = asyncio.get_running_loop().time() + self._settings.linger_s
                    recording.closing_at = min(recording.closing_at, closing_at)

    def close_all(self) -> None:
        """Tell at once what has come, and end all sessions: this process is to stop, and begins no other."""
        self._leaving = True
        for recording in list(self._open.values()):
            self._end(recording)

    async def stop(self) -> None:
        """End all sessions and close all sockets."""
        self.close_all()
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait([self._beating])
        while self._lines:
            await self._lines.pop().close()

    def _begin(self, session: str, line: Line) -> None:
        """A line whose session nobody has asked to be closed is the agent's to give: that session ends."""
        for other in list(self._open.values()):
            if other.line is line:
                self._end(other)
        now = asyncio.get_running_loop().time()
        recording = _Recording(session, line, self._on_event, self._settings.octets_max, now)
        line.session = recording
        self._open[session] = recording

    def _end(self, recording: _Recording) -> None:
        recording.line.session = None
        del self._open[recording.session]
        recording.tell()
        self._on_event(RecordingClosed(recording.session))

    async def _beat(self) -> None:
        """What is due by the clock, ten times a second."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_BEAT_S)
            now = loop.time()
            for recording in list(self._open.values()):
                if now >= recording.closing_at or self._is_silent(recording, now):
                    self._end(recording)
                elif recording.batch and now >= recording.batch_since + _BATCH_S:
                    recording.tell()

    def _is_silent(self, recording: _Recording, now: float) -> bool:
        if recording.heard_at is None:
            return now >= recording.opened + self._settings.nothing_s
        return now >= recording.heard_at + self._settings.silence_s


def _raise(task: asyncio.Task[None]) -> None:
    """What a task has raised is not to be lost."""
    if not task.cancelled():
        task.result()
