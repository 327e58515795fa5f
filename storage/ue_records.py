"""What a handset remembers, in its host's memory: it dies with the host, as a handset's does."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from protocol.names import Role, Run
from protocol.secret import Secret
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of

ROLE = "ue"


class Usim(Record, frozen=True, kw_only=True):
    """The subscriber's half of what the HSS has (TS 33.102)."""

    k: Secret  # 16 octets
    opc: Secret  # 16 octets
    sqn: int = 0  # the greatest accepted


class Bootstrapping(Record, frozen=True, kw_only=True):
    """One attempt to get a key from the BSF, as far as it has come."""

    attempt: bytes
    started: int
    realm: str = ""
    nonce: str = ""
    cnonce: str = ""
    response: str = ""
    auts: bytes | None = None
    rand: bytes = b""
    res: Secret | None = None
    ks: Secret | None = None


class HandsetKey(Record, frozen=True, kw_only=True):
    """A long-term key K_x as its device holds it."""

    key_id: str
    key: Secret  # 32 octets
    not_after: int
    obtained: int
    attached: bool = False  # the KMS has shown that it holds it too


class Handset(Record, frozen=True, kw_only=True):
    """One device: who it is, its key, and how long it is registered."""

    secret: ClassVar[bool] = True

    impi: str
    identity: str
    usim: Usim | None = None  # None: it has a pre-shared key
    key: HandsetKey | None = None
    bootstrapping: Bootstrapping | None = None
    registered_until: int = 0
    dialled: tuple[tuple[bytes, str], ...] = ()  # the last wishes to dial, and the session each became

    @staticmethod
    def key_for(impi: str) -> Key[Handset]:
        """Found by IMPI."""
        return key_of(Handset, ROLE, "handset", impi, shard_by="")


class Lines(Record, frozen=True, kw_only=True):
    """Which session each line of the host's media engine carries."""

    sessions: tuple[str | None, ...] = ()

    @staticmethod
    def key() -> Key[Lines]:
        """The one record of its kind."""
        return key_of(Lines, ROLE, "lines", "", shard_by="")


class CallState(StrEnum):
    """Where a call stands at one end; agents/call_states.py says what may come in each."""

    CALLING = "calling"  # caller: INVITE sent
    CALLED = "called"  # caller: the other side rings
    CANCELLING = "cancelling"  # caller: CANCEL sent
    ASKING = "asking"  # callee: REQUEST sent
    ALERTING = "alerting"  # callee: has K, its user is called
    ANSWERED = "answered"  # callee: 200 OK sent
    UP = "up"
    HANGING_UP = "hanging-up"  # BYE sent
    ENDED = "ended"


class UeCall(Record, frozen=True, kw_only=True):
    """One call at one end. What was sent is kept as it was sent, so that a repeat is octet for octet."""

    secret: ClassVar[bool] = True

    session: str
    device: str
    role: Role  # CALLER or CALLEE
    run: Run
    state: CallState
    line: int
    started: int
    own_key_id: str
    own_key: Secret  # K_x under which the run's token was sealed
    peer_key_id: str  # the callee knows the caller's; empty at the caller
    token: bytes  # own token
    nonce: bytes  # Na or Nb
    offer: bytes
    token_a: bytes  # both ends keep it: the transcript needs it
    repeat_at: int  # when to repeat what is not answered; see CallAlarm
    repeats: int = 0
    give_up_at: int  # when this state has lasted too long
    request: bytes | None = None  # of the Dial
    answer: bytes = b""
    grant_a: bytes = b""
    nonce_b: bytes = b""
    fork: bytes = b""
    key: Secret | None = None  # K
    lifetime_s: int = 0  # not_after minus the KMS's now, both as sealed
    peer_media: MediaAddress | None = None
    settled: bytes = b""  # the sealed part of SETTLED, until it is answered
    reason: str = ""  # why it ended
    media_open: bool = False
    sound: bytes | None = None  # of the Dial

    @staticmethod
    def key_for(session: str) -> Key[UeCall]:
        """Found by the session's name."""
        return key_of(UeCall, ROLE, "call", session, shard_by="")
