"""What a handset remembers, in its host's memory: it dies with the host, as a handset's does.

An Inbox outlives it where the host has a file for it: storage/handset_memory.py.
"""

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
    """Where a call stands at one end; agents/handset/call_states.py says what may come in each."""

    CALLING = "calling"  # caller: INVITE sent
    CALLED = "called"  # caller: the other side rings
    CANCELLING = "cancelling"  # caller: CANCEL sent
    ASKING = "asking"  # callee: REQUEST sent
    ALERTING = "alerting"  # callee: has K, its user is called
    ANSWERED = "answered"  # callee: 200 OK sent
    UP = "up"
    LEAVING = "leaving"  # caller: a mailbox has answered, the user leaves a message
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
    mailbox: str = ""  # ID-V, when no device has answered and a mailbox has
    ends: int = 0  # when K is over, by whichever of both ways of counting ends first
    renew_at: int = 0  # a caller: when to ask for the next K; 0: not at all
    renewing: int = 0  # n of the run that is on its way to take this one's place; 0: none
    highest: int = 0  # the greatest n that was asked for at A, granted at B
    byes: tuple[tuple[int, Secret], ...] = ()  # other runs of which a BYE ends the call: n, and its proof
    transcoder: str = ""  # ID-T, which listens in
    notice_serial: int = 0  # of the last notice taken of this run
    leg_by: int = 0  # how long a call without a common codec waits for its leg; 0: it does not wait

    @staticmethod
    def key_for(session: str) -> Key[UeCall]:
        """Found by the session's name."""
        return key_of(UeCall, ROLE, "call", session, shard_by="")


class LeftMessage(Record, frozen=True, kw_only=True):
    """A message that this device has left in somebody's mailbox: it can take it back."""

    callee: str
    call: bytes
    proof: Secret  # 32 octets; K itself is gone with the call
    left_at: int
    until: int


class Outbox(Record, frozen=True, kw_only=True):
    """The messages that one device has left, the latest last."""

    secret: ClassVar[bool] = True

    left: tuple[LeftMessage, ...] = ()

    @staticmethod
    def key_for(impi: str) -> Key[Outbox]:
        """Found by IMPI."""
        return key_of(Outbox, ROLE, "outbox", impi, shard_by="")


class WaitingMessage(Record, frozen=True, kw_only=True):
    """A message for this device's user, as the mailbox tells of it."""

    caller: str
    caller_key: str
    call: bytes
    mailbox: str
    offer: bytes
    answer: bytes
    packets: int
    parts: int
    left_at: int
    until: int


class Inbox(Record, frozen=True, kw_only=True):
    """What one device knows of its user's mailbox, and what it has dealt with: never shown as new again."""

    waiting: tuple[WaitingMessage, ...] = ()
    collected: tuple[tuple[str, bytes, int], ...] = ()  # ID-A, C, and how long that is remembered

    @staticmethod
    def key_for(impi: str) -> Key[Inbox]:
        """Found by IMPI."""
        return key_of(Inbox, ROLE, "inbox", impi, shard_by="")


class CollectingState(StrEnum):
    """How far the collecting of one message has come."""

    FETCHING = "fetching"  # FETCH sent
    RETRIEVING = "retrieving"  # has K, asks the mailbox for the packets
    CLOSING = "closing"  # all parts have come; the media engine closes
    DELETING = "deleting"  # COLLECTED sent
    DONE = "done"


class Collecting(Record, frozen=True, kw_only=True):
    """One message on its way from the mailbox to the user's ear, or to its deletion."""

    secret: ClassVar[bool] = True

    session: str
    device: str
    state: CollectingState
    run: Run  # the suite is this device's own
    message: WaitingMessage | None  # None: one that this device has left, to be taken back
    request: bytes  # of the wish
    play: bool  # to be heard; else only deleted
    keep: bool
    started: int
    repeat_at: int
    give_up_at: int
    repeats: int = 0
    own_key_id: str = ""  # and what follows from it: none where nothing is to be fetched
    own_key: Secret | None = None
    token: bytes = b""  # token_f
    nonce: bytes = b""  # Nb
    key: Secret | None = None  # K
    proof: Secret | None = None
    left_at: int = 0  # as the KMS says
    until: int = 0
    part: int = 0  # the next one that is awaited
    asked: int = 0  # the one from which on the mailbox was asked last

    @staticmethod
    def key_for(session: str) -> Key[Collecting]:
        """Found by the session's name."""
        return key_of(Collecting, ROLE, "collecting", session, shard_by="")
