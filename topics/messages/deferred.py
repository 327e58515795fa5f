"""Deferred delivery (section 6): caller, mailbox, KMS and the callee's devices."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocol.checks import RefusalCode
from protocol.limits import PACKET_OCTETS_MAX, STORED_PACKETS_MAX
from protocol.names import Hash, Identity, Impi, KeyId, Nonce, Suite, Time
from protocol.transport import MediaAddress
from topics.messages.calls import DeclineReason
from topics.messages.form import Contact, DescriptionOctets, OfRun, Sealed, Wire


class Deposit(OfRun, tag="deposit", frozen=True, kw_only=True):
    """2  V -> KMS."""

    mailbox: Identity
    caller_key: KeyId
    mailbox_key: KeyId
    suite: Suite
    token_a: Sealed
    token_v: Sealed


class DepositResponse(OfRun, tag="deposit-response", frozen=True, kw_only=True):
    """3  KMS -> V."""

    grant_m: Sealed
    receipt_v: Sealed


class MailboxOk(OfRun, tag="mailbox-ok", frozen=True, kw_only=True):
    """4  V -> CSCF -> A: the 200 OK of a mailbox. It is repeated for each repeated INVITE."""

    mailbox: Identity
    answer: DescriptionOctets
    grant_m: Sealed
    media: MediaAddress
    diverted: DeclineReason
    to: Impi | None = None


class Present(Wire, tag="present", frozen=True, kw_only=True):
    """CSCF -> V: this device is registered for this identity until then (6: REGISTERED ID-B)."""

    identity: Identity
    device: Contact
    not_after: Time


class Waiting(OfRun, tag="waiting", frozen=True, kw_only=True):
    """6  V -> B: MESSAGE WAITING. What it says is the mailbox's word until the key is fetched."""

    mailbox: Identity
    caller_key: KeyId
    offer: DescriptionOctets
    answer: DescriptionOctets
    packets: Annotated[int, Meta(ge=0)]  # SRTP and SRTCP
    parts: Annotated[int, Meta(ge=0)]  # in which they are handed out
    left_at: Time
    not_after: Time
    request: Nonce | None = None  # of the Mailbox question that this answers
    to: Impi


class Mailbox(Wire, tag="mailbox", frozen=True, kw_only=True):
    """B -> V: what is there for me? Answered by a Waiting for each message, then by MailboxSays."""

    identity: Identity
    request: Nonce
    sender: Contact


class MailboxSays(Wire, tag="mailbox-says", frozen=True, kw_only=True):
    """V -> B: that was all. messages: how many there are. code: why there is no answer."""

    identity: Identity
    request: Nonce
    messages: Annotated[int, Meta(ge=0)]
    code: RefusalCode | None = None
    to: Impi


class Fetch(OfRun, tag="fetch", frozen=True, kw_only=True):
    """7  B -> KMS. caller_key: as the mailbox has told it; the KMS compares it with its record."""

    caller_key: KeyId
    callee_key: KeyId
    suite: Suite
    token_f: Sealed
    sender: Contact


class FetchResponse(OfRun, tag="fetch-response", frozen=True, kw_only=True):
    """8  KMS -> B."""

    grant_f: Sealed
    to: Impi


class Retrieve(OfRun, tag="retrieve", frozen=True, kw_only=True):
    """9  B -> V: so many parts of the message from this one on."""

    part: Annotated[int, Meta(ge=0)]
    sender: Contact


class Stored(OfRun, tag="stored", frozen=True, kw_only=True):
    """9  V -> B: one part, its packets as they came."""

    part: Annotated[int, Meta(ge=0)]
    packets: Annotated[
        tuple[Annotated[bytes, Meta(max_length=PACKET_OCTETS_MAX)], ...], Meta(max_length=STORED_PACKETS_MAX)
    ]
    to: Impi


class Collected(OfRun, tag="collected", frozen=True, kw_only=True):
    """9  B -> V, or A -> V who takes her message back: it may be deleted."""

    proof: Hash
    sender: Contact


class CollectedOk(OfRun, tag="collected-ok", frozen=True, kw_only=True):
    """V -> B: the message is not there, or no longer."""

    to: Impi


class MailboxRefusal(OfRun, tag="mailbox-refusal", frozen=True, kw_only=True):
    """V -> B, for a Retrieve or Collected; a hint, since nothing seals it."""

    code: RefusalCode
    to: Impi
