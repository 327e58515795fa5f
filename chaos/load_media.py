"""The media engine of a load: no sockets, and of each key it keeps a fingerprint only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chaos.silent_media import NO_STATISTICS, SILENCE_S
from media.leg import CloseMedia, Leg, MediaClosed, MediaEvent, MediaInstruction, MediaSilent, OpenMedia
from protocol.encoding import digest, enc
from protocol.secret import Secret

_FINGERPRINT_OCTETS: Final = 8


def fingerprint(root: Secret) -> str:
    """Tells keys apart and gives none away: the first 8 octets of H(enc("load", K)), in hexadecimal."""
    return digest(enc("load", root))[:_FINGERPRINT_OCTETS].hex()


@dataclass(slots=True)
class Opening:
    """Media that one end has opened. Times are the event loop's, in seconds."""

    session: str
    end: str  # the identity that sends from here
    fingerprint: str
    opened: float
    closed: float | None = None

    @property
    def call(self) -> str:
        """ID-A and C, which a session's name ends with (agents/handset/ue_call.py)."""
        return self.session.partition(" ")[2]


class LoadMedia:
    """The engine of a host that carries both ends of each call, so that it knows who would hear nobody.

    It leaves a key's end to the handset, which watches it too.
    """

    def __init__(self, on_event: Callable[[MediaEvent], None]) -> None:
        self.openings: list[Opening] = []
        self._on_event = on_event
        self._open: dict[str, dict[str, Opening]] = {}  # by call, then by session

    def carry_out(self, instruction: MediaInstruction) -> None:
        """Note that a session opens or closes. An open one is opened once more as the same or a new key."""
        match instruction:
            case OpenMedia(leg):
                self._note(leg)
            case CloseMedia(session):
                self._close(session)

    def _note(self, leg: Leg) -> None:
        loop = asyncio.get_running_loop()
        opening = Opening(leg.session, leg.local, fingerprint(leg.root), loop.time())
        self.openings.append(opening)
        self._open.setdefault(opening.call, {})[leg.session] = opening
        loop.call_later(SILENCE_S, self._listen, opening)

    def _close(self, session: str) -> None:
        call = session.partition(" ")[2]
        legs = self._open.get(call, {})
        opening = legs.pop(session, None)
        if not legs:
            self._open.pop(call, None)
        if opening is not None:
            opening.closed = asyncio.get_running_loop().time()
            self._on_event(MediaClosed(session, NO_STATISTICS, expired=False))

    def _listen(self, opening: Opening) -> None:
        """Tell once when the other end's packets do not come or would not authenticate."""
        legs = self._open.get(opening.call, {})
        if legs.get(opening.session) is not opening:
            return
        others = [other for session, other in legs.items() if session != opening.session]
        if any(other.fingerprint == opening.fingerprint for other in others):
            asyncio.get_running_loop().call_later(SILENCE_S, self._listen, opening)
        else:
            self._on_event(MediaSilent(opening.session))
