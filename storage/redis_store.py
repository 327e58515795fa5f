"""The store that outlives a process: one Redis or Valkey server, one round trip for each call.

    <name of the record>                 version (16 octets) || value, swept by EXAT
    <role>:{<shard>}:alarms              sorted set: name of the alarm by its time
    <role>:{<shard>}:alarm-records       hash: version (16 octets) || value by the name of the alarm

A write is one script for all its changes (write.lua): it compares every version of a change, then applies
the change. A write whose answer was lost is never sent again from here: it may have been applied, and the
versions tell, since whoever comes back finds its own.

What the server's user needs: its role as a prefix of keys (`~kms:*`), and +mget +evalsha +script|load
+client|setname, and what the scripts call: +getrange +set +del +zadd +zrem +hset +hdel +hget +zrangebyscore.
A command that is missing here can leave a change half written, because scripts do not roll back: it raises
StoreRefused, which ends the process.

Limit: a single server. On Redis Cluster a call would be one for each hash tag, which is not built; what a
cluster answers raises StoreRefused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as RedisTimeout

from storage.store import (
    NO_VERSION,
    SWEEP_MARGIN_S,
    Change,
    DueAlarm,
    Stored,
    StoredPut,
    StoreRefused,
    StoreUnavailable,
)

_VERSION_OCTETS: Final = 16
_ABSENT: Final = Stored(NO_VERSION, None)
_LOGIN: Final = (AuthenticationError, AuthorizationError)  # to redis-py they are ConnectionErrors: look first
_CLUSTER: Final = (AskError, ClusterCrossSlotError)  # MovedError is an AskError
_PASSES: Final = (ClusterDownError, MasterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError)
_PASSES_BY_WORD: Final = ("MISCONF", "BUSY", "NOREPLICAS")  # which redis-py gives no class
_Argument = str | bytes | int


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where the store is and how long to wait for it. Raises ValueError for a url that does not read."""

    url: str = field(repr=False)
    """redis://user:password@host:port/db, rediss:// for TLS; its query takes redis-py's options, such as
    ssl_ca_certs. It never prints: see `place`."""

    deadline_s: float = 2.0
    """How long one call may take in all, connecting included, before it raises StoreUnavailable."""

    client_name: str = "otway"
    """What the server's CLIENT LIST shows; without spaces. Best the name of the instance."""

    connections_max: int = 16
    """How many calls may be under way at once; one more raises StoreUnavailable."""

    place: str = field(init=False)
    """The url without password and options: what may be printed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", _place(self.url))


class _Script:
    """A script and the name that the server gives it."""

    def __init__(self, file: str) -> None:
        self.source: Final = Path(__file__).with_name(file).read_bytes()
        self.sha: Final = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


_WRITE: Final = _Script("write.lua")
_DUE: Final = _Script("due.lua")
_DISMISS: Final = _Script("dismiss.lua")


class RedisStore:
    """A `Store` in Redis or Valkey. Connects at the first call, and again after whatever broke."""

    def __init__(self, settings: RedisSettings) -> None:
        """Raises ValueError for an option in the url that redis-py cannot read."""
        self._settings = settings
        self._client = Redis.from_url(
            settings.url,
            protocol=2,  # with 3 redis-py asks for maintenance notifications, which change its timeouts
            client_name=settings.client_name,
            max_connections=settings.connections_max,
            driver_info=None,
            retry=Retry(NoBackoff(), 0),  # redis-py repeats ten times otherwise, writes too
            socket_timeout=None,  # the deadline is ours: one for the whole call
            socket_connect_timeout=None,
        )

    async def read(self, names: Sequence[str]) -> list[Stored]:
        """See Store.read. Tries a second time, on a new connection, when the first one breaks."""
        if not names:
            return []
        async with self._within_deadline():
            try:
                found = await self._call("MGET", *names)
            except Disconnected as error:
                if isinstance(error, _LOGIN):
                    raise
                found = await self._call("MGET", *names)
        return [
            _ABSENT if record is None else Stored(record[:_VERSION_OCTETS], record[_VERSION_OCTETS:])
            for record in found
        ]

    async def write(self, changes: Sequence[Change]) -> list[bool]:
        """See Store.write. After StoreUnavailable the changes may have been written, all or some."""
        if not changes:
            return []
        keys: list[str] = []
        arguments: list[_Argument] = []
        for change in changes:
            arguments += (len(change.puts), len(change.alarms))
            for put in change.puts:
                keys.append(put.name)
                arguments += (put.expected, _record(put), _swept_at(put))
            for alarm in change.alarms:
                keys += _alarm_keys(alarm.role, alarm.shard)
                if alarm.at is None:
                    arguments += (alarm.name, b"", b"")
                else:
                    assert len(alarm.version) == _VERSION_OCTETS
                    arguments += (alarm.name, alarm.at, alarm.version + alarm.value)
        written = [True] * len(changes)
        async with self._within_deadline():
            for stale in await self._run(_WRITE, keys, arguments):
                written[stale] = False
        return written

    async def due(self, role: str, shards: Iterable[int], now: int, limit: int) -> list[DueAlarm]:
        """See Store.due; equal times by shard, then by name."""
        ordered = sorted(set(shards))
        if not ordered or limit <= 0:
            return []
        keys = [key for shard in ordered for key in _alarm_keys(role, shard)]
        async with self._within_deadline():
            found = await self._run(_DUE, keys, (now, limit))
        fields = iter(found)
        return [
            DueAlarm(
                role,
                ordered[place],
                name.decode(),
                int(at),
                record[_VERSION_OCTETS:],
                record[:_VERSION_OCTETS],
            )
            for place, name, at, record in zip(fields, fields, fields, fields, strict=True)
        ]

    async def dismiss(self, alarms: Sequence[DueAlarm]) -> None:
        """See Store.dismiss."""
        if not alarms:
            return
        keys = [key for alarm in alarms for key in _alarm_keys(alarm.role, alarm.shard)]
        arguments = [argument for alarm in alarms for argument in (alarm.name, alarm.version)]
        async with self._within_deadline():
            await self._run(_DISMISS, keys, arguments)

    async def time(self) -> int:
        """The server's clock, seconds since 1970 UTC."""
        async with self._within_deadline():
            seconds, _ = await self._call("TIME")
        return int(seconds)

    async def close(self) -> None:
        """Close all connections; a later call would open new ones."""
        await self._client.aclose()

    async def _run(self, script: _Script, keys: Sequence[str], arguments: Sequence[_Argument]) -> list[Any]:
        try:
            return await self._call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:  # a new server; nothing was run
            await self._client.script_load(script.source)
            return await self._call("EVALSHA", script.sha, len(keys), *keys, *arguments)

    async def _call(self, *command: _Argument) -> list[Any]:
        answer: list[Any] = await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        return answer

    @asynccontextmanager
    async def _within_deadline(self) -> AsyncIterator[None]:
        """Bounds what is done inside, and raises the port's two errors for redis-py's."""
        place = self._settings.place
        try:
            async with asyncio.timeout(self._settings.deadline_s):
                yield
        except TimeoutError:
            raise StoreUnavailable(f"{place}: no answer within {self._settings.deadline_s} s") from None
        except _LOGIN as error:
            raise StoreRefused(f"{place}: login refused: {error}") from error
        except (Disconnected, RedisTimeout, InvalidResponse, OSError) as error:
            raise StoreUnavailable(f"{place}: {error}") from error
        except _CLUSTER as error:
            raise StoreRefused(f"{place}: a Redis Cluster, which this store cannot use: {error}") from error
        except ResponseError as error:
            if isinstance(error, _PASSES) or str(error).startswith(_PASSES_BY_WORD):
                raise StoreUnavailable(f"{place}: {error}") from error
            raise StoreRefused(f"{place}: {error}") from error


def _record(put: StoredPut) -> bytes:
    if put.value is None:
        return b""
    assert len(put.version) == _VERSION_OCTETS
    return put.version + put.value


def _swept_at(put: StoredPut) -> _Argument:
    return b"" if put.expires is None else put.expires + SWEEP_MARGIN_S


def _alarm_keys(role: str, shard: int) -> tuple[str, str]:
    prefix = f"{role}:{{{shard}}}:alarm"
    return f"{prefix}s", f"{prefix}-records"


def _place(url: str) -> str:
    """The url without password and options.

    Raises ValueError that holds nothing of the url: where a password was not escaped, any part may be of it.
    """
    place = ""
    with suppress(ValueError):  # a port that is no number
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
        unescaped = "@" in parts.path + parts.query + parts.fragment
        if parts.scheme in ("redis", "rediss") and parts.hostname and not unescaped:
            user = f"{parts.username}@" if parts.username else ""
            place = f"{parts.scheme}://{user}{parts.hostname}{port}{parts.path}"
    if not place:
        raise ValueError(
            "a store's url is redis://user:password@host:port/db, and @ : / ? # % in the password are escaped"
        )
    return place
