"""A handset's store keeps the contract, and what it must not forget outlives its host."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.secret import Secret
from storage.handset_memory import HandsetMemory, HandsetMemoryBroken
from storage.memory import MemoryStore
from storage.records import RecordCodec
from storage.store import NO_VERSION, Change, Store, Stored, StoredPut, StoreUnavailable
from storage.ue_records import Collecting, Handset, Inbox, Outbox
from storage.wrapping import KeyEncryptionKey, Wrapping
from tests.storage.store_contract import StoreContract, changes, v

INBOX = Inbox.key_for("bob-1@ims.example").name
OTHER = Inbox.key_for("carol-1@ims.example").name
CALL_ID = bytes(range(16))


class TestHandsetMemory(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return HandsetMemory(MemoryStore(), tmp_path / "memory")


async def restarted(path: Path) -> HandsetMemory:
    """The host comes back."""
    memory = HandsetMemory(MemoryStore(), path)
    await memory.load()
    return memory


async def test_what_was_collected_outlives_its_host(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    codec = RecordCodec(Wrapping([KeyEncryptionKey(b"lab0", Secret(bytes(32)), 0)], bytes))
    inbox = Inbox(collected=(("sip:alice@ims.example", CALL_ID, 1_800_000_000),))
    octets = codec.encode(Inbox.key_for("bob-1@ims.example"), inbox)
    memory = await restarted(path)
    assert await memory.write(changes(StoredPut(INBOX, NO_VERSION, v(1), octets))) == [True]

    memory = await restarted(path)
    [stored] = await memory.read([INBOX])
    assert stored.value is not None
    assert codec.decode(Inbox.key_for("bob-1@ims.example"), stored.value) == inbox
    assert await memory.write(changes(StoredPut(INBOX, stored.version, v(1), b"2"))) == [True]
    assert await memory.write(changes(StoredPut(OTHER, NO_VERSION, v(2), b"other"))) == [True]

    memory = await restarted(path)
    assert [stored.value for stored in await memory.read([INBOX, OTHER])] == [b"2", b"other"]
    [stored] = await memory.read([INBOX])
    await memory.write(changes(StoredPut(INBOX, stored.version, v(1), None)))

    memory = await restarted(path)
    assert [stored.value for stored in await memory.read([INBOX, OTHER])] == [None, b"other"]


async def test_nothing_else_is_in_the_file(tmp_path: Path) -> None:
    """No key, no proof: the file is not sealed."""
    path = tmp_path / "memory"
    memory = await restarted(path)
    names = [Handset.key_for("x").name, Outbox.key_for("x").name, Collecting.key_for("x inbox:y").name]
    await memory.write(changes(*(StoredPut(name, NO_VERSION, v(1), b"secret") for name in names)))
    assert not path.exists()
    await memory.write(changes(StoredPut(INBOX, NO_VERSION, v(1), b"told")))
    assert b"secret" not in path.read_bytes()
    assert [stored.value for stored in await (await restarted(path)).read(names)] == [None] * 3


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    memory = await restarted(path)
    for number in (1, 2):
        expected = v(number - 1) if number > 1 else NO_VERSION
        await memory.write(changes(StoredPut(INBOX, expected, v(number), b"told")))
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.with_name("memory.new").exists()


async def test_a_change_that_was_not_applied_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    memory = await restarted(path)
    await memory.write(changes(StoredPut(INBOX, NO_VERSION, v(1), b"first")))
    wrong = Change((StoredPut(INBOX, v(7), v(8), b"wrong"), StoredPut(OTHER, NO_VERSION, v(9), b"too")))
    right = Change((StoredPut(INBOX, v(1), v(2), b"second"),))
    assert await memory.write([wrong, right]) == [False, True]
    found = await (await restarted(path)).read([INBOX, OTHER])
    assert [stored.value for stored in found] == [b"second", None]


async def test_what_cannot_be_kept_is_not_done(tmp_path: Path) -> None:
    """The loop waits, and nobody has acted on it; what needs no file goes on."""
    place = tmp_path / "disk"
    place.mkdir()
    memory = await restarted(place / "memory")
    place.rmdir()
    with pytest.raises(StoreUnavailable, match="No such file"):
        await memory.write(changes(StoredPut(INBOX, NO_VERSION, v(1), b"told")))
    assert await memory.read([INBOX]) == [Stored(NO_VERSION, None)]
    assert await memory.write(changes(StoredPut("ue:{0}:call:x", NO_VERSION, v(1), b"call"))) == [True]
    place.mkdir()
    assert await memory.write(changes(StoredPut(INBOX, NO_VERSION, v(1), b"told"))) == [True]


@pytest.mark.parametrize("octets", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1a\x01"])
async def test_a_file_of_something_else_is_not_taken_for_a_memory(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "memory"
    path.write_bytes(octets)
    with pytest.raises(HandsetMemoryBroken, match="put the right file there"):
        await restarted(path)
    assert path.read_bytes() == octets
