"""What the audit says of key ids: who has them, what they are for, whether they still serve; and of keys that
are stored for messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from console.operating.audits import all_audits
from console.operating.showing import utc
from protocol.names import Owner
from topics.kafka_clients import KafkaSettings
from topics.messages import Audit, AuditEvent


class KeyState(StrEnum):
    """Whether a key id, or a stored key, serves."""

    LIVE = "live"
    EXPIRED = "expired"
    REVOKED = "revoked"  # of a stored key: the key id that the message was left under
    SETTLED_AWAY = "settled-away"  # of a stored key: the caller took a device's answer


class KnownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key id that was attached, used in a grant, or revoked."""

    key_id: str
    owner: Owner | None  # what it is for; None: no record says it
    impi: str | None  # None: no record says it
    identities: tuple[str, ...]  # that it has acted as
    not_after: int | None  # seconds since 1970 UTC; None: no record says it, as of a pre-shared key
    grants: int
    state: KeyState

    def told(self) -> dict[str, object]:
        """For a program."""
        until = None if self.not_after is None else utc(self.not_after)
        return {**msgspec.structs.asdict(self), "not_after": until}

    def line(self) -> str:
        """For a terminal."""
        until = "-" if self.not_after is None else utc(self.not_after)
        return (
            f"{self.key_id:40} {self.owner or '-':10} {self.state:8} until {until:20} {self.grants:>6} grants"
            f"  {self.impi or '-'}  {', '.join(self.identities) or '-'}"
        )


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is stored so that the callee can hear a message."""

    caller: str
    callee: str
    call: bytes
    caller_key: str  # revoking it ends this key
    mailbox: str
    stored_at: int  # seconds since 1970 UTC
    not_after: int
    fetched: int  # how often, a repeated question counted once
    state: KeyState

    def told(self) -> dict[str, object]:
        """For a program."""
        times = {"stored_at": utc(self.stored_at), "not_after": utc(self.not_after)}
        return {**msgspec.structs.asdict(self), "call": self.call.hex(), **times}

    def line(self) -> str:
        """For a terminal."""
        return (
            f"{self.call.hex()}  {self.state:12} {utc(self.stored_at)} until {utc(self.not_after)}  "
            f"fetched {self.fetched:>3}  {self.caller} -> {self.callee} in {self.mailbox}"
        )


@dataclass(slots=True)
class _Told:
    owner: Owner | None = None
    impi: str | None = None
    not_after: int | None = None
    revoked: bool = False
    identities: set[str] = field(default_factory=set)
    grants: set[bytes] = field(default_factory=set)  # by id, since the audit may tell one twice


_Call = tuple[str, bytes]  # ID-A and C


class KeyBook:
    """Takes the audit record by record, in any order."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._stored: dict[_Call, StoredKey] = {}
        self._fetches: dict[_Call, set[bytes]] = {}  # by id
        self._settled_away: set[_Call] = set()

    def add(self, audit: Audit) -> None:
        """What this record says of key ids and of keys."""
        match audit:
            case Audit(event=AuditEvent.ATTACHED | AuditEvent.REVOKED, key_id=str(key_id)):
                told = self._of(key_id)
                told.impi, told.not_after = audit.impi, audit.not_after
                told.revoked = told.revoked or audit.event is AuditEvent.REVOKED
                if audit.event is AuditEvent.ATTACHED:
                    told.owner = Owner.UE
            case Audit(event=AuditEvent.GRANTED):
                self._used(audit, audit.caller_key, audit.caller, Owner.UE)
                self._used(audit, audit.callee_key, audit.callee, Owner.UE)
            case Audit(event=AuditEvent.DEPOSITED):
                self._used(audit, audit.caller_key, audit.caller, Owner.UE)
                self._used(audit, audit.key_id, audit.mailbox, Owner.MAILBOX)
                self._deposited(audit)
            case Audit(event=AuditEvent.FETCHED, caller=str(caller), call=bytes(call)):
                self._used(audit, audit.callee_key, audit.callee, Owner.UE)
                self._fetches.setdefault((caller, call), set()).add(audit.id)
            case Audit(event=AuditEvent.RELEASED):
                self._used(audit, audit.key_id, audit.transcoder, Owner.TRANSCODER)
            case Audit(event=AuditEvent.EPOCH):
                self._used(audit, audit.key_id, audit.focus, Owner.FOCUS)
            case Audit(event=AuditEvent.SETTLED, caller=str(caller), call=bytes(call), fork=bytes()):
                self._settled_away.add((caller, call))
            case _:
                pass

    def keys(self, now: int) -> Iterator[KnownKey]:
        """By key id. One that was revoked and then provisioned with another key is still called revoked."""
        for key_id, told in sorted(self._told.items()):
            state = KeyState.LIVE
            if told.revoked:
                state = KeyState.REVOKED
            elif told.not_after is not None and now > told.not_after:
                state = KeyState.EXPIRED
            yield KnownKey(
                key_id=key_id,
                owner=told.owner,
                impi=told.impi,
                identities=tuple(sorted(told.identities)),
                not_after=told.not_after,
                grants=len(told.grants),
                state=state,
            )

    def stored(self, now: int) -> Iterator[StoredKey]:
        """The oldest first. Whether a mailbox still has the message, no audit record says."""
        for about, stored in sorted(self._stored.items(), key=lambda each: (each[1].stored_at, each[0])):
            fetched = len(self._fetches.get(about, ()))
            yield msgspec.structs.replace(stored, fetched=fetched, state=self._state(about, stored, now))

    def _state(self, about: _Call, stored: StoredKey, now: int) -> KeyState:
        if about in self._settled_away:
            return KeyState.SETTLED_AWAY
        if now > stored.not_after:
            return KeyState.EXPIRED
        return KeyState.REVOKED if self._of(stored.caller_key).revoked else KeyState.LIVE

    def _deposited(self, audit: Audit) -> None:
        match audit:
            case Audit(
                caller=str(caller),
                callee=str(callee),
                call=bytes(call),
                caller_key=str(caller_key),
                mailbox=str(mailbox),
                not_after=int(not_after),
            ):
                self._stored[caller, call] = StoredKey(
                    caller=caller,
                    callee=callee,
                    call=call,
                    caller_key=caller_key,
                    mailbox=mailbox,
                    stored_at=audit.at,
                    not_after=not_after,
                    fetched=0,
                    state=KeyState.LIVE,
                )
            case _:
                pass

    def _used(self, audit: Audit, key_id: str | None, identity: str | None, owner: Owner) -> None:
        if key_id is not None and identity is not None:
            told = self._of(key_id)
            told.owner = owner
            told.identities.add(identity)
            told.grants.add(audit.id)

    def _of(self, key_id: str) -> _Told:
        return self._told.setdefault(key_id, _Told())


async def key_book(settings: KafkaSettings) -> KeyBook:
    """All that the audit has. Raises BusUnavailable, BusRefused."""
    book = KeyBook()
    async for noted in all_audits(settings):
        book.add(noted)
    return book
