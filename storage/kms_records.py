"""What the KMS remembers."""

from __future__ import annotations

from typing import ClassVar

from protocol.names import Owner, Suite
from protocol.secret import Secret
from protocol.sharding import call_key
from storage.records import Key, Record, key_of

ROLE = "kms"


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

    @staticmethod
    def key_for(key_id: str) -> Key[Subscriber]:
        """Found by KID."""
        return key_of(Subscriber, ROLE, "subscriber", key_id)


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


class Agreement(Record, frozen=True, kw_only=True):
    """All that was granted for one call, (ID-A, C)."""

    secret: ClassVar[bool] = True

    runs: tuple[AgreedRun, ...] = ()

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
