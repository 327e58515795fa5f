"""What things are called (section 1), as types that a decoder can check.

A value of these types is exactly what the grammar allows: nothing is normalised, anything else is malformed.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

Identity = Annotated[
    str,
    Meta(pattern=r"^sip:[a-z0-9._+-]{1,64}@[a-z0-9.-]+\Z", max_length=255, description="public identity"),
]
KeyId = Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z", description="KID: a B-TID, or psk: and a name")]
Impi = Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z", description="private identity of one device")]
Host = Annotated[str, Meta(pattern=r"^[a-z0-9.-]{1,100}\Z", description="a UE host, as in ims.ue.<host>")]

GroupId = Annotated[bytes, Meta(min_length=16, max_length=16, description="G")]
Epoch = Annotated[int, Meta(ge=1, lt=2**32, description="e, from 1")]
CallId = Annotated[bytes, Meta(min_length=16, max_length=16, description="C")]
Nonce = Annotated[bytes, Meta(min_length=16, max_length=16, description="Na, Nb, ...")]
ForkName = Annotated[bytes, Meta(min_length=8, max_length=8, description="F")]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32, description="SHA-256")]
RunNumber = Annotated[int, Meta(ge=0, lt=2**32, description="n")]
Time = Annotated[int, Meta(ge=0, lt=2**40, description="whole seconds since 1970 UTC")]

PSK_OCTETS: Final = 32
MASTER_KEY_OCTETS: Final = 32


def host_of(identity: str) -> str:
    """The host part of a public identity."""
    return identity.partition("@")[2]


class Suite(IntEnum):
    """The AEAD of a run's seals; both suites hash with SHA-256."""

    AES_256_GCM = 1
    CHACHA20_POLY1305 = 2


class Role(StrEnum):
    """What a long-term key is used as: part of each sub-key, so that no seal means two things."""

    CALLER = "caller"
    CALLEE = "callee"
    MAILBOX = "mailbox"
    TRANSCODER = "transcoder"
    FOCUS = "focus"
    MEMBER = "member"
    NAF = "naf"
    UE = "ue"


class Owner(StrEnum):
    """What the holder of a long-term key is: it decides the roles in which the key serves (OR-03)."""

    UE = "ue"  # caller, callee and member
    MAILBOX = "mailbox"
    TRANSCODER = "transcoder"
    FOCUS = "focus"


class Kind(StrEnum):
    """What a grant is for."""

    PEER = "peer"  # a call between two ends
    MAILBOX = "mailbox"  # a message that a mailbox stores and cannot read


class NoticeKind(StrEnum):
    """What a notice of the KMS tells one side of a run to do (section 7)."""

    LEG = "leg"  # use the leg key towards the transcoder
    RENEW = "renew"  # both stop the leg, the caller renews
    END = "end"  # the run ends


class Permit(StrEnum):
    """What the sealing party consents to, beyond the call itself."""

    CONFERENCE = "conference"
    DEFERRED = "deferred"
    TRANSCODE = "transcode"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One key agreement of one call: (C, n) with both identities, and the suite that INVITE named.

    (ID-A, C, n) is unique; C alone is not, since each caller draws its own.
    """

    call: CallId
    n: RunNumber
    caller: Identity
    callee: Identity
    suite: Suite

    @property
    def clear(self) -> tuple[bytes, int, str, str]:
        """C, n, ID-A, ID-B: the beginning of every seal's context."""
        return (self.call, self.n, self.caller, self.callee)

    def __str__(self) -> str:
        return f"{self.call.hex()[:8]}/{self.n}"
