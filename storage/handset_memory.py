"""What a handset must not forget when its host restarts: what it has collected from a mailbox.

A store in memory, of which the records labelled `inbox` are kept in a file besides. There is no secret in
them: the file says who has left messages for whom, and is for its owner's eyes only.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from storage.memory import MemoryStore
from storage.store import NO_VERSION, Change, DueAlarm, Stored, StoredPut, StoreUnavailable

_LABEL: Final = "inbox"
_FIRST_VERSION: Final = bytes(16)  # no writer of this process takes it again: they count from 1
_decoder: Final = msgspec.msgpack.Decoder(dict[str, bytes])


class HandsetMemoryBroken(Exception):  # noqa: N818
    """The file is not what this program writes. The message says which file, and what to do."""


class HandsetMemory:
    """A `Store` before another. What is to be kept is in the file before anybody can act on it.

    A file that cannot be written makes the store unavailable.
    """

    def __init__(self, memory: MemoryStore, path: Path) -> None:
        """memory: what all records are in. path: of the file; its directory is there."""
        self._memory = memory
        self._path = path
        self._saved: dict[str, bytes] = {}

    async def load(self) -> None:
        """Remember what the file has; none yet is as good as an empty one.

        Raises HandsetMemoryBroken, and OSError when it cannot be read.
        """
        self._saved = _read(self._path)
        puts = [StoredPut(name, NO_VERSION, _FIRST_VERSION, value) for name, value in self._saved.items()]
        await self._memory.write([Change(puts)])

    async def read(self, names: Sequence[str]) -> list[Stored]:
        """See Store.read."""
        return await self._memory.read(names)

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        """See Store.write."""
        wanted = {**self._saved, **_kept(changes)}
        await asyncio.to_thread(
            self._save, {name: value for name, value in wanted.items() if value is not None}
        )
        written = await self._memory.write(changes)
        if not all(written):  # a change that was not applied is not kept either
            kept = {name: value for name, value in self._memory.items() if _is_kept(name)}
            await asyncio.to_thread(self._save, kept)
        return written

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        """See Store.due."""
        return await self._memory.due(role, shards, now, limit)

    async def dismiss(self, alarms: Sequence[DueAlarm]) -> None:
        """See Store.dismiss."""
        await self._memory.dismiss(alarms)

    async def close(self) -> None:
        """Nothing to give up: what is to be kept is in the file."""

    def _save(self, records: dict[str, bytes]) -> None:
        """Raises StoreUnavailable; the file is then as it was."""
        if records == self._saved:
            return
        try:
            _write(self._path, msgspec.msgpack.encode(records))
        except OSError as error:
            raise StoreUnavailable(f"{self._path} is not written: {error.strerror}") from None
        self._saved = records


def _is_kept(name: str) -> bool:
    return name.split(":", 3)[2:3] == [_LABEL]


def _kept(changes: Sequence[Change]) -> dict[str, bytes | None]:
    return {put.name: put.value for change in changes for put in change.puts if _is_kept(put.name)}


def _read(path: Path) -> dict[str, bytes]:
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError:
        raise HandsetMemoryBroken(
            f"{path} is not what a UE host remembers: put the right file there, or remove it and forget"
        ) from None


def _write(path: Path, octets: bytes) -> None:
    """The whole file or the one before it, also after a crash. Mode 0600."""
    beside = path.with_name(f"{path.name}.new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as opened:
        opened.write(octets)
        opened.flush()
        os.fsync(file)
    beside.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
