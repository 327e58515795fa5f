"""What an agent asks of a media engine, and what the engine tells it: values only, no sockets.

A role file decides with `OpenMedia`, `RenewMedia`, `MoveMedia` and `CloseMedia`; an engine (media/engine.py,
media/bridge.py, or the simulator's, which have no sockets) carries them out and tells of what it heard by
`MediaEvent`. A message out of a mailbox is heard through the same engine, faster than it was said
(`OpenStored`); a mailbox has a recorder (media/recorder.py), which holds no key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from protocol.description import Flow, SrtpSuite
from protocol.secret import Secret
from protocol.transport import MediaAddress, Statistics

SILENT_S: Final = 15  # a recorder that has heard nothing more for so long: the caller is gone
NOTHING_S: Final = 32  # and none at all: she never came


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
    n: int  # the run, or the epoch
    flow: Flow
    lifetime_s: int  # the key may be used for so long, on the engine's monotonic clock
    sound: bytes | None = None  # which one to play, by its name; the host's own when None
    to_mailbox: bool = False  # nobody answers under this key: a tone is heard, silence means nothing
    group: bytes | None = None  # G, where this is a conference: then all streams are addressed to it
    bridge: str = ""  # in a bridge: its name; sessions of one bridge hear each other, and nothing else


@dataclass(frozen=True, slots=True)
class OpenMedia:
    """Send and receive under this leg's key, until it is closed or its lifetime ends."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class RenewMedia:
    """The session of this name goes on under another leg's key, on its line and without a gap.

    What comes under the new key is taken at once. speak_within_s: send under it after so long at the latest
    (0: at once), and as soon as something authentic has come under it; None: only then, or when the old key
    ends. overlap_s: what still comes under the old key is taken for so long (0: no longer); None: until
    OVERLAP_S after the first authentic packet under the new one; in any case at most until the old key ends.
    The leg's sound, line and bridge mean nothing: those of the session stay. The session lasts as long as the
    new key.
    A session that is not open is opened; one that is on this leg's key already only learns its address.
    """

    leg: Leg
    speak_within_s: float | None = None
    overlap_s: float | None = None


@dataclass(frozen=True, slots=True)
class MoveMedia:
    """The peer of a session listens at another address from now on."""

    session: str
    remote_address: MediaAddress


@dataclass(frozen=True, slots=True)
class CloseMedia:
    """Stop a session and tell its statistics. A session that is not open is left alone."""

    session: str


@dataclass(frozen=True, slots=True)
class OpenStored:
    """Hear a stored message under this leg's key; its line and remote address mean nothing."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class TakeStored:
    """Some packets of it, SRTP and SRTCP, as they were stored; each once, in their order."""

    session: str
    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CloseStored:
    """That was all: tells StoredHeard, and the sink gets the sound. Also for one that is not open."""

    session: str


@dataclass(frozen=True, slots=True)
class OpenRecording:
    """Mailbox: keep what comes to this line, unread."""

    session: str
    line: int


@dataclass(frozen=True, slots=True)
class CloseRecording:
    """Mailbox: hand over what has come, then tell RecordingClosed. Also for one that is not open."""

    session: str


MediaInstruction = (
    OpenMedia
    | RenewMedia
    | MoveMedia
    | CloseMedia
    | OpenStored
    | TakeStored
    | CloseStored
    | OpenRecording
    | CloseRecording
)


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


@dataclass(frozen=True, slots=True)
class StoredHeard:
    """A stored message has been heard: authentic packets, refused ones, and whether the end that its sender
    gave it (SRTCP BYE) was there, and no packet before it was missing."""

    session: str
    packets: int
    refused: int
    whole: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorder has these packets of a session. part: counted from 0 in this session."""

    session: str
    part: int
    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RecordingClosed:
    """Nothing more will come of this session: all its packets have been told before."""

    session: str


@dataclass(frozen=True, slots=True)
class Speakers:
    """Who of a bridge has been loud in the last second, the loudest first; told when it changes.
    sessions: their names."""

    bridge: str
    sessions: tuple[str, ...]


MediaEvent = Speakers | MediaClosed | MediaSilent | StoredHeard | Recorded | RecordingClosed

__all__ = [
    "CloseMedia",
    "CloseRecording",
    "CloseStored",
    "Leg",
    "MediaAddress",
    "MediaClosed",
    "MediaEvent",
    "MediaInstruction",
    "MediaSilent",
    "MoveMedia",
    "OpenMedia",
    "OpenRecording",
    "OpenStored",
    "Recorded",
    "RecordingClosed",
    "RenewMedia",
    "Speakers",
    "Statistics",
    "StoredHeard",
    "TakeStored",
]
