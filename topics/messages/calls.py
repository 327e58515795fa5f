"""A call (sections 4 and 5): caller, callee, call control, KMS."""

from __future__ import annotations

from enum import StrEnum

from protocol.checks import RefusalCode
from protocol.names import ForkName, Hash, Impi, KeyId, Nonce, Role, Suite
from protocol.transport import MediaAddress
from topics.messages.form import Contact, DescriptionOctets, OfRun, Sealed, Text


class DeclineReason(StrEnum):
    """Why a call did not come up, or where no message could be left."""

    BUSY = "busy"  # no free line
    DECLINED = "declined"  # the user said no
    NO_ANSWER = "no-answer"
    NOT_REGISTERED = "not-registered"
    NOTHING_IN_COMMON = "nothing-in-common"  # no SRTP suite or codec of the offer
    NO_KEY = "no-key"  # the KMS refused, or this device has no key
    NOT_PERMITTED = "not-permitted"  # no message may be left: its caller or the KMS's policy says so
    TOO_MANY = "too-many"  # the mailbox has as many messages as it takes, of this caller or in all
    MAILBOX_FULL = "mailbox-full"  # its messages take as many octets as it may keep


class Invite(OfRun, tag="invite", frozen=True, kw_only=True):
    """1  A -> CSCF -> B, to each device; or to the mailbox, with the reason why."""

    caller_key: KeyId
    suite: Suite
    offer: DescriptionOctets
    token_a: Sealed
    media: MediaAddress
    sender: Contact | None = None
    to: Impi | None = None
    diverted: DeclineReason | None = None


class Trying(OfRun, tag="trying", frozen=True, kw_only=True):
    """B -> CSCF, for a repeated INVITE: the device waits for the KMS. No mailbox need be asked yet."""

    sender: Contact


class Ringing(OfRun, tag="ringing", frozen=True, kw_only=True):
    """B -> CSCF -> A: the KMS has granted K, the user is called."""

    sender: Contact | None = None
    to: Impi | None = None


class KeyRequest(OfRun, tag="key-request", frozen=True, kw_only=True):
    """2  B -> KMS."""

    caller_key: KeyId
    callee_key: KeyId
    suite: Suite
    token_a: Sealed
    token_b: Sealed
    sender: Contact


class KeyResponse(OfRun, tag="key-response", frozen=True, kw_only=True):
    """3  KMS -> B."""

    fork: ForkName
    grant_a: Sealed
    grant_b: Sealed
    to: Impi


class Refusal(OfRun, tag="refusal", frozen=True, kw_only=True):
    """3' KMS -> B, to A for a SETTLED, to the mailbox (no `to`) for a DEPOSIT. sealed: where the requester's
    token has opened, else a hint."""

    code: RefusalCode
    sealed: Sealed | None
    to: Impi | None


class Ok(OfRun, tag="ok", frozen=True, kw_only=True):
    """4  B -> CSCF -> A."""

    fork: ForkName
    nonce_b: Nonce
    answer: DescriptionOctets
    grant_a: Sealed
    confirm_b: Hash
    media: MediaAddress
    sender: Contact | None = None
    to: Impi | None = None


class Ack(OfRun, tag="ack", frozen=True, kw_only=True):
    """5  A -> CSCF -> B."""

    fork: ForkName
    confirm_a: Hash
    to: Impi | None = None


class Settled(OfRun, tag="settled", frozen=True, kw_only=True):
    """A -> KMS, repeated until it is answered (section 5)."""

    caller_key: KeyId
    suite: Suite
    sealed: Sealed
    sender: Contact


class SettledOk(OfRun, tag="settled-ok", frozen=True, kw_only=True):
    """KMS -> A."""

    to: Impi


class Decline(OfRun, tag="decline", frozen=True, kw_only=True):
    """B -> CSCF, and CSCF -> A once no device is left: the call will not come up. A hint as all call control
    is: it ends a call, it never weakens one."""

    reason: DeclineReason
    sender: Contact | None = None
    to: Impi | None = None


class Cancel(OfRun, tag="cancel", frozen=True, kw_only=True):
    """A -> CSCF, CSCF -> B: stop ringing. Each hop repeats its own until Cancelled comes; towards a mailbox,
    which gives up by itself, it goes once."""

    to: Impi | None = None


class Cancelled(OfRun, tag="cancelled", frozen=True, kw_only=True):
    """B -> CSCF, CSCF -> A."""

    sender: Contact | None = None
    to: Impi | None = None


class Bye(OfRun, tag="bye", frozen=True, kw_only=True):
    """Either end -> CSCF -> the other; repeated until ByeOk comes. by: CALLER, CALLEE or MAILBOX.
    fork, proof: None between a caller and a mailbox, which does not hold K."""

    fork: ForkName | None
    by: Role
    proof: Hash | None
    reason: Text | None = None  # why a mailbox takes no more
    to: Impi | None = None


class ByeOk(OfRun, tag="bye-ok", frozen=True, kw_only=True):
    """The other end's answer. by: who answers. kept: packets that a mailbox has stored, for good."""

    fork: ForkName | None
    by: Role
    kept: int | None = None
    to: Impi | None = None
