"""From a root key (K, a leg key, an epoch key) to one sender's SRTP stream (section 9)."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.description import SrtpSuite
from protocol.encoding import enc
from protocol.sealing import kdf
from protocol.secret import Secret


@dataclass(frozen=True, slots=True)
class MasterKey:
    """SRTP master key and salt (RFC 3711, 4.3), of the suite's octets."""

    suite: SrtpSuite
    key: Secret
    salt: Secret


def srtp_master(
    root: Secret, suite: SrtpSuite, *, sender: str, receiver: str | bytes, media_line: int, ssrc: int, n: int
) -> MasterKey:
    """The SRTP master key and salt that `sender` uses for one stream.

    root: 32 octets. receiver: an identity, or G in a conference. media_line: index in the offer, from 0.
    ssrc: 32 bits. n: the run, or the epoch. Returns 32+12 octets for AEAD_AES_256_GCM, 16+14 for
    AES_CM_128_HMAC_SHA1_80.
    """
    info = enc("srtp", suite, sender, receiver, media_line, ssrc, n)
    octets = kdf(root, info, suite.key_octets + suite.salt_octets).reveal()
    return MasterKey(suite, Secret(octets[: suite.key_octets]), Secret(octets[suite.key_octets :]))
