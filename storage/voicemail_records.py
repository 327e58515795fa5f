"""What a mailbox remembers: whose messages it has, and their packets as they came. No secret is in it: a
mailbox holds no K, and its own long-term key is in its settings.

All records of one user's mailbox are in one shard, that of ID-B, and so in the hands of one instance.
"""

from __future__ import annotations

from enum import StrEnum

from protocol.names import Run
from protocol.sharding import call_key
from protocol.transport import MediaAddress
from storage.records import Key, Record, key_of

ROLE = "voicemail"


class Held(Record, frozen=True, kw_only=True):
    """One message in a mailbox, for its limits."""

    caller: str
    call: bytes
    octets: int
    not_after: int  # it counts until then


class Reachable(Record, frozen=True, kw_only=True):
    """A device that call control says is registered for the mailbox's owner."""

    host: str
    device: str
    not_after: int


class MailboxOf(Record, frozen=True, kw_only=True):
    """The mailbox of one user."""

    held: tuple[Held, ...] = ()
    devices: tuple[Reachable, ...] = ()
    asked: tuple[int, int] = (0, 0)  # a second, and the requests of devices in it

    @staticmethod
    def key_for(callee: str) -> Key[MailboxOf]:
        """Found by ID-B."""
        return key_of(MailboxOf, ROLE, "mailbox", callee)


class Announcement(Record, frozen=True, kw_only=True):
    """What MESSAGE WAITING says of one message."""

    caller: str
    caller_key: str
    call: bytes
    mailbox: str
    offer: bytes
    answer: bytes
    packets: int
    parts: int
    left_at: int
    not_after: int


class Announcements(Record, frozen=True, kw_only=True):
    """The messages that wait for one user, the oldest first."""

    waiting: tuple[Announcement, ...] = ()

    @staticmethod
    def key_for(callee: str) -> Key[Announcements]:
        """Found by ID-B."""
        return key_of(Announcements, ROLE, "announcements", callee)


class MessageState(StrEnum):
    """How a message stands; agents/voicemail.py says what may come in each."""

    ASKING = "asking"  # DEPOSIT sent
    RECORDING = "recording"  # 200 OK sent, packets may come
    CLOSING = "closing"  # no more is taken, the last packets are awaited
    LEFT = "left"
    ENDED = "ended"  # nothing is there (any more): answers repeats until it is forgotten


class StoredMessage(Record, frozen=True, kw_only=True):
    """One message. What was sent is kept as it was sent, so that a repeat is octet for octet."""

    run: Run
    state: MessageState
    caller_key: str
    token_a: bytes
    token_v: bytes
    nonce: bytes  # Nv
    offer: bytes
    answer: bytes
    diverted: str  # why the INVITE came here
    started: int
    repeat_at: int | None  # when to repeat what is not answered; None: nothing is to be repeated
    give_up_at: int  # when to look at this state again, since it has lasted long
    repeats: int = 0
    declined: str = ""  # the reason of the DECLINE that ended it
    farewell: str = ""  # the reason of this end's BYE, until the caller's comes
    hung_up: bool = False  # the caller's BYE has come
    grant_m: bytes = b""
    proof_hash: bytes = b""
    not_after: int = 0
    instance: str = ""  # which process records it
    media: MediaAddress | None = None  # on which of its lines
    opened: int = 0
    parts: int = 0
    packets: int = 0
    octets: int = 0
    last_at: int = 0  # when the last packets came

    @staticmethod
    def key_for(caller: str, callee: str, call: bytes) -> Key[StoredMessage]:
        """Found by ID-A, ID-B and C."""
        return key_of(StoredMessage, ROLE, "message", f"{callee} {call_key(caller, call)}", shard_by=callee)


class Part(Record, frozen=True, kw_only=True):
    """Some packets of a message, in the order in which they came."""

    packets: tuple[bytes, ...]

    @staticmethod
    def key_for(caller: str, callee: str, call: bytes, part: int) -> Key[Part]:
        """Found by ID-A, ID-B, C and its number, from 0."""
        about = f"{callee} {call_key(caller, call)} {part}"
        return key_of(Part, ROLE, "part", about, shard_by=callee)


class RecorderLines(Record, frozen=True, kw_only=True):
    """Which message each line of one process carries, by the session's name."""

    sessions: tuple[str | None, ...] = ()

    @staticmethod
    def key_for(instance: str) -> Key[RecorderLines]:
        """Found by the process's own name, which no other has had."""
        return key_of(RecorderLines, ROLE, "lines", instance)
