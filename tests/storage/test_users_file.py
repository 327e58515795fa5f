"""The users file: what is written reads the same, and what cannot be used is named."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.names import Owner
from protocol.secret import Secret
from storage.users_file import (
    Device,
    UsersBroken,
    draw_device,
    read_directory,
    read_users,
    ue_hosts,
    write_directory,
    write_users,
)

DRAW = random.Random(1).randbytes
ALICE = draw_device("alice-1@ims.example", "sip:alice@ims.example", "alice", DRAW)
BOB = draw_device("bob-1@ims.example", "sip:bob@ims.example", "bob", DRAW, shared=True)
BOB_2 = draw_device("bob-2@ims.example", "sip:bob@ims.example", "bob", DRAW)
MAILBOX = Device(
    "voicemail@ims.example",
    "sip:voicemail@ims.example",
    "",
    psk=Secret(DRAW(32)),
    owner=Owner.MAILBOX,
)
DEVICES = (ALICE, BOB, BOB_2, MAILBOX)


def file_of(directory: Path, text: str) -> Path:
    path = directory / "users.toml"
    path.write_text(text)
    return path


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    assert read_users(file_of(tmp_path, write_users(DEVICES))) == DEVICES


def test_a_mailbox_is_told_from_a_handset(tmp_path: Path) -> None:
    text = write_users(DEVICES)
    assert text.count('kind = "mailbox"') == 1
    assert text.count("host = ") == 3
    assert [device.owner for device in read_users(file_of(tmp_path, text))] == [
        Owner.UE,
        Owner.UE,
        Owner.UE,
        Owner.MAILBOX,
    ]


def test_a_mailbox_is_no_ue_host() -> None:
    assert ue_hosts(DEVICES) == ["alice", "bob"]
    assert ue_hosts((replace(MAILBOX, host="voicemail"),)) == []


def test_a_directory_has_neither_keys_nor_mailboxes(tmp_path: Path) -> None:
    text = write_directory(DEVICES)
    assert read_directory(file_of(tmp_path, text)) == tuple(
        Device(device.impi, device.identity, device.host) for device in (ALICE, BOB, BOB_2)
    )
    for key in (ALICE.k, ALICE.opc, BOB.psk, MAILBOX.psk):
        assert key is not None
        assert key.reveal().hex() not in text
    assert "voicemail" not in text


HEX_16, HEX_32 = "0" * 32, "0" * 64


@pytest.mark.parametrize(
    ("device", "told"),
    [
        (f'kind = "mailbox"\nhost = "a"\npsk = "{HEX_32}"', "a-1 is a mailbox: it has a psk, and no host"),
        (f'kind = "mailbox"\nk = "{HEX_16}"\nopc = "{HEX_16}"', "a-1 is a mailbox: it has a psk"),
        ('kind = "mailbox"', "a-1 needs either k and opc, or psk"),
        (f'psk = "{HEX_32}"', "a-1 needs a host"),
        (f'kind = "ue"\npsk = "{HEX_32}"', "a-1 needs a host"),
        (f'kind = "focus"\nhost = "a"\npsk = "{HEX_32}"', "a-1 is a focus: it has a psk, and no host"),
        (f'kind = "gateway"\npsk = "{HEX_32}"', "Invalid enum value 'gateway'"),
        ('host = "a"', "a-1 needs either k and opc, or psk"),
        (f'host = "a"\nk = "{HEX_16}"', "a-1 needs either k and opc, or psk"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, device: str, told: str) -> None:
    text = f'[[user]]\nidentity = "sip:a@ims.example"\n[[user.device]]\nimpi = "a-1"\n{device}\n'
    with pytest.raises(UsersBroken, match=told):
        read_users(file_of(tmp_path, text))
