"""MILENAGE, Ks_NAF and HKDF against published and computed data; AUTN and AUTS from end to end."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from protocol import aka, gba
from protocol.checks import Check, Refused
from protocol.milenage import Milenage
from protocol.sealing import VERSION, kdf
from protocol.secret import Secret

VECTORS = Path(__file__).parents[1] / "vectors"


def rows(file: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / file).read_text())[name]
    return found


MILENAGE = rows("milenage_ts35208.json", "sets")
HKDF_CASES = [row for row in rows("hkdf_rfc5869.json", "vectors") if row["hash"] == "SHA-256"]


def octets(row: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(row[name])


@pytest.mark.parametrize("row", MILENAGE, ids=lambda row: f"set {row['set']}")
def test_milenage(row: dict[str, Any]) -> None:
    k, opc = Secret(octets(row, "K")), Secret(octets(row, "OPc"))
    functions = Milenage(k, opc, octets(row, "RAND"))
    sqn, amf = int(row["SQN"], 16), octets(row, "AMF")
    assert functions.f1(sqn, amf) == octets(row, "f1_MAC_A")
    assert functions.f1_star(sqn, amf) == octets(row, "f1star_MAC_S")
    assert functions.f2().reveal() == octets(row, "f2_RES")
    assert functions.f3().reveal() == octets(row, "f3_CK")
    assert functions.f4().reveal() == octets(row, "f4_IK")
    assert functions.f5() == octets(row, "f5_AK")
    assert functions.f5_star() == octets(row, "f5star_AK")


@pytest.mark.parametrize("row", MILENAGE, ids=lambda row: f"set {row['set']}")
def test_autn_from_the_network_to_the_usim(row: dict[str, Any]) -> None:
    k, opc, sqn = Secret(octets(row, "K")), Secret(octets(row, "OPc")), int(row["SQN"], 16)
    vector = aka.challenge(k, opc, sqn=sqn, amf=octets(row, "AMF"), rand=octets(row, "RAND"))
    assert vector.autn == octets(row, "AUTN_from_set")
    answer = aka.answer(k, opc, sqn_ms=sqn - 1, rand=vector.rand, autn=vector.autn)
    assert (answer.res, answer.ck, answer.ik, answer.sqn) == (vector.xres, vector.ck, vector.ik, sqn)


@pytest.mark.parametrize("row", MILENAGE[:3], ids=lambda row: f"set {row['set']}")
def test_or_32_a_usim_out_of_step_tells_the_network_its_sqn(row: dict[str, Any]) -> None:
    k, opc = Secret(octets(row, "K")), Secret(octets(row, "OPc"))
    sqn_ms = 2**40
    for sqn in (sqn_ms, sqn_ms - 1, sqn_ms + aka.SQN_DELTA + 1):
        vector = aka.challenge(k, opc, sqn=sqn, amf=b"\x80\0", rand=octets(row, "RAND"))
        with pytest.raises(aka.OutOfStep) as out:
            aka.answer(k, opc, sqn_ms=sqn_ms, rand=vector.rand, autn=vector.autn)
        assert aka.resynchronise(k, opc, rand=vector.rand, auts=out.value.auts) == sqn_ms


def test_or_32_a_network_that_does_not_know_k() -> None:
    row = MILENAGE[0]
    k, opc = Secret(octets(row, "K")), Secret(octets(row, "OPc"))
    vector = aka.challenge(Secret(bytes(16)), opc, sqn=7, amf=b"\x80\0", rand=octets(row, "RAND"))
    with pytest.raises(Refused) as refused:
        aka.answer(k, opc, sqn_ms=6, rand=vector.rand, autn=vector.autn)
    assert refused.value.check is Check.OR_32


def test_or_31_auts_of_somebody_else() -> None:
    row = MILENAGE[0]
    k, opc = Secret(octets(row, "K")), Secret(octets(row, "OPc"))
    with pytest.raises(Refused) as refused:
        aka.resynchronise(k, opc, rand=octets(row, "RAND"), auts=bytes(14))
    assert refused.value.check is Check.OR_31


@pytest.mark.parametrize("row", rows("gba_kdf_33220_computed.json", "vectors"), ids=lambda row: row["label"])
def test_ks_naf(row: dict[str, Any]) -> None:
    rand, naf_id = octets(row, "RAND"), octets(row, "NAF_Id")
    assert gba.naf_id(row["naf_fqdn"]) == naf_id or row["ua_security_protocol_id"] != "0100000006"
    derived = gba.ks_naf(Secret(octets(row, "Ks")), rand=rand, impi=row["IMPI"], naf_id=naf_id)
    assert derived.reveal() == octets(row, "Ks_NAF")
    if "B_TID" in row:
        assert gba.btid(rand, row["B_TID"].partition("@")[2]) == row["B_TID"]


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 by HMAC alone: what kdf() is held against."""
    prk = hmac.digest(salt or bytes(32), ikm, "sha256")
    block, okm = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        okm += block
    return okm[:length]


@pytest.mark.parametrize("row", HKDF_CASES, ids=lambda row: f"case {row['case']}")
def test_hkdf(row: dict[str, Any]) -> None:
    ikm, info, length = octets(row, "IKM"), octets(row, "info"), row["L"]
    assert hkdf(ikm, octets(row, "salt"), info, length) == octets(row, "OKM")
    assert kdf(Secret(ikm), info, length).reveal() == hkdf(ikm, VERSION.encode(), info, length)
