"""`otway doctor`: looks at everything that an agent needs, and says what to do."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from console.hosting.roles import keyed_codec
from console.settings import Settings
from protocol.limits import SKEW_S
from protocol.sealing import Random
from storage.key_file import KeyFileBroken
from storage.kms_records import Site
from storage.records import Key, RecordBroken, RecordCodec
from storage.redis_store import RedisStore
from storage.store import Stored, StoreRefused, StoreUnavailable
from topics.bus import BusRefused, BusUnavailable
from topics.catalogue import SHARED
from topics.kafka_admin import list_topics

_SKEW_MENTIONED_S: Final = 2
_KEEP_RECORDS: Final = ("kms", "bsf", "setup")
_HAVE_KEY_FILE: Final = (*_KEEP_RECORDS, "conference")  # a focus has a key file and records of its own
_START: Final = "start it (`docker compose up -d --wait`) or set {}"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    about: str
    found: str
    advice: str | None = None  # None: all is well


async def examine(settings: Settings, random: Random) -> AsyncIterator[Finding]:
    """Broker, topics, key file, store, clock; each finding as soon as it is there. Raises SettingsBroken."""
    async for finding in _bus(settings):
        yield finding
    keeps_records = not settings.user or settings.user in _KEEP_RECORDS
    codec = None
    if not settings.user or settings.user in _HAVE_KEY_FILE:
        try:
            codec = keyed_codec(settings, random)
            yield Finding("key file", str(settings.key_file))
        except KeyFileBroken as broken:
            yield Finding("key file", str(broken), "make one with `otway keys init`")
    async for finding in _store(settings, codec, keeps_records=keeps_records):
        yield finding


async def _bus(settings: Settings) -> AsyncIterator[Finding]:
    try:
        topics = {topic.name for topic in await list_topics(settings.kafka_settings)}
    except (BusUnavailable, BusRefused) as error:
        yield Finding("broker", str(error), _START.format("OTWAY_KAFKA"))
        return
    yield Finding("broker", settings.kafka)
    missing = [topic.name for topic in SHARED if topic.name not in topics]
    hosts = sorted(name for name in topics if name.startswith("ims.ue."))
    if missing:
        yield Finding("topics", f"missing: {', '.join(missing)}", "`otway topics create`")
    elif not hosts:
        yield Finding("topics", "no UE host has an inbox", "`otway topics create --users USERS.toml`")
    else:
        yield Finding("topics", f"{len(SHARED)} shared, {len(hosts)} UE hosts")


def _clock(theirs: int) -> Finding:
    """theirs: the store's time, seconds since 1970 UTC."""
    off_s = round(abs(theirs - time.time()), 1)
    return Finding(
        "clock",
        f"{off_s:g} s from the store's" if off_s >= _SKEW_MENTIONED_S else "with the store's",
        f"set the time: beyond {SKEW_S} s tokens are refused (OR-09)" if off_s > SKEW_S / 2 else None,
    )


async def _store(
    settings: Settings, codec: RecordCodec | None, *, keeps_records: bool
) -> AsyncIterator[Finding]:
    """keeps_records: its user may read the KMS's."""
    store = RedisStore(settings.redis_settings)
    key = Site.key()
    try:
        found = await store.read([key.name] if keeps_records else [])
        theirs = await store.time()
    except (StoreUnavailable, StoreRefused) as error:
        yield Finding("store", str(error), _START.format("OTWAY_STORE"))
        return
    finally:
        await store.close()
    yield Finding("store", settings.redis_settings.place)
    yield _clock(theirs)
    for stored in found:
        yield _subscribers(stored, key, codec)


def _subscribers(stored: Stored, key: Key[Site], codec: RecordCodec | None) -> Finding:
    if stored.value is None:
        return Finding("subscribers", "nothing was provisioned", "`otway provision USERS.toml`")
    if codec is None:
        return Finding("subscribers", "provisioned; no key file opens the records", "see above")
    try:
        codec.decode(key, stored.value)
    except RecordBroken as broken:
        return Finding("subscribers", str(broken), "use the key file of this store")
    return Finding("subscribers", "provisioned, and the key file opens the records")
