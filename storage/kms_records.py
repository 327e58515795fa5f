"""What the KMS remembers."""

from __future__ import annotations

import zlib
from typing import ClassVar, Final

from protocol.names import Owner, Permit, Suite, host_of
from protocol.secret import Secret
from protocol.sharding import SHARDS, call_key, string_in
from storage.records import Key, Record, key_of

ROLE = "kms"
_USES_PARTS: Final = 16


class Site(Record, frozen=True, kw_only=True):
    """What this KMS is, written once by `otway provision`."""

    secret: ClassVar[bool] = True

    fork_key: Secret  # K_F
    zn_key: Secret  # K_zn, shared with the BSF
    naf_id: bytes
    founded: int  # a store that is new or restored refuses tokens dated before this (OR-10)

    @staticmethod
    def key() -> Key[Site]:
        """The one record of its kind."""
        return key_of(Site, ROLE, "site", "")


class Subscriber(Record, frozen=True, kw_only=True):
    """The owner of a key id (section 1)."""

    secret: ClassVar[bool] = True

    key_id: str
    key: Secret  # K_x, 32 octets
    impi: str
    identities: tuple[str, ...]  # public identities that it may act as
    not_before: int
    not_after: int
    revoked: bool = False
    owner: Owner = Owner.UE
    revoked_at: int = 0  # the last time: it ends stored keys from before also when the key id has a new key
    serves: tuple[str, ...] = ()  # a network function's: hosts whose users it may serve (OR-14); none: all
    mixes: bool = True  # a focus's: it gets the epoch keys, and is on the roster

    def may_serve(self, *users: str) -> bool:
        """Whether policy lets this network function serve all of these identities (OR-14)."""
        return not self.serves or all(host_of(user) in self.serves for user in users)

    @staticmethod
    def key_for(key_id: str) -> Key[Subscriber]:
        """Found by KID."""
        return key_of(Subscriber, ROLE, "subscriber", key_id)


class Released(Record, frozen=True, kw_only=True):
    """Leg keys of one run, which one transcoder has been given. They follow from K: none is stored."""

    transcoder: str  # ID-T
    transcoder_key: str
    granted: int
    revoked: bool = False
    told: bool = False  # that it was revoked: both sides


class Fork(Record, frozen=True, kw_only=True):
    """K for one answering device."""

    name: bytes  # F
    impi: str
    callee_key: str
    token_b_hash: bytes
    key: Secret | None  # None: destroyed, since another device won or its time was over
    granted: int
    not_before: int
    not_after: int
    nonce_b: bytes = b""  # Nb, and what else a later notice to the callee needs
    notify_b: Secret | None = None  # down(K_b, callee), 32 octets
    permits_b: tuple[Permit, ...] = ()
    released: Released | None = None
    serial_a: int = 0  # of the last notice to each side
    serial_b: int = 0
    withdrawn: int = 0  # when its key was destroyed before its time; 0: it was not


class Deposited(Record, frozen=True, kw_only=True):
    """K for a message that was left, until a device of the callee fetches it."""

    mailbox: str  # ID-V
    mailbox_key: str
    token_v_hash: bytes
    offer_hash: bytes
    answer_hash: bytes
    key: Secret | None  # None: destroyed, since a device won or its time was over
    granted: int
    not_before: int
    not_after: int
    serial_a: int = 0  # of the last notice to the caller
    withdrawn: int = 0


class AgreedRun(Record, frozen=True, kw_only=True):
    """One run of a call: the one token_a that was accepted for it, and whom it was granted with."""

    n: int
    suite: Suite
    callee: str
    caller_key: str
    token_a_hash: bytes
    nonce_a: bytes
    forks: tuple[Fork, ...]
    settled: bytes | None = None  # F of the device that the caller took; empty: it took the mailbox
    deposit: Deposited | None = None
    caller_impi: str = ""
    notify_a: Secret | None = None  # down(K_a, caller), 32 octets: for notices
    permits_a: tuple[Permit, ...] = ()


class Agreement(Record, frozen=True, kw_only=True):
    """All that was granted for one call, (ID-A, C)."""

    secret: ClassVar[bool] = True

    runs: tuple[AgreedRun, ...] = ()
    barred: tuple[str, ...] = ()  # transcoders whose release for this call was revoked: they get none again

    @staticmethod
    def key_for(caller: str, call: bytes) -> Key[Agreement]:
        """Found by ID-A and C."""
        return key_of(Agreement, ROLE, "agreement", call_key(caller, call))


class PendingAttach(Record, frozen=True, kw_only=True):
    """A question to the BSF that is not answered yet, or was answered with 'unknown'."""

    request: bytes  # zn-req as it went out
    nonce: bytes  # Nk
    asked: int
    waiting: tuple[tuple[str, str], ...]  # UE host and device of who asked to be attached
    unknown: bool = False

    @staticmethod
    def key_for(btid: str) -> Key[PendingAttach]:
        """Found by B-TID."""
        return key_of(PendingAttach, ROLE, "attach", btid)


class Rate(Record, frozen=True, kw_only=True):
    """Requests in one second (OR-11)."""

    second: int
    count: int

    @staticmethod
    def key_for(counted: str) -> Key[Rate]:
        """Found by what is counted: `kid ...` or `host ...`."""
        return key_of(Rate, ROLE, "rate", counted)


class Uses(Record, frozen=True, kw_only=True):
    """Calls and conferences in which a key id holds a key: they hear of its revocation. Those of one shard
    are in several records, so that a key id of many calls does not write them all at each."""

    calls: tuple[tuple[str, str, bytes, int], ...] = ()  # ID-A, ID-B, C, and until when
    conferences: tuple[tuple[str, bytes, int], ...] = ()  # ID-C, G, and until when

    @staticmethod
    def key_for(key_id: str, shard_by: str) -> Key[Uses]:
        """Found by KID and by what decides the shard: the call, or the conference."""
        part = zlib.crc32(shard_by.encode()) // SHARDS % _USES_PARTS
        return _uses_part(key_id, part, shard_by)

    @staticmethod
    def keys_for(key_id: str) -> tuple[Key[Uses], ...]:
        """All of them."""
        return tuple(
            _uses_part(key_id, part, string_in(shard))
            for shard in range(SHARDS)
            for part in range(_USES_PARTS)
        )


def _uses_part(key_id: str, part: int, shard_by: str) -> Key[Uses]:
    return key_of(Uses, ROLE, "uses", f"{part} {key_id}", shard_by=shard_by)


class Member(Record, frozen=True, kw_only=True):
    """One who holds the epoch's key, by the token with which it has joined."""

    identity: str
    key_id: str
    impi: str
    suite: Suite
    nonce: bytes  # N_i
    token_hash: bytes  # H(token_g)
    notify: Secret  # down(K_i, member), 32 octets
    not_after: int  # of its key id
    joined: int  # its first epoch
    revoked: bool = False


class Group(Record, frozen=True, kw_only=True):
    """One conference, (ID-C, G), at its last epoch."""

    secret: ClassVar[bool] = True

    epoch: int
    token_hash: bytes  # H(token_c) of this epoch
    key: Secret | None  # K_e; None: destroyed, its time is over
    granted: int
    not_before: int
    not_after: int
    members: tuple[Member, ...] = ()
    removed: tuple[str, ...] = ()  # identities that were put out
    spent: tuple[tuple[bytes, int], ...] = ()  # H(enc(ID-i, C)) of joins, and until when kept
    focus_key: str = ""
    mixes: bool = True  # the focus was given this K_e

    @staticmethod
    def key_for(focus: str, group: bytes) -> Key[Group]:
        """Found by ID-C and G."""
        return key_of(Group, ROLE, "group", f"{focus} {group.hex()}", shard_by=group.hex())
