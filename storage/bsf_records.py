"""What the BSF remembers, the subscribers' data of an HSS included."""

from __future__ import annotations

from typing import ClassVar

from protocol.secret import Secret
from storage.records import Key, Record, key_of

ROLE = "bsf"


class Subscription(Record, frozen=True, kw_only=True):
    """One USIM as its home network knows it (TS 33.102)."""

    secret: ClassVar[bool] = True

    impi: str
    identities: tuple[str, ...]
    k: Secret  # 16 octets
    opc: Secret  # 16 octets
    sqn: int  # 48 bits: the last one used

    @staticmethod
    def key_for(impi: str) -> Key[Subscription]:
        """Found by IMPI."""
        return key_of(Subscription, ROLE, "subscription", impi)


class Challenge(Record, frozen=True, kw_only=True):
    """A challenge of one bootstrapping: outstanding, or answered (single use, OR-31)."""

    secret: ClassVar[bool] = True

    rand: bytes
    autn: bytes
    xres: Secret
    ks: Secret  # CK || IK
    made: int
    answer_hash: bytes | None = None  # of the BootstrapAnswer that was accepted
    btid: str = ""
    not_after: int = 0
    server_digest: str = ""

    @staticmethod
    def key_for(impi: str, attempt: bytes) -> Key[Challenge]:
        """Found by IMPI and attempt."""
        return key_of(Challenge, ROLE, "challenge", f"{impi}/{attempt.hex()}", shard_by=impi)


class Bootstrapped(Record, frozen=True, kw_only=True):
    """Ks under its B-TID."""

    secret: ClassVar[bool] = True

    ks: Secret
    rand: bytes
    impi: str
    identities: tuple[str, ...]
    not_after: int

    @staticmethod
    def key_for(btid: str) -> Key[Bootstrapped]:
        """Found by B-TID."""
        return key_of(Bootstrapped, ROLE, "bootstrapped", btid)


class Naf(Record, frozen=True, kw_only=True):
    """A NAF that this BSF serves, and the key shared with it."""

    secret: ClassVar[bool] = True

    zn_key: Secret  # K_zn

    @staticmethod
    def key_for(naf_id: bytes) -> Key[Naf]:
        """Found by NAF_Id."""
        return key_of(Naf, ROLE, "naf", naf_id.hex())
