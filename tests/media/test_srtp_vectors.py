"""What libsrtp sends is what the standards say: a reference that passes their vectors makes the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from media.rtp import RtpPacket
from media.srtp import ReceivingStream, SendingStream, SrtpRefused
from protocol.description import SrtpSuite
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.srtp_keys import MasterKey
from tests.media.reference_srtp import derive, gcm_iv, keystream, protect_cm, protect_gcm

VECTORS = Path(__file__).parents[1] / "vectors"
RFC_3711: dict[str, Any] = json.loads((VECTORS / "srtp_rfc3711_appB.json").read_text())
RFC_7714: list[dict[str, Any]] = json.loads((VECTORS / "srtp_aead_gcm_rfc7714.json").read_text())["vectors"]
SDES: dict[str, Any] = json.loads((VECTORS / "sdes_rfc4568_samples.json").read_text())
REFERENCE = {
    SrtpSuite.AEAD_AES_256_GCM: protect_gcm,
    SrtpSuite.AES_CM_128_HMAC_SHA1_80: protect_cm,
}


def test_the_reference_makes_the_keystream_of_rfc_3711_b2() -> None:
    row = RFC_3711["B2_AES_CM"]
    stream = keystream(
        bytes.fromhex(row["session_key"]),
        bytes.fromhex(row["session_salt_shifted"]),
        row["keystream_len_octets"],
    )
    for block, expected in row["blocks"].items():
        assert stream[16 * int(block) :][:16].hex() == expected


def test_the_reference_derives_as_rfc_3711_b3() -> None:
    row = RFC_3711["B3_KDF"]
    master, salt = bytes.fromhex(row["master_key"]), bytes.fromhex(row["master_salt"])
    for name, label in row["labels"].items():
        assert derive(master, salt, int(name[:4], 16), label["len"]).hex() == label["out"]


@pytest.mark.parametrize("row", RFC_7714, ids=lambda row: row["section"])
def test_the_reference_seals_as_rfc_7714(row: dict[str, Any]) -> None:
    aad, salt = bytes.fromhex(row["aad"]), bytes.fromhex(row["salt"])
    iv = gcm_iv(salt, int.from_bytes(aad[8:12], "big"), 0, int.from_bytes(aad[2:4], "big"))
    assert iv.hex() == row["iv"]
    sealed = AESGCM(bytes.fromhex(row["key"])).encrypt(iv, bytes.fromhex(row["pt"]), aad)
    assert sealed.hex() == row["ct_with_tag"]


def test_ours_are_the_packets_of_the_reference(suite: SrtpSuite, draw: Random) -> None:
    key, salt = draw(suite.key_octets), draw(suite.salt_octets)
    master, ssrc = MasterKey(suite, Secret(key), Secret(salt)), 0xCAFEBABE
    sending, receiving = SendingStream(master, ssrc), ReceivingStream(master, ssrc)
    for sequence in (0, 1, 2, 32_767, 40_000, 65_535):
        packet = RtpPacket(0, sequence, 160 * sequence, ssrc, draw(160)).pack()
        expected = REFERENCE[suite](key, salt, packet)
        assert sending.protect(packet) == expected
        assert receiving.unprotect(expected) == packet


def test_or_28_another_rollover_counter_is_refused(suite: SrtpSuite, draw: Random) -> None:
    master = MasterKey(suite, Secret(draw(suite.key_octets)), Secret(draw(suite.salt_octets)))
    sending, receiving = SendingStream(master, 1), ReceivingStream(master, 1)
    receiving.unprotect(sending.protect(RtpPacket(0, 65_535, 0, 1, b"x").pack()))
    over = sending.protect(RtpPacket(0, 0, 160, 1, b"x").pack())  # libsrtp goes on with counter 1
    with pytest.raises(SrtpRefused):
        receiving.unprotect(over)


def test_key_lengths_are_those_of_sdes() -> None:
    """RFC 4568: the inline parameter is the base64 of master key and salt, of the suite's octets."""
    for row in SDES["valid"]:
        _, name, parameters = row["line"].split(" ", 2)
        inline = parameters.removeprefix("inline:").partition("|")[0]
        suite = SrtpSuite(name)
        assert len(base64.b64decode(inline)) == suite.key_octets + suite.salt_octets
    short = next(row["line"] for row in SDES["invalid"] if "29 octets" in row["why"])
    inline = short.partition("inline:")[2].partition("|")[0]
    cm = SrtpSuite.AES_CM_128_HMAC_SHA1_80
    assert len(base64.b64decode(inline)) != cm.key_octets + cm.salt_octets
