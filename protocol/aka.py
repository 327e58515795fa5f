"""UMTS authentication and key agreement over MILENAGE (TS 33.102, 6.3): both sides, the home network's and
the USIM's.

AUTN = SQN xor AK || AMF || MAC-A          AUTS = SQN_MS xor AK* || MAC-S
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from protocol.checks import Check, Refused
from protocol.milenage import Milenage
from protocol.secret import Secret

SQN_DELTA: Final = 2**28  # the greatest jump that a USIM follows (TS 33.102, C.2.1)
_AMF_RESYNC: Final = bytes(2)  # TS 33.102, 6.3.3: AMF is all zeros in MAC-S


@dataclass(frozen=True, slots=True)
class AuthenticationVector:
    """What the home network draws up for one challenge."""

    rand: bytes  # 16 octets
    autn: bytes  # 16 octets
    xres: Secret  # 8 octets
    ck: Secret  # 16 octets
    ik: Secret  # 16 octets


@dataclass(frozen=True, slots=True)
class Answer:
    """What a USIM makes of a challenge that it accepts."""

    res: Secret
    ck: Secret
    ik: Secret
    sqn: int  # the greatest accepted from now on


class OutOfStep(Exception):  # noqa: N818
    """The challenge is authentic, its SQN is not one that this USIM takes; `auts` asks to resynchronise."""

    def __init__(self, auts: bytes) -> None:
        super().__init__("SQN out of step")
        self.auts = auts


def challenge(k: Secret, opc: Secret, *, sqn: int, amf: bytes, rand: bytes) -> AuthenticationVector:
    """The home network's side. sqn: greater than any used for this subscriber before."""
    functions = Milenage(k, opc, rand)
    autn = _hide(sqn, functions.f5()) + amf + functions.f1(sqn, amf)
    return AuthenticationVector(rand, autn, functions.f2(), functions.f3(), functions.f4())


def answer(k: Secret, opc: Secret, *, sqn_ms: int, rand: bytes, autn: bytes) -> Answer:
    """The USIM's side. sqn_ms: the greatest SQN that it has accepted.

    It takes sqn_ms < SQN <= sqn_ms + SQN_DELTA: one device asks for one challenge at a time, so no list of
    used numbers is kept (TS 33.102, C.2.2 allows it). Raises Refused(OR-32) for a wrong MAC-A, OutOfStep for
    an SQN outside.
    """
    functions = Milenage(k, opc, rand)
    sqn = _show(autn[:6], functions.f5())
    if not hmac.compare_digest(functions.f1(sqn, autn[6:8]), autn[8:]):  # OR-32
        raise Refused(Check.OR_32)
    if not sqn_ms < sqn <= sqn_ms + SQN_DELTA:  # OR-32
        raise OutOfStep(_hide(sqn_ms, functions.f5_star()) + functions.f1_star(sqn_ms, _AMF_RESYNC))
    return Answer(functions.f2(), functions.f3(), functions.f4(), sqn)


def resynchronise(k: Secret, opc: Secret, *, rand: bytes, auts: bytes) -> int:
    """SQN_MS out of AUTS (14 octets), at the home network. Raises Refused(OR-31) for a wrong MAC-S."""
    functions = Milenage(k, opc, rand)
    sqn_ms = _show(auts[:6], functions.f5_star())
    if not hmac.compare_digest(functions.f1_star(sqn_ms, _AMF_RESYNC), auts[6:]):  # OR-31
        raise Refused(Check.OR_31)
    return sqn_ms


def _hide(sqn: int, ak: bytes) -> bytes:
    return (sqn ^ int.from_bytes(ak, "big")).to_bytes(6, "big")


def _show(hidden: bytes, ak: bytes) -> int:
    return int.from_bytes(hidden, "big") ^ int.from_bytes(ak, "big")
