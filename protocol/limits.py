"""The numbers of the protocol, each with its reason (sections 1, 5, 8-12)."""

from __future__ import annotations

from typing import Final

SKEW_S: Final = 120  # how far two honest clocks may differ
TOKEN_AGE_S: Final = 300  # a token is made for a call that is being set up now
SEEN_S: Final = 420  # TOKEN_AGE_S + SKEW_S: a token that may still be accepted is still remembered
LIFE_S: Final = 3600  # the life of a master key without renewal
RING_S: Final = 180  # an unsettled run ends so long after its grant
FORKS_MAX: Final = 16  # devices that one run may ring
KEEP_S_MAX: Final = 30 * 86_400  # the longest that a KMS stores a key for a deferred message
OVERLAP_S: Final = 1  # how long an old key plays on after a renewal, or after somebody has joined
RENEW_S: Final = 180  # a caller renews so long before not_after: 60 s, and SKEW_S for the slower clock
EPOCH_S: Final = 300  # the life of an epoch key
MEMBERS_MAX: Final = 64  # of a conference
ROSTER_OCTETS_MAX: Final = 12_288  # of all identities in a roster, so that a grant fits into a message
CHANGES_MAX: Final = 16  # joins, leaves and removals that one epoch takes up, so that they fit into a message
ZN_RETRY_S: Final = 60  # the KMS asks the BSF for an unknown B-TID once in this time
CHALLENGE_S: Final = 60  # a BSF's challenge waits so long for its response
MESSAGE_OCTETS_MAX: Final = 16_384  # a record on the bus; the largest honest one is under 3,000
SEAL_OCTETS_MAX: Final = 2_048  # one sealed part; all but grants with a roster are below 600
ROSTER_SEAL_OCTETS_MAX: Final = 14_336  # a sealed grant with a roster
STORED_PACKETS_MAX: Final = 64  # packets in one record of a mailbox: a second of 20 ms packets, and RTCP
STORED_OCTETS_MAX: Final = 12_288  # of packets in one such record, so that it fits into a message
STORED_WINDOW: Final = 8  # such records that a mailbox sends for one RETRIEVE
PACKET_OCTETS_MAX: Final = 2_048  # one SRTP packet; what an Ethernet carries is below 1,500
SOUND_PART_OCTETS: Final = 16_000  # one second of 16-bit samples at 8 kHz fits into a message
SOUND_PARTS_MAX: Final = 600  # the longest sound: ten minutes
