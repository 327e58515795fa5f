"""The file of key-encryption keys, which whoever starts an agent mounts for it and nobody else.

    [[key]]                             the first one seals, all of them open
    id = "9f3a01c7"                     4 octets
    created = 2026-01-31T12:00:00Z
    octets = "..."                      32 octets, 64 hexadecimal digits

Agents read it when they start. To change the key while several of them share a store, so that none meets a
record that it cannot open: `add`, restart all, `promote`, restart all. A key may be taken out by hand once no
record is wrapped under it.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from protocol.secret import Secret
from storage.wrapping import KEY_ID_OCTETS, KEY_OCTETS, KeyEncryptionKey

Random = Callable[[int], bytes]
Keys = tuple[KeyEncryptionKey, ...]

_HEAD: Final = """\
# Key-encryption keys: whoever has this file and the store has every stored key.
# The first one seals, all of them open. Keep a copy where the store's copies are not.
"""
_FIELDS: Final = {"id": str, "created": datetime, "octets": str}


class KeyFileBroken(Exception):  # noqa: N818
    """The file is not there, not safe or not right; the message says what to do. It never holds a key."""


def create(path: Path, random: Random, now: int) -> KeyEncryptionKey:
    """Write a new file with one key, mode 0600; now: seconds since 1970 UTC.

    Raises KeyFileBroken when anything is there already: nothing is ever overwritten.
    """
    key = _draw(random, now)
    try:
        with _new_file(path) as file:
            _write(file, (key,))
            _sync_directory(path)
    except FileExistsError:
        raise KeyFileBroken(
            f"{path} is there already, and nothing was changed: `otway keys add` puts another key in"
        ) from None
    except OSError as error:
        raise KeyFileBroken(f"{path} cannot be written ({error.strerror}): is its directory there?") from None
    return key


def read(path: Path) -> Keys:
    """The keys in their order: the first one seals. Raises KeyFileBroken."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            octets = file.read()
    except FileNotFoundError:
        raise KeyFileBroken(f"{path} is not there: mount it, or create it with `otway keys init`") from None
    except OSError as error:
        raise KeyFileBroken(f"{path} cannot be read ({error.strerror}): is it this user's?") from None
    if mode & 0o077:
        raise KeyFileBroken(f"{path} has mode {mode:04o}, so that others may use it: chmod 600 {path}")
    return _parse(path, octets)


def add(path: Path, random: Random, now: int) -> KeyEncryptionKey:
    """Put a new key last: it opens, and seals nothing until it is `promote`d.

    Like `promote` it replaces the file at once or not at all, keeps its owner, and raises KeyFileBroken when
    the file is not right, or while another change of it is under way.
    """
    key = _draw(random, now)
    _change(path, lambda keys: (*keys, key))
    return key


def promote(path: Path) -> KeyEncryptionKey:
    """Put the last key first: it seals from now on."""
    return _change(path, lambda keys: (keys[-1], *keys[:-1]))[0]


def _draw(random: Random, now: int) -> KeyEncryptionKey:
    return KeyEncryptionKey(random(KEY_ID_OCTETS), Secret(random(KEY_OCTETS)), now)


def _text(keys: Keys) -> str:
    return _HEAD + "".join(
        f'\n[[key]]\nid = "{key.id.hex()}"\n'
        f"created = {datetime.fromtimestamp(key.created, UTC):%Y-%m-%dT%H:%M:%SZ}\n"
        f'octets = "{key.key.reveal().hex()}"\n'
        for key in keys
    )


def _parse(path: Path, octets: bytes) -> Keys:
    where = None
    found: dict[str, Any] = {}
    try:
        found = tomllib.loads(octets.decode())
    except UnicodeDecodeError:
        where = "not UTF-8"
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at [a-z0-9, ]*\)$", str(error))
        where = f"not TOML {at[0]}" if at else "not TOML"
    if where is not None:  # raised here, so that it does not carry the error with the file's text along
        raise KeyFileBroken(f"{path} is {where}: put the right file there, or a copy of it")
    tables = found.get("key")
    if found.keys() - {"key"} or not isinstance(tables, list | None):
        raise KeyFileBroken(f"{path} has something else than [[key]] tables in it: put the right file there")
    if not tables:
        raise KeyFileBroken(f"{path} has no key in it: put the right file there, or remove it and create one")
    keys = tuple(_key(f"{path}, key {number}", table) for number, table in enumerate(tables, 1))
    if len({key.id for key in keys}) != len(keys):
        raise KeyFileBroken(f"{path} has two keys of the same id: take the one out that is there by mistake")
    return keys


def _key(place: str, table: object) -> KeyEncryptionKey:
    if not isinstance(table, dict) or table.keys() != _FIELDS.keys():
        raise KeyFileBroken(f"{place} should have exactly {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if not isinstance(table[name], kind):
            raise KeyFileBroken(f"{place}: {name} should be a {kind.__name__}")
    if table["created"].tzinfo is None:
        raise KeyFileBroken(f"{place}: created should end with Z")
    return KeyEncryptionKey(
        _octets(f"{place}: id", table["id"], KEY_ID_OCTETS),
        Secret(_octets(f"{place}: octets", table["octets"], KEY_OCTETS)),
        int(table["created"].timestamp()),
    )


def _octets(place: str, digits: str, octets: int) -> bytes:
    if re.fullmatch(r"[0-9a-fA-F]*", digits) is None:
        raise KeyFileBroken(f"{place} should be hexadecimal digits and nothing else")
    if len(digits) != 2 * octets:
        raise KeyFileBroken(f"{place} has {len(digits)} hexadecimal digits instead of {2 * octets}")
    return bytes.fromhex(digits)


def _change(path: Path, order: Callable[[Keys], Keys]) -> Keys:
    """Replace the file by what `order` makes of its keys. The file beside it is also the lock."""
    read(path)  # what is wrong with it comes before what is wrong beside it
    beside = path.with_name(f"{path.name}.new")
    try:
        with _new_file(beside) as file:
            keys = order(read(path))  # read here, where nobody else can change it
            if len({key.id for key in keys}) != len(keys):
                raise KeyFileBroken(f"{path}: an id was drawn that is there already: try again")
            owner = path.stat()
            os.fchown(file, owner.st_uid, owner.st_gid)
            _write(file, keys)
            beside.replace(path)
    except FileExistsError:
        raise KeyFileBroken(
            f"{beside} is there, and nothing was changed: remove it if no other change is under way"
        ) from None
    except OSError as error:  # such as a file that is itself a mount
        raise KeyFileBroken(
            f"{path} cannot be replaced ({error.strerror}), nothing was changed: change it where it is kept"
        ) from None
    _sync_directory(path)
    return keys


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    """A file that was not there before, mode 0600. It goes again when what is done with it fails."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def _write(file: int, keys: Keys) -> None:
    with os.fdopen(file, "wb", closefd=False) as opened:
        opened.write(_text(keys).encode())
    os.fsync(file)


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
