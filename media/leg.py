"""What an agent asks of a media engine, and what the engine tells it: values only, no sockets.

A role file decides with `OpenMedia` and `CloseMedia`; an engine (media/engine.py, or the simulator's, which
has no sockets) carries them out and tells of what it heard by `MediaEvent`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from protocol.description import Flow, SrtpSuite
from protocol.secret import Secret
from protocol.transport import MediaAddress, Statistics


class Leg(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One end's view of the media of one run."""

    session: str  # names the call at this engine
    line: int  # which of the engine's lines (UDP sockets), from 0
    root: Secret  # K, 32 octets: each sender's SRTP keys are derived from it
    suite: SrtpSuite
    codec: str  # RTP name, as in the session description
    local: str  # identity that sends from here
    remote: str  # identity that is heard here
    remote_address: MediaAddress
    media_line: int
    n: int  # the run
    flow: Flow
    lifetime_s: int  # the key may be used for so long, on the engine's monotonic clock
    sound: bytes | None = None  # which one to play, by its name; the host's own when None


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """Send and receive under this leg's key, until it is closed or its lifetime ends."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class CloseMedia:
    """Stop a session and tell its statistics. A session that is not open is left alone."""

    session: str


MediaInstruction = OpenMedia | CloseMedia


@dataclass(frozen=True, slots=True)
class MediaClosed:
    """A session has ended, by CloseMedia or since its key's lifetime did."""

    session: str
    statistics: Statistics
    expired: bool


@dataclass(frozen=True, slots=True)
class MediaSilent:
    """Nothing authentic has come for a while: the peer has lost the call."""

    session: str


MediaEvent = MediaClosed | MediaSilent

__all__ = [
    "CloseMedia",
    "Leg",
    "MediaAddress",
    "MediaClosed",
    "MediaEvent",
    "MediaInstruction",
    "MediaSilent",
    "OpenMedia",
    "Statistics",
]
