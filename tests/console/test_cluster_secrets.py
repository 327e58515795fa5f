"""The secrets of a cluster: made once, each for one reader, and no more than that one needs."""

from __future__ import annotations

import os
import stat
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from console.clusters.cluster_secrets import SecretsWish, make_secrets
from console.settings import SETTINGS_FILE, read_settings
from protocol.names import Owner
from storage import key_file
from storage.users_file import UsersBroken, read_directory, read_users

NOW = 1_800_000_000


@pytest.fixture
def wish(tmp_path: Path) -> SecretsWish:
    directory = tmp_path / "secrets"
    directory.mkdir()
    return SecretsWish(
        directory=directory,
        users=["alice", "bob"],
        crowd=3,
        kafka="127.0.0.1:49092",
        store="redis://127.0.0.1:46379/0",
    )


def make(wish: SecretsWish) -> list[str]:
    said: list[str] = []
    make_secrets(wish, now=NOW, random=os.urandom, say=said.append)
    return said


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_is_there_stays(wish: SecretsWish) -> None:
    assert make(wish)
    before = contents(wish.directory)
    assert make(wish) == [], "nothing was made"
    assert contents(wish.directory) == before


def test_each_has_what_is_its_own(wish: SecretsWish) -> None:
    make(wish)
    here = wish.directory
    assert {path.name for path in (here / "cscf").iterdir()} == {"password", "ca.pem"}
    assert {path.name for path in (here / "kms").iterdir()} == {"password", "ca.pem"}
    assert {device.impi for device in read_users(here / "ue-alice" / "users.toml")} == {"alice-1@ims.example"}
    assert len(read_users(here / "ue-load" / "users.toml")) == 3
    for who, owner in (
        ("voicemail", Owner.MAILBOX),
        ("transcoder", Owner.TRANSCODER),
        ("conference", Owner.FOCUS),
    ):
        assert [device.owner for device in read_users(here / who / "users.toml")] == [owner]
    listed = read_directory(here / "operator" / "directory.toml")
    assert len(listed) == 5
    with pytest.raises(UsersBroken, match="needs either"):
        read_users(here / "operator" / "directory.toml")
    for path in here.rglob("*"):
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) & ~allowed == 0, path


def test_a_focus_wraps_its_records_under_a_key_of_its_own(wish: SecretsWish) -> None:
    make(wish)
    keys = {name for name in contents(wish.directory) if name.endswith("keys.toml")}
    assert keys == {"keys/keys.toml", "conference/keys.toml"}
    kms, focus = (key_file.read(wish.directory / name) for name in ("keys/keys.toml", "conference/keys.toml"))
    assert {key.id for key in kms}.isdisjoint(key.id for key in focus)


def test_users_may_live_on_the_host_of_another(wish: SecretsWish) -> None:
    make(replace(wish, users=["alice", "bob", "carol@bob", "dave-2@alice"]))
    own = read_users(wish.directory / "ue-bob" / "users.toml")
    assert {device.identity for device in own} == {"sip:bob@ims.example", "sip:carol@ims.example"}
    assert not (wish.directory / "ue-carol").exists()
    [_, second] = read_users(wish.directory / "ue-alice" / "users.toml")
    assert (second.impi, second.identity, second.host) == (
        "dave-2@ims.example",
        "sip:dave@ims.example",
        "alice",
    )


def test_who_comes_later_gets_what_others_have(wish: SecretsWish) -> None:
    make(wish)
    before = contents(wish.directory)
    make(replace(wish, users=["alice", "bob", "carol"]))
    after = contents(wish.directory)
    assert "ue-carol/password" in after
    changed = {name for name, octets in before.items() if after[name] != octets}
    assert changed == {"setup/users.toml", "operator/directory.toml"}


def test_certificates_are_renewed_together_or_not_at_all(wish: SecretsWish) -> None:
    make(wish)
    before = contents(wish.directory)
    make(replace(wish, renew=True))
    after = contents(wish.directory)
    assert before["operator/ca.pem"] != after["operator/ca.pem"]
    (wish.directory / "operator" / "ca.pem").unlink()  # as a run leaves it that was killed half-way
    make(wish)
    whole = contents(wish.directory)
    authority = x509.load_pem_x509_certificate(whole["operator/ca.pem"])
    for name in ("kafka-1/keystore.pem", "kafka-3/keystore.pem", "valkey/server.crt", "setup/client.crt"):
        begin = whole[name].index(b"-----BEGIN CERTIFICATE")
        x509.load_pem_x509_certificate(whole[name][begin:]).verify_directly_issued_by(authority)
    assert {octets for name, octets in whole.items() if name.endswith("/ca.pem")} == {
        whole["operator/ca.pem"]
    }


@pytest.mark.parametrize("tls", [False, True])
def test_the_operator_finds_the_cluster(wish: SecretsWish, *, tls: bool) -> None:
    make(replace(wish, tls=tls))
    with chdir(wish.directory.parent):
        settings = read_settings({}, SETTINGS_FILE)
        password = settings.kafka_settings.password
        listed = read_directory(settings.directory)
    assert settings.user == "operator"
    assert settings.focus == "sip:conference@ims.example"
    assert password is not None
    assert (settings.ca_file is not None) is tls
    assert len(listed) == 5
