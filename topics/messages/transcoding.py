"""Transcoders and notices (sections 7 and 10): call control, transcoder, KMS, and both ends of a call."""

from __future__ import annotations

from protocol.checks import RefusalCode
from protocol.names import ForkName, Identity, Impi, KeyId, NoticeKind, Role, Suite
from protocol.transport import MediaAddress
from topics.messages.form import CodecName, DescriptionOctets, OfRun, Sealed


class Interpose(OfRun, tag="interpose", frozen=True, kw_only=True):
    """1  CSCF -> T: the two ends of this run share no codec. Sent for each run that is answered."""

    fork: ForkName
    offer: DescriptionOctets
    answer: DescriptionOctets
    media_a: MediaAddress
    media_b: MediaAddress


class Release(OfRun, tag="release", frozen=True, kw_only=True):
    """2  T -> KMS."""

    fork: ForkName
    transcoder: Identity
    transcoder_key: KeyId
    suite: Suite
    token_t: Sealed


class ReleaseResponse(OfRun, tag="release-response", frozen=True, kw_only=True):
    """3  KMS -> T."""

    fork: ForkName
    grant_t: Sealed
    notice_a: Sealed
    notice_b: Sealed


class Notice(OfRun, tag="notice", frozen=True, kw_only=True):
    """4  T -> CSCF -> A or B; later ones KMS -> CSCF -> A or B, and from those call control makes a LegsOver.

    kind: a copy for call control; the sealed one rules. whom: CALLER or CALLEE. media, codec: where the leg
    goes, and what is spoken on it; only where kind is `leg`.
    """

    fork: ForkName | None
    transcoder: Identity | None
    kind: NoticeKind
    whom: Role
    sealed: Sealed
    media: MediaAddress | None = None
    codec: CodecName | None = None
    to: Impi | None = None


class NoLegs(OfRun, tag="no-legs", frozen=True, kw_only=True):
    """T -> CSCF -> A and B: there will be no transcoder for this run. A hint: it ends a call that has no
    media anyway."""

    fork: ForkName
    code: RefusalCode
    to: Impi | None = None


class LegsOver(OfRun, tag="legs-over", frozen=True, kw_only=True):
    """CSCF -> T: the call has ended, or the KMS has ended its leg keys."""

    fork: ForkName | None


class Withdraw(OfRun, tag="withdraw", frozen=True, kw_only=True):
    """Custodian -> KMS: look at this call again, since this key id of it has been revoked, or (None) a
    release. It says nothing that the records do not: whoever forges it changes nothing. `run` and `callee`
    are those of the grant."""

    key_id: KeyId | None
