"""offer and answer: the media security part of the session description (section 2).

Transport addresses are not in it, since the network may change those.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.encoding import BodyMalformed, dec_body, enc_body


class SrtpSuite(StrEnum):
    """SRTP protection profiles by their registered names (RFC 7714, RFC 4568)."""

    AEAD_AES_256_GCM = "AEAD_AES_256_GCM"
    AES_CM_128_HMAC_SHA1_80 = "AES_CM_128_HMAC_SHA1_80"

    @property
    def key_octets(self) -> int:
        """Octets of the SRTP master key."""
        return 32 if self is SrtpSuite.AEAD_AES_256_GCM else 16

    @property
    def salt_octets(self) -> int:
        """Octets of the SRTP master salt."""
        return 12 if self is SrtpSuite.AEAD_AES_256_GCM else 14


class Flow(StrEnum):
    """Who sends media, from the describing party's side (RFC 3264)."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"


_REPLY_FLOW = {Flow.SENDRECV: Flow.SENDRECV, Flow.SENDONLY: Flow.RECVONLY, Flow.RECVONLY: Flow.SENDONLY}

Name = Annotated[str, Meta(min_length=1, max_length=32)]


class Description(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Ordered SRTP suites, ordered codecs, and the flow. Names of suites and codecs that we do not know stay
    in an offer: its octets are hashed as they came."""

    srtp_suites: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=8)]
    codecs: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=8)]
    flow: Flow

    @property
    def octets(self) -> bytes:
        """What is sent and hashed."""
        return enc_body(self)


class NothingInCommon(Exception):  # noqa: N818
    """Offer and our own abilities share no SRTP suite or no codec."""


def read_description(octets: bytes) -> Description:
    """Raises BodyMalformed."""
    return dec_body(octets, Description)


def answer_to(offer: Description, suites: Container[str], codecs: Container[str]) -> Description:
    """The answer: the first suite and the first codec of the offer that we can do as well (RFC 3264, 6.1).

    Raises NothingInCommon.
    """
    suite = next((name for name in offer.srtp_suites if name in suites), None)
    codec = next((name for name in offer.codecs if name in codecs), None)
    if suite is None or codec is None:
        raise NothingInCommon
    return Description((suite,), (codec,), _REPLY_FLOW[offer.flow])


def transcoded_answer_to(offer: Description, suites: Container[str], codecs: Sequence[str]) -> Description:
    """The answer of one who knows no codec of the offer, and counts on a transcoder: the first suite of the
    offer that we can do, and our own first codec.

    Raises NothingInCommon, also where a codec is shared and no transcoder is needed.
    """
    suite = next((name for name in offer.srtp_suites if name in suites), None)
    if suite is None or not codecs or any(name in codecs for name in offer.codecs):
        raise NothingInCommon
    return Description((suite,), (codecs[0],), _REPLY_FLOW[offer.flow])


def share_no_codec(offer: Description, answer: Description) -> bool:
    """Whether the two ends of this offer and answer need a transcoder."""
    return not set(offer.codecs) & set(answer.codecs)


def accept_transcoded_answer(offer: Description, answer: bytes) -> Description:
    """The answer, if it chooses one suite of the offer and one codec that is not in it.

    Raises BodyMalformed or NothingInCommon.
    """
    chosen = read_description(answer)
    one_each = len(chosen.srtp_suites) == len(chosen.codecs) == 1
    if not one_each or chosen != transcoded_answer_to(offer, chosen.srtp_suites, chosen.codecs):
        raise NothingInCommon
    return chosen


def mailbox_answer_to(offer: Description) -> Description:
    """A mailbox's answer: the first suite that we know, the first codec whatever it is, and we only receive.

    Raises NothingInCommon, also where the offer sends nothing.
    """
    suite = next((name for name in offer.srtp_suites if name in set(SrtpSuite)), None)
    if suite is None or offer.flow is Flow.RECVONLY:
        raise NothingInCommon
    return Description((suite,), (offer.codecs[0],), Flow.RECVONLY)


def accept_mailbox_answer(offer: Description, answer: bytes) -> Description:
    """The answer, if it chooses one suite and one codec of the offer and only receives.

    Raises BodyMalformed or NothingInCommon.
    """
    chosen = read_description(answer)
    ours = chosen.srtp_suites[0] in offer.srtp_suites and chosen.codecs[0] in offer.codecs
    if not ours or len(chosen.srtp_suites) + len(chosen.codecs) != 2 or chosen.flow is not Flow.RECVONLY:
        raise NothingInCommon
    return chosen


def accept_answer(offer: Description, answer: bytes) -> Description:
    """The answer, if it chooses one suite and one codec of the offer.

    Raises BodyMalformed or NothingInCommon.
    """
    chosen = read_description(answer)
    one_each = len(chosen.srtp_suites) == len(chosen.codecs) == 1
    if not one_each or chosen != answer_to(offer, chosen.srtp_suites, chosen.codecs):
        raise NothingInCommon
    return chosen


__all__ = [
    "BodyMalformed",
    "Description",
    "Flow",
    "NothingInCommon",
    "SrtpSuite",
    "accept_answer",
    "accept_mailbox_answer",
    "accept_transcoded_answer",
    "answer_to",
    "mailbox_answer_to",
    "read_description",
    "share_no_codec",
    "transcoded_answer_to",
]
