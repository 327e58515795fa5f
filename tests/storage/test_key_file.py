"""The key file is made once, changed as a whole, and says what is wrong with it without saying a key."""

from __future__ import annotations

import os
import random
import stat
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.secret import Secret
from storage import key_file
from storage.key_file import KeyFileBroken
from storage.wrapping import KeyEncryptionKey, Wrapping

NOW = 1_769_860_800  # 2026-01-31 12:00:00 UTC
DIGITS = "0f" * 32
GOOD = f"""
[[key]]
id = "9f3a01c7"
created = 2026-01-31T12:00:00Z
octets = "{DIGITS}"
"""
draw = random.Random(7).randbytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def put(path: Path, text: str | bytes, mode: int = 0o600) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_created_is_read(path: Path) -> None:
    created = key_file.create(path, draw, NOW)
    assert key_file.read(path) == (created,)
    assert created.created == NOW
    assert len(created.key) == 32
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_may_read_it(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        key_file.create(path, draw, NOW)
        made = mode_of(path)
        path.chmod(0o600)
        key_file.add(path, draw, NOW)
        changed = mode_of(path)
    finally:
        os.umask(before)
    assert made == changed == 0o600 & ~umask


def test_create_overwrites_nothing(path: Path) -> None:
    put(path, "anything")
    with pytest.raises(KeyFileBroken, match="is there already"):
        key_file.create(path, draw, NOW)
    assert path.read_text() == "anything"
    path.unlink()
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(KeyFileBroken, match="is there already"):
        key_file.create(path, draw, NOW)
    assert not path.with_name("elsewhere").exists()


def test_create_without_a_directory_says_so(path: Path) -> None:
    with pytest.raises(KeyFileBroken, match="is its directory there"):
        key_file.create(path / "keys.toml", draw, NOW)


def test_a_file_written_by_hand_is_read(path: Path) -> None:
    put(path, GOOD + GOOD.replace("9f3a01c7", "00000001").replace(DIGITS, "AB" * 32))
    assert key_file.read(path) == (
        KeyEncryptionKey(bytes.fromhex("9f3a01c7"), Secret(b"\x0f" * 32), NOW),
        KeyEncryptionKey(b"\x00\x00\x00\x01", Secret(b"\xab" * 32), NOW),
    )


def test_a_promoted_key_seals_and_both_open(path: Path) -> None:
    old = key_file.create(path, draw, NOW)
    wrapped = Wrapping(key_file.read(path), draw).wrap("a", b"secret")
    new = key_file.add(path, draw, NOW + 5)
    assert new.created == NOW + 5
    assert Wrapping(key_file.read(path), draw).wrap("a", b"secret")[1:5] == old.id
    key_file.promote(path)
    promoted = Wrapping(key_file.read(path), draw)
    assert promoted.unwrap("a", wrapped) == b"secret"
    assert promoted.wrap("a", b"secret")[1:5] == new.id
    assert mode_of(path) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_added_last_and_promoted_to_the_first_place(path: Path) -> None:
    first = key_file.create(path, draw, NOW)
    second = key_file.add(path, draw, NOW)
    third = key_file.add(path, draw, NOW)
    assert key_file.read(path) == (first, second, third)
    assert key_file.promote(path) == third
    assert key_file.read(path) == (third, first, second)


def test_a_changed_file_is_another_file(path: Path) -> None:
    old = key_file.create(path, draw, NOW)
    with path.open("rb") as before:
        key_file.add(path, draw, NOW)
        assert before.read().count(b"[[key]]") == 1  # whoever had it open has the whole old one
        assert key_file.read(path)[0] == old


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_changed_file_keeps_its_owner(path: Path) -> None:
    key_file.create(path, draw, NOW)
    os.chown(path, 10001, 10002)
    key_file.add(path, draw, NOW)
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


CHANGES: list[Callable[[Path], object]] = [
    lambda path: key_file.add(path, draw, NOW),
    key_file.promote,
]


@pytest.mark.parametrize("change", CHANGES, ids=["add", "promote"])
def test_one_change_at_a_time(path: Path, change: Callable[[Path], object]) -> None:
    key_file.create(path, draw, NOW)
    key_file.add(path, draw, NOW)
    before = path.read_bytes()
    put(path.with_name("keys.toml.new"), "somebody else's")
    with pytest.raises(KeyFileBroken, match=r"keys\.toml\.new is there"):
        change(path)
    assert path.read_bytes() == before
    assert path.with_name("keys.toml.new").read_text() == "somebody else's"


def test_changes_that_race_lose_no_key(path: Path) -> None:
    key_file.create(path, draw, NOW)
    added: list[KeyEncryptionKey] = []

    def add(seed: int) -> None:
        own = random.Random(seed).randbytes
        done = 0
        while done < 10:
            try:
                added.append(key_file.add(path, own, NOW))
                done += 1
            except KeyFileBroken:
                continue  # another one was under way

    threads = [threading.Thread(target=add, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(added) == 40
    assert {key.id for key in key_file.read(path)[1:]} == {key.id for key in added}


@pytest.mark.parametrize("change", CHANGES, ids=["add", "promote"])
@pytest.mark.parametrize("text", ["", "not TOML", GOOD + GOOD])
def test_a_broken_file_is_not_changed(path: Path, text: str, change: Callable[[Path], object]) -> None:
    put(path, text)
    with pytest.raises(KeyFileBroken):
        change(path)
    assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_an_id_that_is_drawn_twice_changes_nothing(path: Path) -> None:
    key_file.create(path, random.Random(1).randbytes, NOW)
    before = path.read_bytes()
    with pytest.raises(KeyFileBroken, match="try again"):
        key_file.add(path, random.Random(1).randbytes, NOW)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    for use in (key_file.read, *CHANGES):
        with pytest.raises(KeyFileBroken, match=r"is not there.*create it"):
            use(path)


def test_a_directory_is_no_key_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(KeyFileBroken, match="cannot be read"):
        key_file.read(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o610, 0o666, 0o444])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    put(path, GOOD, mode)
    with pytest.raises(KeyFileBroken, match=rf"mode {mode:04o}.*chmod 600"):
        key_file.read(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_read(path: Path, mode: int) -> None:
    put(path, GOOD, mode)
    assert len(key_file.read(path)) == 1


BROKEN: list[tuple[str | bytes, str]] = [
    ("", "no key in it"),
    ("key = []", "no key in it"),
    ("# nothing", "no key in it"),
    (GOOD + "octets", r"not TOML \(at "),
    (GOOD.replace('"', ""), r"not TOML \(at line"),
    (DIGITS, "not TOML"),
    (b"\xff" + GOOD.encode(), "not UTF-8"),
    (GOOD + f'\n[{DIGITS}]\nx = "{DIGITS}"', "something else"),
    (f'key = "{DIGITS}"', "something else"),
    (f'[key]\nid = "9f3a01c7"\noctets = "{DIGITS}"', "something else"),
    (f'key = ["{DIGITS}"]', "key 1 should have exactly id, created, octets"),
    (GOOD + 'more = ""', "key 1 should have exactly"),
    (GOOD + f'{DIGITS} = ""', "key 1 should have exactly"),
    (GOOD.replace("octets", "octet"), "key 1 should have exactly"),
    (GOOD.replace('"9f3a01c7"', "93101"), "key 1: id should be a str"),
    (GOOD.replace("2026-01-31T12:00:00Z", "2026-01-31"), "key 1: created should be a datetime"),
    (GOOD.replace("00Z", "00"), "key 1: created should end with Z"),
    (GOOD.replace(DIGITS, DIGITS[2:]), "key 1: octets has 62 hexadecimal digits instead of 64"),
    (GOOD.replace(DIGITS, DIGITS + "0f"), "key 1: octets has 66 "),
    (GOOD.replace(DIGITS, DIGITS[1:]), "key 1: octets has 63 "),
    (GOOD.replace(DIGITS, ""), "key 1: octets has 0 "),
    (GOOD.replace(DIGITS, DIGITS[:-1] + "g"), "key 1: octets should be hexadecimal digits"),
    (GOOD.replace(DIGITS, DIGITS + " "), "key 1: octets should be hexadecimal digits"),
    (GOOD.replace(DIGITS, DIGITS[:-1] + "٣"), "key 1: octets should be hexadecimal digits"),
    (GOOD.replace("9f3a01c7", "9f3a01"), "key 1: id has 6 "),
    (GOOD + GOOD.replace("9f3a01c7", "9f3a01c789"), "key 2: id has 10 "),
    (GOOD + GOOD.replace("9f3a01c7", "9F3A01C7"), "two keys of the same id"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_what_is_wrong_is_said_without_a_key(path: Path, text: str | bytes, message: str) -> None:
    put(path, text)
    with pytest.raises(KeyFileBroken, match=message) as error:
        key_file.read(path)
    assert str(error.value).startswith(str(path))
    told = "".join(traceback.format_exception(error.value)) + repr(error.value.__context__)
    assert DIGITS[:20] not in told
    assert error.value.__context__ is None
