"""What a transcoder remembers: which calls it is between, and which of its lines they have.

No key is in it, neither K, which it never has, nor a leg key: an instance that takes over asks for its own.
"""

from __future__ import annotations

from enum import StrEnum

from protocol.names import Run
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of

ROLE = "transcoder"


class LegsState(StrEnum):
    """How the two legs of a call stand; agents/transcoder.py says what may come in each."""

    ASKING = "asking"  # RELEASE sent, nothing flows
    RUNNING = "running"  # both legs are open
    RENEWING = "renewing"  # likewise, and RELEASE was sent for a later run
    OVER = "over"  # nothing is there (any more): remembered, so that nothing late begins it anew


class Legs(Record, frozen=True, kw_only=True):
    """One call with a transcoder in it. What was sent is kept, so that a repeat is octet for octet."""

    run: Run  # the latest one; the suite is the transcoder's own
    fork: bytes  # F
    state: LegsState
    give_up_at: int  # when this state has lasted too long
    instance: str = ""  # which process has the legs
    bridge: str = ""  # their name at its media engine, drawn anew by each instance
    lines: tuple[int, int] = (0, 0)  # of that process, towards A and B
    offer: bytes = b""
    answer: bytes = b""
    media_a: MediaAddress | None = None
    media_b: MediaAddress | None = None
    token_t: bytes = b""
    nonce: bytes = b""  # Nt
    notice_a: bytes = b""
    notice_b: bytes = b""
    until: int = 0  # when the keys of the open legs end
    repeat_at: int | None = None  # when to repeat what may be lost; None: nothing is to be repeated
    repeats: int = 0

    @staticmethod
    def key_for(caller: str, call: bytes) -> Key[Legs]:
        """Found by ID-A and C."""
        return key_of(Legs, ROLE, "legs", call_key(caller, call))


class TranscoderLines(Record, frozen=True, kw_only=True):
    """Which bridge each line of one process carries, and when it is free again, whatever becomes of that."""

    users: tuple[tuple[str, int] | None, ...] = ()

    @staticmethod
    def key_for(instance: str) -> Key[TranscoderLines]:
        """Found by the process's own name, which no other has had."""
        return key_of(TranscoderLines, ROLE, "lines", instance)
