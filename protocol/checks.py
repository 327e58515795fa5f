"""The numbered checks (docs/protocol.md, section 12) and what a party hears that fails one.

A check is one line of code with its number behind it. It refuses by raising `Refused`, which says why to
the audit (`check`) and little to the peer (`code`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class RefusalCode(StrEnum):
    """What a refusal says to the peer (section 11)."""

    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    EXPIRED_KEY = "expired-key"
    NOT_AUTHORISED = "not-authorised"
    STALE = "stale"
    REPLAY = "replay"
    NOT_PERMITTED = "not-permitted"
    NOT_FOUND = "not-found"
    EXPIRED = "expired"
    TOO_MANY = "too-many"
    BUSY = "busy"
    DENIED = "denied"


class Check(StrEnum):
    """The checks of this system by number, each with the short form of its sentence in section 12."""

    sentence: str

    def __new__(cls, number: str, sentence: str) -> Self:
        """A member whose value is its number."""
        member = str.__new__(cls, number)
        member._value_ = number
        member.sentence = sentence
        return member

    OR_01 = ("OR-01", "the message decodes strictly")
    OR_02 = ("OR-02", "the KID exists, is within its lifetime and not revoked")
    OR_03 = ("OR-03", "the KID may act as this identity, in this role")
    OR_04 = ("OR-04", "token_a opens, with the clear values as context")
    OR_05 = ("OR-05", "the requester's token opens first, and binds H(token_a)")
    OR_06 = ("OR-06", "C, n, ID-A, ID-B inside token_a are the clear ones")
    OR_07 = ("OR-07", "the same inside the requester's token")
    OR_08 = ("OR-08", "all identities and all KIDs of a request differ")
    OR_09 = ("OR-09", "a token is neither old nor from the future")
    OR_10 = ("OR-10", "one token for each run and KID; a repeat gets the same K")
    OR_11 = ("OR-11", "limits: forks of a run, requests a second")
    OR_12 = ("OR-12", "H(offer) is the same in both tokens")
    OR_13 = ("OR-13", "token_a permits what is asked")
    OR_14 = ("OR-14", "policy lets this network function serve these users")
    OR_15 = ("OR-15", "a record is served for its own kind, and to its own KID, only")
    OR_16 = ("OR-16", "the audit record is written before the grant leaves")
    OR_17 = ("OR-17", "SETTLED opens, holds Na, names a fork of the run; the first counts")
    OR_20 = ("OR-20", "the grant opens under this role's down key and binds its own token")
    OR_21 = ("OR-21", "its own nonce is inside")
    OR_22 = ("OR-22", "C, n and both identities are those of the open run")
    OR_23 = ("OR-23", "now is within not_before and not_after")
    OR_24 = ("OR-24", "the kind, and the answer to the offer, are ones that it accepts")
    OR_25 = ("OR-25", "the other side's confirmation verifies")
    OR_26 = ("OR-26", "the run still waits for this message")
    OR_27 = ("OR-27", "a notice is for this run, its serial is the next, its kind is allowed now")
    OR_28 = ("OR-28", "SRTP packets authenticate, are not replayed, under a live key")
    OR_29 = ("OR-29", "an epoch, or a run, is greater than the last one taken")
    OR_30 = ("OR-30", "a mailbox deletes for who shows the proof, or after not_after")
    OR_31 = ("OR-31", "BSF: digest response, SQN window, single use of a challenge")
    OR_32 = ("OR-32", "UE: MAC-A and SQN of AUTN, the BSF's server digest")
    OR_33 = ("OR-33", "B-TID, NAF_Id and Nk of the hand-over are those asked for")


class Refused(Exception):  # noqa: N818  (it names what happened to the peer, not a fault of ours)
    """A check failed. `check` is for the audit and the report, `code` is all that the peer hears."""

    def __init__(self, check: Check, code: RefusalCode = RefusalCode.DENIED, detail: str = "") -> None:
        super().__init__(f"{check}: {code}" + (f" ({detail})" if detail else ""))
        self.check = check
        self.code = code
        self.detail = detail
