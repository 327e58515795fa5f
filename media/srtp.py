"""SRTP and SRTCP of one stream under one master key (RFC 3711, RFC 7714), by libsrtp.

The rollover counter is always 0 (PROTOCOL section 9): a sender stops at sequence number 65,535, a receiver
takes nothing that would need another counter.
"""

from __future__ import annotations

from typing import Final

from pylibsrtp import Error, Policy, Session

from media.leg import Leg
from media.rtp import HEADER_OCTETS
from protocol.description import SrtpSuite
from protocol.srtp_keys import MasterKey, srtp_master

SEQUENCE_MAX: Final = 65_535
_WINDOW: Final = 1024  # packets that the replay list looks back: 20 s
_REPLAYED: Final = frozenset({"replay check failed (bad index)", "replay check failed (index too old)"})
_PROFILES: Final = {
    SrtpSuite.AEAD_AES_256_GCM: Policy.SRTP_PROFILE_AEAD_AES_256_GCM,
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: Policy.SRTP_PROFILE_AES128_CM_SHA1_80,
}


class SrtpRefused(Exception):  # noqa: N818
    """OR-28: another key, changed octets, cut, or no SRTP at all; which one is not to be known."""


class SrtpReplayed(Exception):  # noqa: N818
    """OR-28: authentic, but seen before, or too old to know."""


class SendingStream:
    """Protects what one SSRC sends."""

    def __init__(self, master: MasterKey, ssrc: int) -> None:
        self._session = Session(_policy(master, ssrc))

    def protect(self, packet: bytes) -> bytes:
        """The packet as SRTP: 16 octets more under AEAD_AES_256_GCM, 10 under AES_CM_128_HMAC_SHA1_80.

        packet: of this SSRC, its sequence number greater than the one before.
        Raises pylibsrtp.Error for a sequence number that was used already.
        """
        return bytes(self._session.protect(packet))

    def protect_rtcp(self, packet: bytes) -> bytes:
        """The compound packet as encrypted SRTCP: 20 octets more, or 14."""
        return bytes(self._session.protect_rtcp(packet))


class ReceivingStream:
    """Opens what one SSRC has sent, each packet once."""

    def __init__(self, master: MasterKey, ssrc: int) -> None:
        self._policy = _policy(master, ssrc)
        self._session = Session(self._policy)
        self._highest = -1

    def unprotect(self, packet: bytes) -> bytes:
        """The RTP packet. Raises SrtpRefused or SrtpReplayed."""
        if len(packet) < HEADER_OCTETS:
            raise SrtpRefused
        sequence = int.from_bytes(packet[2:4], "big")
        if self._highest - sequence > SEQUENCE_MAX // 2:  # libsrtp would try rollover counter 1
            raise SrtpRefused
        opened = self._opened(packet, rtcp=False)
        self._highest = max(self._highest, sequence)
        return opened

    def unprotect_rtcp(self, packet: bytes) -> bytes:
        """The compound RTCP packet. Raises SrtpRefused or SrtpReplayed."""
        return self._opened(packet, rtcp=True)

    def _opened(self, packet: bytes, *, rtcp: bool) -> bytes:
        try:
            return _open(self._session, packet, rtcp=rtcp)
        except Error as error:
            if str(error) not in _REPLAYED:
                raise SrtpRefused from None
        except ValueError:  # longer than any packet of ours
            raise SrtpRefused from None
        # libsrtp looks at the replay list before the tag, and anybody can write a sequence number
        try:
            _open(Session(self._policy), packet, rtcp=rtcp)
        except Error:
            raise SrtpRefused from None
        raise SrtpReplayed


def _open(session: Session, packet: bytes, *, rtcp: bool) -> bytes:
    return bytes(session.unprotect_rtcp(packet) if rtcp else session.unprotect(packet))


def stream_of_peer(leg: Leg, ssrc: int) -> ReceivingStream:
    """What opens the stream of this SSRC that the peer of a leg sends, if it is the peer's."""
    master = srtp_master(
        leg.root,
        leg.suite,
        sender=leg.remote,
        receiver=leg.group or leg.local,
        media_line=leg.media_line,
        ssrc=ssrc,
        n=leg.n,
    )
    return ReceivingStream(master, ssrc)


def _policy(master: MasterKey, ssrc: int) -> Policy:
    policy = Policy(
        key=master.key.reveal() + master.salt.reveal(),
        ssrc_type=Policy.SSRC_SPECIFIC,
        ssrc_value=ssrc,
        srtp_profile=_PROFILES[master.suite],
    )
    policy.window_size = _WINDOW
    return policy
