"""MILENAGE, the example set of f1-f5* (TS 35.206): AES-128 with the operator's variant OPc mixed in.

Each OUT is E_K(rot(E_K(RAND xor OPc) xor OPc, r) xor c) xor OPc, with its own rotation r and constant c.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import ECB

from protocol.secret import Secret


class Milenage:
    """The functions for one subscriber and one RAND.

    k, opc, rand: 16 octets each. sqn is a number of 48 bits, amf 2 octets.
    """

    def __init__(self, k: Secret, opc: Secret, rand: bytes) -> None:
        self._k = k
        self._opc = opc.reveal()
        self._temp = _encrypt(k, _xor(rand, self._opc))

    def f1(self, sqn: int, amf: bytes) -> bytes:
        """MAC-A, 8 octets: the network authenticates itself."""
        return self._out1(sqn, amf)[:8]

    def f1_star(self, sqn: int, amf: bytes) -> bytes:
        """MAC-S, 8 octets: the USIM authenticates a resynchronisation."""
        return self._out1(sqn, amf)[8:]

    def f2(self) -> Secret:
        """RES, 8 octets."""
        return Secret(self._out(0, 1)[8:])

    def f3(self) -> Secret:
        """CK, 16 octets."""
        return Secret(self._out(32, 2))

    def f4(self) -> Secret:
        """IK, 16 octets."""
        return Secret(self._out(64, 4))

    def f5(self) -> bytes:
        """AK, 6 octets: hides SQN in AUTN."""
        return self._out(0, 1)[:6]

    def f5_star(self) -> bytes:
        """AK*, 6 octets: hides SQN in AUTS."""
        return self._out(96, 8)[:6]

    def _out1(self, sqn: int, amf: bytes) -> bytes:
        in1 = (sqn.to_bytes(6, "big") + amf) * 2
        rotated = _rotate(_xor(in1, self._opc), 64)
        return _xor(_encrypt(self._k, _xor(self._temp, rotated)), self._opc)

    def _out(self, rotation: int, constant: int) -> bytes:
        rotated = _rotate(_xor(self._temp, self._opc), rotation)
        return _xor(_encrypt(self._k, _xor(rotated, constant.to_bytes(16, "big"))), self._opc)


def _encrypt(k: Secret, block: bytes) -> bytes:
    # one block of a pseudo-random function, not a mode of encryption
    return Cipher(AES128(k.reveal()), ECB()).encryptor().update(block)  # noqa: S305


def _rotate(block: bytes, bits: int) -> bytes:
    """Cyclic, towards the most significant bit; bits: a multiple of 8."""
    octets = bits // 8
    return block[octets:] + block[:octets]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
