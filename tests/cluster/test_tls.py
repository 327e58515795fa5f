"""The second compose file: the same cluster with TLS on every port."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from storage.kms_records import Site
from storage.redis_store import RedisSettings, RedisStore
from storage.store import StoreUnavailable
from tests.cluster.cluster import Cluster
from tests.servers import project_of
from topics.kafka_admin import list_topics
from topics.kafka_clients import KafkaSettings

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    request.getfixturevalue("images")
    files = ("compose.yaml", "compose.tls.yaml")
    made = Cluster(project_of(os.getpid(), "tls"), tmp_path_factory.mktemp("tls"), files)
    made.secrets.mkdir()
    with made.running():
        yield made


async def test_a_call_works_over_tls(secured: Cluster) -> None:
    assert "up after" in await secured.otway("call", "alice", "bob", "--seconds", "1")
    assert {"ims.kms", "ims.audit"} <= {topic.name for topic in await list_topics(secured.kafka("operator"))}
    store = RedisStore(secured.store("kms"))
    [stored] = await store.read([Site.key().name])
    assert stored.value is not None
    await store.close()


async def test_the_store_speaks_nothing_else_and_to_whom_it_must(secured: Cluster) -> None:
    right = secured.store("kms").url
    plain = right.replace("rediss://", "redis://").partition("?")[0]
    others = right.partition("?")[0]  # believes whom this machine believes, not the cluster's own authority
    for url in (plain, others):
        store = RedisStore(RedisSettings(url=url))
        with pytest.raises(StoreUnavailable):
            await store.read([Site.key().name])
        await store.close()


async def test_brokers_speak_nothing_else_and_to_whom_they_must(secured: Cluster) -> None:
    right = secured.kafka("kms")

    async def refused(settings: KafkaSettings, **changes: object) -> None:
        producer = AIOKafkaProducer(**{**settings.client, **changes})
        with pytest.raises(kafka_errors.KafkaConnectionError):
            await producer.start()
        await producer.stop()

    await refused(replace(right, ca_file=None))
    await refused(replace(right, user="", password=None))
    await refused(right, ssl_context=ssl.create_default_context())
