"""Who may do what: each principal tries what it must not, and what it must be able to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from aiokafka import errors as kafka_errors
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from protocol.secret import Secret
from storage.focus_records import Conference
from storage.kms_records import Site
from storage.redis_store import RedisSettings, RedisStore
from storage.store import NO_VERSION, Change, StoredPut, StoreRefused
from tests.cluster.cluster import Cluster
from topics.access import ue_group
from topics.bus import BusRefused
from topics.catalogue import (
    AUDIT,
    BSF,
    CONFERENCE,
    CSCF,
    DEAD_LETTERS,
    KMS,
    ORDERS,
    REPORTS,
    STATUS,
    TRANSCODER,
    UE_STATUS,
    ue_inbox,
    ue_sounds,
)
from topics.kafka_admin import list_topics, tail
from topics.kafka_clients import KafkaSettings, make_consumer, make_producer, started

pytestmark = pytest.mark.cluster

ALICE = "ue-alice"
HOST = "load"  # nothing of the cluster runs as this host, so that a test may
LOAD = "ue-load"
REFUSED = (kafka_errors.TopicAuthorizationFailedError, kafka_errors.GroupAuthorizationFailedError)


async def write(settings: KafkaSettings, topic: str) -> None:
    """One record that any loop would bury. Raises what aiokafka raises."""
    producer = make_producer(settings)
    async with started(settings, producer):
        await asyncio.wait_for(producer.send_and_wait(topic, b"\xc1", key=b"access", partition=0), 10)


async def read(settings: KafkaSettings, topic: str, group: str | None) -> None:
    """Join and ask for a record once. Raises what aiokafka raises."""
    consumer = make_consumer(settings, topic, group=group)
    try:
        await consumer.start()
        await consumer.getmany(timeout_ms=2000)
    finally:
        with suppress(kafka_errors.KafkaError):
            await consumer.stop()


REFUSED_WRITES = (kafka_errors.TopicAuthorizationFailedError, BusRefused)  # the second: it may write nowhere
WRITES = {
    LOAD: (KMS, BSF, CSCF, REPORTS, UE_STATUS, DEAD_LETTERS, ue_sounds(HOST)),
    "bsf": (KMS, AUDIT, STATUS, DEAD_LETTERS, ue_inbox(HOST)),
    "kms": (KMS, BSF, CSCF, TRANSCODER, CONFERENCE, AUDIT, STATUS, DEAD_LETTERS, ue_inbox(HOST)),
    "cscf": (TRANSCODER, CONFERENCE, STATUS, DEAD_LETTERS, ue_inbox(HOST)),
    "transcoder": (KMS, CSCF, STATUS, DEAD_LETTERS),
    "conference": (KMS, REPORTS, STATUS, DEAD_LETTERS, ue_inbox(HOST)),
    "operator": (
        KMS,
        BSF,
        CSCF,
        TRANSCODER,
        CONFERENCE,
        ORDERS,
        DEAD_LETTERS,
        ue_inbox(HOST),
        ue_sounds(HOST),
    ),
}
NO_WRITES = {
    LOAD: (
        AUDIT,
        ORDERS,
        STATUS,
        TRANSCODER,
        CONFERENCE,
        ue_inbox(HOST),
        ue_inbox("alice"),
        ue_sounds("alice"),
    ),
    "kms": (REPORTS, ORDERS, UE_STATUS, ue_sounds(HOST)),
    "bsf": (CSCF, BSF, ORDERS, REPORTS),
    "cscf": (KMS, BSF, AUDIT, ORDERS, REPORTS),
    "transcoder": (TRANSCODER, CONFERENCE, AUDIT, ORDERS, REPORTS, ue_inbox(HOST)),
    "conference": (CSCF, CONFERENCE, TRANSCODER, AUDIT, ORDERS, ue_sounds(HOST)),
    "operator": (AUDIT, REPORTS, STATUS),
    "auditor": (AUDIT, REPORTS, KMS, ue_inbox(HOST)),
}


@pytest.mark.parametrize("who", NO_WRITES)
async def test_what_nobody_may_write(cluster: Cluster, who: str) -> None:
    settings = cluster.kafka(who)
    await list_topics(settings)  # it does get in
    for topic in NO_WRITES[who]:
        with pytest.raises(REFUSED_WRITES) as refused:
            await write(settings, topic.name)
        assert "Authorization" in str(refused.value)


@pytest.mark.parametrize("who", WRITES)
async def test_what_they_may_write(cluster: Cluster, who: str) -> None:
    for topic in WRITES[who]:
        await write(cluster.kafka(who), topic.name)


async def test_a_ue_host_reads_its_own_inbox_and_nothing_else(cluster: Cluster) -> None:
    settings = cluster.kafka(LOAD)
    await read(settings, ue_inbox(HOST).name, ue_group(HOST))
    for topic in (
        KMS,
        CSCF,
        AUDIT,
        REPORTS,
        STATUS,
        ORDERS,
        DEAD_LETTERS,
        ue_inbox("alice"),
        ue_sounds("alice"),
    ):
        with pytest.raises(REFUSED):
            await read(settings, topic.name, ue_group(HOST))
    for group in ("kms", ue_group("alice"), "mine"):
        with pytest.raises(kafka_errors.GroupAuthorizationFailedError):
            await read(settings, ue_inbox(HOST).name, group)
    seen = {topic.name for topic in await list_topics(settings)}
    assert ue_inbox(HOST).name in seen
    assert not {AUDIT.name, ue_inbox("alice").name, ORDERS.name} & seen


async def test_an_auditor_reads_audit_and_reports_only(cluster: Cluster) -> None:
    settings = cluster.kafka("auditor")
    async with tail(settings, [AUDIT.name, REPORTS.name]):
        pass
    for topic in (KMS, DEAD_LETTERS, ue_inbox("alice"), ue_sounds("alice")):
        with pytest.raises(REFUSED):
            await read(settings, topic.name, None)


async def test_only_the_kms_reads_the_records_of_the_kms(cluster: Cluster) -> None:
    name = Site.key().name
    store = RedisStore(cluster.store("kms"))
    [stored] = await store.read([name])
    assert stored.value is not None
    await store.close()
    for who in ("bsf", "cscf", "transcoder", "conference", "operator"):
        store = RedisStore(cluster.store(who))
        with pytest.raises(StoreRefused):
            await store.read([name])
        hidden = [StoredPut(key, NO_VERSION, bytes(16), b"x") for key in (f"{who}:{{0}}:mine", name)]
        with pytest.raises(StoreRefused):
            await store.write([Change(hidden)])
        await store.close()


async def test_only_the_focus_reads_the_keys_of_its_conferences(cluster: Cluster) -> None:
    name = Conference.key_for(bytes(16)).name
    store = RedisStore(cluster.store("conference"))
    [stored] = await store.read([name])
    assert stored.value is None
    await store.close()
    for who in ("kms", "cscf", "transcoder"):
        store = RedisStore(cluster.store(who))
        with pytest.raises(StoreRefused):
            await store.read([name])
        await store.close()


@pytest.mark.parametrize(
    "command",
    [
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("EVAL", "return 1", "0"),
        ("GETDEL", "kms:{0}:mine"),
        ("GET", "kms:{0}:mine"),
        ("SUBSCRIBE", "x"),
        ("MONITOR",),
        ("ACL", "LIST"),
        ("SCRIPT", "FLUSH"),
        ("CLIENT", "LIST"),
        ("RENAME", "kms:{0}:mine", "kms:{0}:other"),
    ],
    ids=" ".join,
)
async def test_what_the_kms_itself_may_not_do(cluster: Cluster, command: tuple[str, ...]) -> None:
    client = Redis.from_url(cluster.store("kms").url, protocol=2)
    try:
        with pytest.raises((NoPermissionError, ResponseError), match=r"no permissions|NOPERM"):
            await client.execute_command(*command)  # type: ignore[no-untyped-call]
    finally:
        await client.aclose()


async def test_a_script_cannot_touch_what_its_user_may_not(cluster: Cluster) -> None:
    client = Redis.from_url(cluster.store("bsf").url, protocol=2)
    try:
        sha = await client.script_load("return redis.call('MGET', ARGV[1])")
        with pytest.raises(ResponseError, match="ACL failure in script"):
            await client.evalsha(sha, 0, Site.key().name)
    finally:
        await client.aclose()


async def test_strangers_do_not_get_in(cluster: Cluster) -> None:
    right = cluster.store("kms").url
    place = right.rpartition("@")[2]
    for url in (f"redis://{place}", f"redis://kms:wrong@{place}", f"redis://default:x@{place}"):
        store = RedisStore(RedisSettings(url=url))
        with pytest.raises(StoreRefused):
            await store.read([Site.key().name])
        await store.close()
    client = Redis.from_url(f"redis://nobody:x@{place}")
    with pytest.raises(AuthenticationError):
        await client.ping()
    await client.aclose()
    wrong = replace(cluster.kafka("kms"), password=Secret(b"wrong"))
    for settings in (wrong, replace(wrong, user="nobody"), replace(wrong, user="", password=None)):
        producer = make_producer(settings)
        with pytest.raises(kafka_errors.KafkaError):
            await asyncio.wait_for(producer.start(), 20)
        await producer.stop()
