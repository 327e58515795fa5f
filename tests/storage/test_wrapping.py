"""Records with secrets open under their own name and key, unchanged, and not otherwise."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from protocol.secret import Secret
from storage.wrapping import WRAPPING_OCTETS, KeyEncryptionKey, Wrapping, WrappingBroken

NAME = "kms:{7}:subscriber:psk:alice"
OLD = KeyEncryptionKey(b"\x01\x02\x03\x04", Secret(bytes(range(32))), 1000)
NEW = KeyEncryptionKey(b"\xaa\xbb\xcc\xdd", Secret(bytes(range(32, 64))), 2000)


def vault(*keys: KeyEncryptionKey, seed: int = 1) -> Wrapping:
    return Wrapping(keys, random.Random(seed).randbytes)


@given(name=st.text(), plaintext=st.binary(max_size=2000))
def test_what_was_wrapped_unwraps(name: str, plaintext: bytes) -> None:
    wrapping = vault(OLD)
    wrapped = wrapping.wrap(name, plaintext)
    assert len(wrapped) == len(plaintext) + WRAPPING_OCTETS
    assert wrapping.unwrap(name, wrapped) == plaintext


def test_the_form_of_a_wrapped_record() -> None:
    nonce = random.Random(1).randbytes(12)
    header = b"\x01\x01\x02\x03\x04"
    sealed = AESGCM(bytes(range(32))).encrypt(nonce, b"secret", header + NAME.encode())
    assert vault(OLD).wrap(NAME, b"secret") == header + nonce + sealed


def test_a_wrapped_record_shows_nothing_and_repeats_nothing() -> None:
    wrapping = vault(OLD)
    one, two = wrapping.wrap(NAME, b"the secret itself"), wrapping.wrap(NAME, b"the secret itself")
    assert b"secret" not in one + two
    assert one[5:17] != two[5:17]  # the nonces
    assert one[17:] != two[17:]


def test_another_records_octets_do_not_open() -> None:
    wrapping = vault(OLD)
    wrapped = wrapping.wrap(NAME, b"alice's")
    for name in ("kms:{7}:subscriber:psk:bob", NAME + "x", NAME[:-1], ""):
        with pytest.raises(WrappingBroken, match=r": changed, or another record's") as error:
            wrapping.unwrap(name, wrapped)
        assert str(error.value).startswith(f"{name}: ")


def test_every_octet_counts() -> None:
    wrapping = vault(OLD, NEW)
    wrapped = wrapping.wrap(NAME, b"secret")
    for place in range(len(wrapped)):
        for bit in range(8):
            changed = bytearray(wrapped)
            changed[place] ^= 1 << bit
            with pytest.raises(WrappingBroken, match="subscriber:psk:alice"):
                wrapping.unwrap(NAME, bytes(changed))
    for length in range(len(wrapped)):
        with pytest.raises(WrappingBroken):
            wrapping.unwrap(NAME, wrapped[:length])
    with pytest.raises(WrappingBroken):
        wrapping.unwrap(NAME, wrapped + b"\x00")


def test_an_id_of_another_key_that_is_here_does_not_open() -> None:
    wrapping = vault(OLD, NEW)
    wrapped = wrapping.wrap(NAME, b"secret")
    with pytest.raises(WrappingBroken, match="changed"):
        wrapping.unwrap(NAME, wrapped[:1] + NEW.id + wrapped[5:])


def test_the_first_key_seals_and_all_open() -> None:
    before = vault(OLD).wrap(NAME, b"before")
    rotated = vault(NEW, OLD)
    after = rotated.wrap(NAME, b"after")
    assert (before[1:5], after[1:5]) == (OLD.id, NEW.id)
    assert rotated.unwrap(NAME, before) == b"before"
    assert rotated.unwrap(NAME, after) == b"after"
    assert vault(OLD, NEW).unwrap(NAME, after) == b"after"


def test_a_key_that_is_not_here_is_named() -> None:
    wrapped = vault(NEW).wrap(NAME, b"secret")
    with pytest.raises(WrappingBroken, match=r"psk:alice: wrapped under key aabbccdd.*\(here: 01020304\)"):
        vault(OLD).unwrap(NAME, wrapped)


@pytest.mark.parametrize(
    "octets", [b"", b"\x01", b"\x02" + bytes(60), b"\x93 a record in the clear, of its own form"]
)
def test_what_was_never_wrapped_does_not_open(octets: bytes) -> None:
    with pytest.raises(WrappingBroken, match="not a wrapped record"):
        vault(OLD).unwrap(NAME, octets)


def test_keys_that_make_no_vault() -> None:
    with pytest.raises(ValueError, match="no key"):
        vault()
    with pytest.raises(ValueError, match="same id"):
        vault(OLD, KeyEncryptionKey(OLD.id, NEW.key, 0))
    for key_id, octets in ((b"123", 32), (b"12345", 32), (b"1234", 31), (b"1234", 16)):
        with pytest.raises(ValueError, match="32 octets"):
            KeyEncryptionKey(key_id, Secret(bytes(octets)), 0)


def test_nothing_prints_a_key() -> None:
    wrapping = vault(OLD)
    wrapped = wrapping.wrap(NAME, b"secret")
    with pytest.raises(WrappingBroken) as error:
        wrapping.unwrap("other", wrapped)
    for printed in (repr(OLD), repr(wrapping), repr(error.value)):
        assert OLD.key.reveal().hex()[:16] not in printed
        assert repr(OLD.key.reveal())[2:20] not in printed
        assert "secret" not in printed.replace("Secret(***", "")
